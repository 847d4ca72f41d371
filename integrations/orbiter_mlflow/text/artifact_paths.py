"""The paths of rollouts and checkpoints among the artifacts of a run."""

import re

CHECKPOINTS = "checkpoints"
"""The folder of checkpoints: a manifest of each."""
CHECKPOINT_FILES = "checkpoints/files"
"""The folder of their files, each under its SHA-256: content that several have is there once."""
_ROLLOUTS = "rollouts"
_STEP_FILE = re.compile(r"step-(-?\d+)(?:\.(\d+))?(?:\.from--?\d+)?(?:\.life-(\d+))?\.json")


def rollouts_folder(phase: str = "") -> str:
    """The folder of the tables of rollouts; of all without a phase."""
    return f"{_ROLLOUTS}/{phase}" if phase else _ROLLOUTS


def step_file(step: int, number: int, life: int = 1, reported: int | None = None) -> str:
    """The name of a table of rollouts, or of the manifest of a checkpoint.

    Args:
        step: the step that it belongs to.
        number: counts the reports of the step, from 1.
        life: of the run.
        reported: the step by the count of that life, if several of its steps may become this one.
    """
    again = "" if number == 1 else f".{number}"
    own = "" if reported is None else f".from-{reported}"
    later = "" if life == 1 else f".life-{life}"
    return f"step-{step}{again}{own}{later}.json"


def step_file_parts(name: str) -> tuple[int, int, int] | None:
    """Step, number and life, by the name of such a file; None for a file of another name."""
    found = _STEP_FILE.fullmatch(name)
    return None if found is None else (int(found[1]), int(found[2] or 1), int(found[3] or 1))
