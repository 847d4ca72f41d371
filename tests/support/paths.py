"""Folders of the repository that tests need."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHONPATH = os.pathsep.join(str(ROOT / folder) for folder in ("tests", "tests/support"))
"""For a subprocess that imports the helpers of the tests."""
