"""What is in a folder in which another thread or process is at work."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def each_file(folder: Path, read: Callable[[Path], T]) -> dict[Path, T]:
    """What `read` says of each regular file below a folder, but of those that vanish meanwhile."""
    found = {}
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names):
            try:
                if path.is_file():
                    found[path] = read(path)
            except FileNotFoundError:
                continue
    return found
