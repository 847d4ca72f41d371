"""Whether verl is installed, and where; nothing here imports it."""

from importlib.util import find_spec
from pathlib import Path

_INSTALL = "VeRL is required: pip install 'orbiter[verl]', or pip install 'verl>=0.9,<0.10'"


def _check_verl_available() -> None:
    """Require verl and what composes its config.

    Raises:
        ImportError: verl or hydra is missing.
    """
    if not verl_available():
        raise ImportError(_INSTALL)


def verl_available() -> bool:
    """Whether verl is installed, with hydra."""
    return _found() is not None and find_spec("hydra") is not None


def config_folder() -> Path:
    """The folder of verl's config files.

    Raises:
        ImportError: verl is missing.
    """
    folder = _found()
    if folder is None:
        raise ImportError(_INSTALL)
    return folder / "trainer" / "config"


def _found() -> Path | None:
    """verl's own folder; any other one that is called `verl` has no `__init__.py`."""
    spec = find_spec("verl")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent
