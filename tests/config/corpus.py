"""Run a corpus: encode each value in this process, load it in a fresh one, and compare.

    PYTHONPATH=tests:tests/support python -m config.corpus light      # or heavy

Each value is tried in three places: in `extra`, in a field of any type, and in a field of its own
type. Prints the figures as a line of JSON; the exit code is 1 if a value came back changed without
a word.
"""

import importlib
import json
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import make_dataclass
from typing import Any

from config.oracle import carried
from logged import as_stored, params_and_tags
from orbiter.train import TrainConfig
from orbiter_mlflow import ConfigError, names
from orbiter_mlflow.runs.load_config import config_of
from orbiter_mlflow.text.packed_tags import unpacked
from paths import PYTHONPATH

__all__ = ["check", "values_of"]

PLACES = ("extra", "any", "typed")
AnyField = make_dataclass("AnyField", [("v", Any, None)], bases=(TrainConfig,))
AnyField.__module__ = __name__

# Attributes that depend on the process, its machine, or how a value was made.
OF_THE_MACHINE = frozenset({"distributed_state", "_n_gpu", "_setup_devices", "twice"})


def values_of(name: str) -> dict[str, Callable[[], Any]]:
    """The values of a corpus, each made by a call."""
    found: dict[str, Callable[[], Any]] = getattr(
        importlib.import_module(f"config.corpus_{name}"), name.upper()
    )
    return found


def config_with(value: Any, place: str) -> Any:
    """A config that holds the value."""
    if isinstance(value, TrainConfig):
        return value
    if place == "extra":
        return TrainConfig(extra={"v": value, "z": 1, "a": 2})
    if place == "any":
        return AnyField(v=value)
    typed: Any = make_dataclass("Typed", [("v", type(value), None)], bases=(TrainConfig,))
    return typed(v=value)


def encoded(name: str) -> dict[str, Any]:
    """Params and tags of each value in each place."""
    found = {}
    for label, make in values_of(name).items():
        for place in PLACES:
            config = config_with(make(), place)
            start = time.perf_counter()
            params, tags = params_and_tags(config)
            found[f"{label} | {place}"] = [params, tags, time.perf_counter() - start]
    return found


def outcome(config: Any, params: dict[str, str], logged: dict[str, str]) -> tuple[str, str, float]:
    """`identical`, `refused` or `silent`; the reason; and the seconds that loading took."""
    tags = unpacked(logged)
    start = time.perf_counter()
    try:
        loaded = config_of(as_stored(params, tags), type(config))
    except ConfigError as error:
        listed = json.loads(tags.get(names.CONFIG_UNENCODABLE, "[]"))
        listed += json.loads(tags.get(names.CONFIG_REDACTED, "[]"))
        named = all(any(path.startswith(one) for one in listed) for path in error.problems)
        return ("refused" if named and listed else "silent"), str(error), 0.0
    took = time.perf_counter() - start
    if names.CONFIG_UNENCODABLE in tags or names.CONFIG_REDACTED in tags:
        return "silent", "it was listed as one that cannot come back", took
    one, other = (carried(each, OF_THE_MACHINE) for each in (loaded, config))
    if one == other:
        return "identical", "", took
    return "silent", f"{one}\nis not\n{other}", took


class _Recording(logging.Handler):
    """Records messages."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__()
        self.messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def _slowest(times: dict[str, float]) -> list[Any]:
    name = max(times, key=times.__getitem__)
    return [round(times[name] * 1e3, 1), name]


def check(name: str) -> int:
    """Load and compare in this fresh process; the texts come by standard input."""
    messages: list[str] = []
    logger = logging.getLogger("orbiter_mlflow")
    logger.propagate = False
    logger.addHandler(_Recording(messages))
    texts, counts, failed, times = json.load(sys.stdin), Counter[str](), [], {}
    refused, unconstructed = set(), set()
    for label, make in values_of(name).items():
        for place in PLACES:
            params, tags, _ = texts[f"{label} | {place}"]
            config = config_with(make(), place)
            messages.clear()
            result, why, times[f"{label} | {place}"] = outcome(config, params, tags)
            if "made without their constructors" in "".join(messages):
                unconstructed.add(label)
            counts[result] += 1
            if result == "silent":
                failed.append(f"{label} | {place}: {why}")
            elif result == "refused":
                refused.add(label)
    print("\n\n".join(failed), file=sys.stderr)
    print(
        json.dumps(
            {
                "corpus": name,
                "values": len(values_of(name)),
                "in places": sum(counts.values()),
                "identical": counts["identical"],
                "refused by name": counts["refused"],
                "silent": counts["silent"],
                "slowest encoding, ms": _slowest({name: t[2] for name, t in texts.items()}),
                "slowest loading, ms": _slowest(times),
                "without constructor": sorted(unconstructed),
                "refused": sorted(refused),
            }
        )
    )
    return 1 if failed else 0


def run(name: str) -> subprocess.CompletedProcess[str]:
    """Encode here, check in a fresh process."""
    return subprocess.run(
        [sys.executable, "-m", "config.corpus", "--check", name],
        input=json.dumps(encoded(name)),
        env=os.environ | {"PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


if __name__ == "__main__":
    if sys.argv[1] == "--check":
        sys.exit(check(sys.argv[2]))
    done = run(sys.argv[1])
    print(done.stdout, done.stderr)
    sys.exit(done.returncode)
