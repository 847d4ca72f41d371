"""Folders of the repository that tests refer to."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHONPATH = os.pathsep.join(str(ROOT / folder) for folder in ("tests", "tests/support"))
"""For a subprocess that imports what the tests share."""
