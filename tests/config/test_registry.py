"""A codec type is known in one place: its marker is written once in the whole product."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import orbiter_mlflow
from orbiter_mlflow.config.codec.kinds import KINDS

PACKAGE = Path(orbiter_mlflow.__file__).parent
MARKER = re.compile(r"\$[a-z][\w.]*")


def places_by_marker() -> dict[str, list[str]]:
    found = defaultdict(list)
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Constant(value=str(text)) if MARKER.fullmatch(text):
                    found[text].append(f"{name}:{node.lineno}")
    return found


def test_each_marker_is_written_once() -> None:
    found = places_by_marker()
    assert KINDS.keys() <= found.keys()
    assert {marker: places for marker, places in found.items() if len(places) > 1} == {}
