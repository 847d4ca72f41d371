"""Write a run's description without overwriting a person's.

People write in the MLflow UI while a run trains, and before it is resumed. Our text ends with its
own checksum, in a line that Markdown does not show. A text without that line, or with another
checksum, was written or edited by a person, and stays.
"""

import hashlib

from orbiter_mlflow import names
from orbiter_mlflow.delivery.sink import Sink


def generated(text: str) -> dict[str, str]:
    """The tags of a record with our description; the second never reaches the store."""
    return {names.DESCRIPTION: text, names.DESCRIBED: _checksum(text)}


def fill_in(sink: Sink, run_id: str, tags: dict[str, str], *, is_new: bool = False) -> None:
    """Put the run's id into a description; leave our description out where a person wrote one.

    Args:
        sink: is asked for the present description.
        run_id: the run.
        tags: the tags of a batch, which this changes.
        is_new: the run was created just now, so that nobody can have written one.

    Raises:
        DeliveryError: the store cannot be read.
    """
    text = tags.get(names.DESCRIPTION)
    if text is None:
        return
    generated_here = tags.pop(names.DESCRIBED, None) == _checksum(text)
    text = text.replace(names.RUN_ID_HERE, run_id)
    if not generated_here:
        tags[names.DESCRIPTION] = text[: names.MAX_DATA_TAG]
        return
    present = {} if is_new else sink.read_run(run_id).tags
    there = present.get(names.DESCRIPTION)
    if there is None or _is_ours(there, present.get(names.DESCRIBED)):
        tags[names.DESCRIPTION] = _signed(text)
    else:
        del tags[names.DESCRIPTION]


def _signed(text: str) -> str:
    text = text[: names.MAX_DATA_TAG - len(_signature(text))]
    return text + _signature(text)


def _is_ours(there: str, checksum: str | None) -> bool:
    """Whether we wrote what stands there; earlier versions kept the checksum in a tag."""
    text = there[: -len(_signature(there))]
    return there == text + _signature(text) or checksum == _checksum(there)


def _signature(text: str) -> str:
    return f"\n\n[//]: # (orbiter-mlflow {_checksum(text)})"


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
