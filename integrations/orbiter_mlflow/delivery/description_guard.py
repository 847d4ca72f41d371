"""Whose a run's description is: ours is written anew as the run goes on, a person's stays.

People write in the MLflow UI while a run trains, and before it is continued. A checksum beside our
text tells whether it is still the one that we wrote.
"""

import hashlib

from orbiter_mlflow import names
from orbiter_mlflow.delivery.sink import Sink


def signed(text: str) -> dict[str, str]:
    """The tags of a description of ours, which fits into a tag."""
    return {names.DESCRIPTION: text, names.DESCRIBED: _checksum(text)}


def fill_in(sink: Sink, run_id: str, tags: dict[str, str]) -> None:
    """Make tags as they are to be sent: with the run's id in the description, and without ours
    where a person has written another one meanwhile.

    Raises:
        DeliveryError: the store cannot be asked for the present one.
    """
    text = tags.get(names.DESCRIPTION)
    if text is None:
        return
    ours = tags.pop(names.DESCRIBED, None) == _checksum(text)
    text = text.replace(names.RUN_ID_HERE, run_id)[: names.MAX_TAG_VALUE]
    tags[names.DESCRIPTION] = text
    if not ours:
        return
    present = sink.read_run(run_id).tags
    there = present.get(names.DESCRIPTION)
    if there is None or present.get(names.DESCRIBED) == _checksum(there):
        tags[names.DESCRIBED] = _checksum(text)
    else:
        del tags[names.DESCRIPTION]


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
