"""Pauses at which a test may stop and restart the server that a program logs to."""

import os
from pathlib import Path

from waiting import eventually

DOWN, UP = "down", "up"
"""The two pauses of each program: before and after the steps that an outage hits."""
FOLDER = "PAUSES"
"""The variable for the folder in which a test and a program meet; without it nothing pauses."""


def pause(name: str) -> None:
    """Tell the test that the program is here, and wait until it says to go on."""
    folder = os.environ.get(FOLDER)
    if folder is not None:
        (Path(folder) / f"{name}.reached").touch()
        eventually((Path(folder) / f"{name}.go").exists, within=180)
