"""Read back the metrics of an offline W&B run from its transaction log, a `.wandb` file.

The file has the format of LevelDB's logs: blocks of 32 KiB, filled with fragments of records; each
fragment has a checksum (4 bytes), a length (2) and a kind (1): whole, first, middle or last. A
record is a protocol buffer.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from benchmarks.stores import value_of

_BLOCK = 32_768
_FILE_HEADER, _FRAGMENT_HEADER = 7, 7
_WHOLE, _LAST = 1, 4


def found_points(path: str, prefix: str, steps: range, count: int) -> int:
    """Points of a run that are in its log once, with the value that was logged."""
    from wandb.proto.wandb_internal_pb2 import Record

    values: dict[tuple[str, int], list[float]] = {}
    for content in _records(Path(path).read_bytes()):
        row = Record.FromString(content).history  # empty in a record of another kind
        for item in row.item:
            key = item.key or "/".join(item.nested_key)
            values.setdefault((key, row.step.num), []).append(json.loads(item.value_json))
    return sum(
        values.get((f"{prefix}m{metric}", step)) == [value_of(step, metric)]
        for step in steps
        for metric in range(count)
    )


def _records(log: bytes) -> Iterator[bytes]:
    at, record = _FILE_HEADER, b""
    while at + _FRAGMENT_HEADER <= len(log):
        if _BLOCK - at % _BLOCK < _FRAGMENT_HEADER:  # padding: no header fits in
            at += _BLOCK - at % _BLOCK
            continue
        length, kind = int.from_bytes(log[at + 4 : at + 6], "little"), log[at + 6]
        at += _FRAGMENT_HEADER
        record += log[at : at + length]
        at += length
        if kind in (_WHOLE, _LAST):
            yield record
            record = b""
