"""Appended records are read back, whatever happens to the journal's file."""

import os
import stat
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from journals import HEAD, entries, journal_of
from orbiter_mlflow.delivery import records
from orbiter_mlflow.delivery.journal import Journal
from orbiter_mlflow.delivery.journal_reader import read_entries, read_head
from orbiter_mlflow.delivery.killed_run import last_time
from orbiter_mlflow.delivery.records import (
    Close,
    Metrics,
    Params,
    Record,
    Status,
    Tags,
    decode,
    encode,
    entry_size,
    split,
)
from orbiter_mlflow.errors import DamagedLineError, UnknownFormatError
from paths import PYTHONPATH

RECORDS: list[Record] = [
    Params({"learning_rate": "1e-05", "ünïcode": "☃\n\x00"}),
    Tags({"orbiter.state": "training"}),
    Metrics(3, 1_700_000_000_000, {"train/loss": 0.1 + 0.2, "train/a": -0.0}),
    Status("FINISHED", 1_700_000_000_001),
    Close(),
]


def written(path: Path) -> Path:
    journal = Journal(path, HEAD)
    for record in RECORDS:
        journal.append(record)
    assert journal.size == path.stat().st_size
    assert journal.lost == 0
    journal.close()
    return path


def test_appended_records_are_read_back(tmp_path: Path) -> None:
    path = written(tmp_path / "j.jsonl")
    assert entries(path) == [HEAD, *RECORDS]
    assert read_head(path) == HEAD


def test_values_that_json_lacks_survive(tmp_path: Path) -> None:
    values = {"nan": float("nan"), "inf": float("inf"), "ninf": -float("inf")}
    read_back = decode(encode(Metrics(0, 0, values), 1).rstrip(b"\n"))
    assert isinstance(read_back, Metrics)
    assert {k: repr(v) for k, v in read_back.values.items()} == {
        k: repr(v) for k, v in values.items()
    }


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    assert stat.S_IMODE(written(tmp_path / "j.jsonl").stat().st_mode) == 0o600


def test_a_journal_cut_at_any_byte_yields_all_complete_records_and_no_damage(
    tmp_path: Path,
) -> None:
    whole = written(tmp_path / "j.jsonl").read_bytes()
    cut = tmp_path / "cut.jsonl"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        complete = whole[:length].count(b"\n")
        found = list(read_entries(cut))
        assert [entry.record for entry in found] == [HEAD, *RECORDS][:complete]
        assert not found or found[-1].end == whole[:length].rfind(b"\n") + 1


