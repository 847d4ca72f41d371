"""The description of a run: what stands in it, whose it is, and that nothing in it acts."""

import re
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from journals import HEAD, journal_of
from memory_sink import MemorySink, Trouble
from orbiter.train import TrainConfig, TrainerError, TrainMetrics
from orbiter_mlflow import names
from orbiter_mlflow.delivery.description_guard import fill_in, generated
from orbiter_mlflow.delivery.drain import Drain
from orbiter_mlflow.delivery.records import Tags
from orbiter_mlflow.errors import TransientError
from orbiter_mlflow.tracking.description import Description
from trainers import Backend, Tracked, recorded, stored, tracked, trained


def described(uri: str, trainer: Tracked) -> str:
    return str(stored(uri, trainer).data.tags[names.DESCRIPTION])


async def test_it_tells_trainer_config_result_and_the_way_back(sqlite_uri: str) -> None:
    config = TrainConfig(learning_rate=3e-4, extra={"hf_token": "hf_abcdefgh12345678", "r": 16})
    trainer = await trained(tracked(sqlite_uri, config, description="# Why\nbecause"))
    await trainer.evaluate()
    text = described(sqlite_uri, trainer)
    assert text.startswith("# Why\nbecause\n\nTrained by `trainers:Tracked`.")
    assert "| `learning_rate` | `0.0003` |" in text
    assert "| `extra.r` | `16` |" in text
    assert "hf_abcdefgh" not in text
    assert "`eval/accuracy` 0.75, `eval/loss` 0.25" in text
    assert text.index("eval/loss") < text.index("train/loss")
    assert f"`orbiter-mlflow reproduce {trainer.run_id}`" in text


async def test_an_error_is_told(sqlite_uri: str) -> None:
    async def body(trainer: Backend) -> TrainMetrics:
        raise ValueError("<b>loss</b> is | NaN\n# no heading")

    trainer = tracked(sqlite_uri, body=body)
    with pytest.raises(TrainerError):
        await trained(trainer)
    text = described(sqlite_uri, trainer)
    assert "**Error:** train ended with `ValueError`: " in text
    assert "<b>" not in text
    assert "\n# no heading" not in text


async def test_what_the_user_writes_there_stays(sqlite_uri: str) -> None:
    trainer = tracked(sqlite_uri)
    trainer.mark_validated()
    trainer.set_tag(names.DESCRIPTION, "mine of {run_id}")
    await trainer.train()
    assert described(sqlite_uri, trainer) == f"mine of {trainer.run_id}"


async def test_what_a_person_writes_on_the_runs_page_stays(sqlite_uri: str) -> None:
    trainer = await trained(tracked(sqlite_uri))
    run_id = stored(sqlite_uri, trainer).info.run_id
    again = await trained(tracked(sqlite_uri, TrainConfig(epochs=2), run_id=run_id))
    assert "| `epochs` | `2` |" in described(sqlite_uri, again), "ours is written anew"

    MlflowClient(sqlite_uri).set_tag(run_id, names.DESCRIPTION, "the one to keep")
    await again.evaluate()
    assert described(sqlite_uri, again) == "the one to keep"
    later = await trained(tracked(sqlite_uri, run_id=run_id, description="another life"))
    assert described(sqlite_uri, later) == "the one to keep"


async def test_what_a_person_edits_in_our_text_stays(sqlite_uri: str) -> None:
    trainer = await trained(tracked(sqlite_uri))
    run_id = stored(sqlite_uri, trainer).info.run_id
    edited = described(sqlite_uri, trainer).replace("Trained by", "Trained, at last, by")
    MlflowClient(sqlite_uri).set_tag(run_id, names.DESCRIPTION, edited)
    await trainer.evaluate()
    assert described(sqlite_uri, trainer) == edited


async def test_the_checksum_of_our_text_is_not_shown_and_no_tag(sqlite_uri: str) -> None:
    trainer = await trained(tracked(sqlite_uri))
    *_, last = described(sqlite_uri, trainer).split("\n\n")
    assert re.fullmatch(r"\[//\]: # \(orbiter-mlflow [0-9a-f]{16}\)", last)
    assert names.DESCRIBED not in stored(sqlite_uri, trainer).data.tags


