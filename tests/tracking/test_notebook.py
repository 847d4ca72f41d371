"""How a trainer shows itself: its `repr`, and in a real notebook a progress bar and a link."""

import asyncio
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import trainers
from orbiter_mlflow import MLflowSettings, MLflowTrainerMixin
from orbiter_mlflow.ui.links import run_page
from trainers import Backend, Tracked, stored, tracked, trained

SUPPORT = str(Path(trainers.__file__).parent)


def test_the_repr_has_state_run_and_link(sqlite_uri: str) -> None:
    trainer = tracked(sqlite_uri, experiment_id="0", delivery="thread")
    assert repr(trainer) == "<Tracked created>"
    asyncio.run(trained(trainer))
    run_id = stored(sqlite_uri, trainer).info.run_id
    page = run_page("http://127.0.0.1:5000", "0", run_id)
    assert repr(trainer) == f"<Tracked completed, run {run_id}: {page}>"
    shown = trainer._repr_html_()
    assert shown is not None
    assert f'<a href="{page}" target="_blank">run {run_id[:8]}</a>' in shown


@pytest.mark.parametrize("settings", [{"enabled": False}, {"delivery": "offline"}])
def test_without_a_run_the_repr_has_the_state(settings: dict[str, Any]) -> None:
    trainer = Tracked(None, mlflow=MLflowSettings(**settings))
    trainer.mark_validated()
    assert repr(trainer) == "<Tracked validated>"
    assert trainer._repr_html_() == "<code>Tracked</code> validated"


def test_the_repr_asks_no_server_and_takes_no_credentials_along() -> None:
    uri = "http://me:secret@127.0.0.1:9"  # nobody answers there
    trainer = tracked(uri, delivery="offline", run_id="0b3c5f")
    trainer.mark_validated()
    assert trainer._tracked.writer is not None
    trainer._tracked.writer._run_id = "0b3c5f"  # as once it is delivered
    assert repr(trainer) == "<Tracked validated, run 0b3c5f: http://127.0.0.1:9/#/runs/0b3c5f>"


class Described(Backend):
    def __repr__(self) -> str:
        return "described by its backend"


class TrackedAndDescribed(MLflowTrainerMixin, Described):
    pass


def test_a_backends_own_repr_stays() -> None:
    trainer = TrackedAndDescribed(None, mlflow=MLflowSettings(enabled=False))
    assert repr(trainer) == "described by its backend"


def test_the_repr_never_raises(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Tracked(None, mlflow=MLflowSettings(enabled=False))
    monkeypatch.setattr(type(trainer), "_known_run", lambda self: 1 / 0)
    assert repr(trainer).startswith("<trainers.Tracked object at ")
    assert trainer._repr_html_() is None
    assert "ZeroDivisionError" in caplog.text


IMPORTS = f"""
import sys
sys.path.insert(0, {SUPPORT!r})
from orbiter_mlflow import MLflowSettings
from trainers import Tracked, reporting
"""
TRAINING = """
reports = [({"loss": 1 / (n + 1), "<b>x": 2.0, "text": "a"}, n + 1) for n in range(50)]
settings = MLflowSettings(delivery="offline", progress=50, run_name="a <bold> name")
trainer = Tracked(None, reporting(*reports), mlflow=settings)
trainer.mark_validated()
await trainer.train()
"""


def test_in_a_notebook_there_is_a_bar_and_a_trainer_with_its_state(own_folder: Path) -> None:
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in (IMPORTS, TRAINING, "trainer")]
    )
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=str(own_folder))
    _, training, shown = (cell.outputs for cell in notebook.cells)
    assert not [one for one in training if one.output_type == "stream"], training
    (bar,) = (one.data for one in training if one.output_type == "display_data")
    assert 'a &lt;bold&gt; name <progress value="50" max="50">' in bar["text/html"]
    assert "step 50 of 50  loss 0.02  &lt;b&gt;x 2  0:00" in bar["text/html"]
    assert bar["text/plain"] == "a <bold> name  step 50 of 50  loss 0.02  <b>x 2  0:00"
    (result,) = (one.data for one in shown)
    assert result["text/html"] == "<code>Tracked</code> completed"
    assert result["text/plain"] == "<Tracked completed>"