@pytest.mark.parametrize("line", range(1, len(RECORDS) + 1))
def test_a_flipped_byte_costs_one_record(tmp_path: Path, line: int) -> None:
    path = written(tmp_path / "j.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    for position in range(0, len(lines[line]) - 1, 7):
        damaged = bytearray(lines[line])
        damaged[position] ^= 1
        if b"\n" in damaged[:-1]:
            continue
        path.write_bytes(b"".join([*lines[:line], damaged, *lines[line + 1 :]]))
        found = [entry.record for entry in read_entries(path)]
        expected: list[Record | None] = [HEAD, *RECORDS]
        expected[line] = None
        assert found == expected


def test_reading_continues_from_an_offset(tmp_path: Path) -> None:
    path = written(tmp_path / "j.jsonl")
    ends = [entry.end for entry in read_entries(path)]
    for number, end in enumerate(ends):
        assert [entry.record for entry in read_entries(path, end)] == RECORDS[number:]


def test_a_journal_of_another_format_is_refused(tmp_path: Path) -> None:
    body = encode(HEAD, 0).replace(b'"format":4', b'"format":99')
    payload = body[body.index(b'"r":') + 4 : -2]
    line = b'{"n":0,"c":"%08x","r":%s}' % (zlib.crc32(payload, 0), payload)
    with pytest.raises(UnknownFormatError, match="journal format 99 is not known"):
        decode(line)


@pytest.mark.parametrize("line", [b"", b"{}", b"\x00\xff", b'{"n":1,"c":"00000000","r":{}}'])
def test_a_line_that_is_no_record_is_damaged(line: bytes) -> None:
    with pytest.raises(DamagedLineError):
        decode(line)


def test_a_file_that_is_no_journal_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello\n")
    with pytest.raises(ValueError, match=r"notes\.txt is no journal"):
        read_head(path)


def test_a_full_disk_is_counted_and_the_torn_line_costs_only_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # A real limit on file sizes simulates the full disk: the write is cut short.
    path = tmp_path / "j.jsonl"
    script = f"""
import resource, signal, sys
from pathlib import Path
from journals import HEAD
from orbiter_mlflow.delivery.journal import Journal
from orbiter_mlflow.delivery.records import Metrics, Tags
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(Path({str(path)!r}), HEAD)
journal.append(Tags({{"first": "kept"}}))
resource.setrlimit(resource.RLIMIT_FSIZE, (journal.size + 20, resource.RLIM_INFINITY))
journal.append(Metrics(1, 1, {{"second": 1.0}}))
journal.append(Metrics(2, 2, {{"third": 1.0}}))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.append(Tags({{"fourth": "kept"}}))
assert journal.lost == 2, journal.lost
assert journal.size == Path({str(path)!r}).stat().st_size
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("takes no more records") == 1
    kept = entries(path)[1:]
    assert kept == [Tags({"first": "kept"}), None, Tags({"fourth": "kept"})]


def test_a_forked_child_writes_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl", HEAD)
    child = os.fork()
    if child == 0:
        journal.append(Tags({"from": "the child"}))
        os._exit(0)
    os.waitpid(child, 0)
    journal.append(Tags({"from": "the parent"}))
    assert entries(journal.path) == [HEAD, Tags({"from": "the parent"})]
    journal.close()


def test_an_existing_file_is_never_written_to(tmp_path: Path) -> None:
    path = written(tmp_path / "j.jsonl")
    with pytest.raises(FileExistsError):
        Journal(path, HEAD)


def test_records_are_split_to_fit_into_one_batch() -> None:
    many = Metrics(1, 2, {f"k{i}": float(i) for i in range(2500)})
    parts = [part for part in split(many) if isinstance(part, Metrics)]
    assert [len(part.values) for part in parts] == [999, 999, 502]
    assert {k: v for part in parts for k, v in part.values.items()} == many.values

    wide = Params({f"k{i}": "é" * 6000 for i in range(250)})
    texts = [part for part in split(wide) if isinstance(part, Params)]
    assert {k: v for part in texts for k, v in part.values.items()} == wide.values
    for part in texts:
        assert len(part.values) <= 100
        size = sum(entry_size(key, text) for key, text in part.values.items())
        assert size <= records.MAX_RECORD_BYTES


@pytest.mark.parametrize("of", [None, {"dataset_name": "é" * 500, "dataset_digest": "d" * 36}])
def test_metrics_fit_however_long_their_keys_and_what_they_belong_to_are(
    of: dict[str, str] | None,
) -> None:
    for number in (1, 60, 120, 300, 310, 999):
        widest = {"é" * 247 + f"{i:03}": 1.0 for i in range(number)}
        parts = [part for part in split(Metrics(1, 2, widest, of)) if isinstance(part, Metrics)]
        assert {key for part in parts for key in part.values} == widest.keys()
        for part in parts:
            size = sum(entry_size(key, 1.0) + records.size_of(of) for key in part.values)
            assert size <= records.MAX_RECORD_BYTES


def test_the_last_time_of_a_copied_journal_is_that_of_its_records(tmp_path: Path) -> None:
    path = journal_of(tmp_path / "j.jsonl", [Metrics(1, 77, {"a": 1.0}), Tags({"b": "c"})])
    os.utime(path, (5e9, 5e9))
    assert last_time(path) == 77
    with path.open("ab") as file:
        file.write(b"torn")
    assert last_time(path) == 77
    assert last_time(journal_of(tmp_path / "k.jsonl", [])) == HEAD.start_time


def test_the_last_time_is_the_files_if_the_last_records_have_none(tmp_path: Path) -> None:
    path = journal_of(tmp_path / "j.jsonl", [Metrics(1, 77, {}), Tags({"b": "c" * 70_000})])
    os.utime(path, (5e6, 5e6))
    assert last_time(path) == 5_000_000_000