def test_a_description_whose_checksum_is_a_tag_is_written_anew(tmp_path: Path) -> None:
    sink = MemorySink()
    run_id = sink.create_run(HEAD)
    text = "by an earlier version"
    sink.runs[run_id].tags |= {names.DESCRIPTION: text} | {
        names.DESCRIBED: generated(text)[names.DESCRIBED]
    }
    tags = generated("by this version")
    fill_in(sink, run_id, tags)
    assert tags.keys() == {names.DESCRIPTION}
    assert tags[names.DESCRIPTION].startswith("by this version\n\n[//]")
    sink.runs[run_id].tags |= {names.DESCRIPTION: "by a person"}
    tags = generated("by this version")
    fill_in(sink, run_id, tags)
    assert tags == {}


def test_a_run_that_was_created_just_now_is_not_asked_for_its_description(tmp_path: Path) -> None:
    sink, journal = MemorySink(), journal_of(tmp_path / "r.jsonl", [Tags(generated("ours"))])
    assert Drain(journal, lambda _: sink).run()
    assert sink.calls == ["create_run", "log_batch"]


def test_a_person_may_write_while_the_first_batch_is_tried_again(tmp_path: Path) -> None:
    sink, journal = MemorySink(), journal_of(tmp_path / "r.jsonl", [Tags(generated("ours"))])
    drain = Drain(journal, lambda _: sink)
    sink.troubles.append(Trouble(TransientError("down")))
    assert not drain.run()
    (run,) = sink.runs.values()
    run.tags[names.DESCRIPTION] = "by a person"
    assert drain.run()
    assert run.tags[names.DESCRIPTION] == "by a person"


async def test_it_is_written_at_the_start_and_at_the_end_of_a_training(sqlite_uri: str) -> None:
    async def body(trainer: Backend) -> TrainMetrics:
        for _ in range(5):
            await trainer.evaluate()
        return TrainMetrics(loss=0.5)

    await trained(tracked(sqlite_uri, body=body, keep_journals=True))
    written = [one for one in recorded(Tags) if names.DESCRIPTION in one.values]
    assert len(written) == 2


async def test_a_value_that_looks_like_the_place_of_the_id_is_shown_as_it_is(
    sqlite_uri: str,
) -> None:
    config = TrainConfig(extra={"out": "runs/{run_id}/x"})
    text = described(sqlite_uri, await trained(tracked(sqlite_uri, config)))
    assert "| `extra.out` | `runs/{\u2060run_id}/x` |" in text


def test_long_configs_and_many_results_are_cut_and_it_is_said() -> None:
    description = Description("m:T")
    description.configured({f"field_{i}": "x" * 500 for i in range(400)})
    description.measured({f"train/m{i}": 1.5 for i in range(100)})
    text = description.text()
    assert len(text) < names.MAX_TAG_VALUE / 2
    assert "and 388 more" in text
    assert "and 96 more" in text
    assert "(500 characters)" in text


def test_hostile_values_stay_in_their_cell() -> None:
    description = Description("m:T")
    description.configured({"prompt": "`|` <script>alert(1)</script>\n\n# x", "a|b": "1"})
    rows = [line for line in description.text().splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert all(row.count("|") == 3 for row in rows)


@pytest.mark.parametrize("again", [False, True])
def test_delivery_puts_the_id_in_also_when_it_says_the_tags_again(
    tmp_path: Path, again: bool
) -> None:
    text: dict[str, Any] = {names.DESCRIPTION: "run {run_id} " + "x" * 7990}
    journal = journal_of(tmp_path / "j.jsonl", [Tags(text)], HEAD)
    sink = MemorySink()
    drain = Drain(journal, lambda _: sink)
    assert drain.run()
    (run_id,) = sink.runs
    if again:
        drain._write(overdue=True)
        sink.runs[run_id].tags[names.DESCRIPTION] = "older"
        drain._settle()
    found = sink.runs[run_id].tags[names.DESCRIPTION]
    assert found.startswith(f"run {run_id} xxx")
    assert len(found) <= names.MAX_TAG_VALUE
