"""`bless`, drift and history count the attempts of a seed once, as `check` does."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from gate_runs import Shelf

POLICY = """
[gate]
schema = 1
[baseline]
filter = "tags.baseline = 'main'"
{more}
[metrics."eval/accuracy"]
direction = "higher"
max_drop = 0.03
paired_by = "params.seed"
"""


@pytest.fixture
def shelf(empty_store: Path, tmp_path: Path) -> Shelf:
    Path("gate.toml").write_text(POLICY.format(more=""))
    return Shelf.fresh(empty_store, tmp_path)


def add(shelf: Shelf, batch: str, values: Sequence[float], attempt: str = "1") -> None:
    for seed, value in enumerate(values):
        shelf.add(
            f"{batch}-{seed}-{attempt}",
            {"eval/accuracy": value},
            params={"seed": str(seed)},
            tags={"batch": batch},
        )


def bless(shelf: Shelf, batch: str, *more: str) -> tuple[int, str]:
    chosen = ["bless", f"tags.batch = '{batch}'", "--reason", batch, "--policy", "gate.toml"]
    return shelf.call(*chosen, *more)


@pytest.mark.parametrize("more", [(), ("--file", "baseline.json")], ids=["tags", "file"])
def test_an_earlier_attempt_does_not_hide_a_lower_baseline(
    shelf: Shelf, more: tuple[str, ...]
) -> None:
    add(shelf, "first", (0.90, 0.92, 0.94))
    assert bless(shelf, "first", *more)[0] == 0
    add(shelf, "second", (0.92, 0.94, 0.96))
    add(shelf, "second", (0.84, 0.86, 0.88), attempt="2")
    code, out = bless(shelf, "second", *more)
    assert code == 1
    assert "0.86" in out
    assert bless(shelf, "second", *more, "--accept-lower", "eval/accuracy")[0] == 0


def test_a_retried_job_can_be_blessed_and_says_what_it_left_out(shelf: Shelf) -> None:
    died = shelf.add("died", {}, params={"seed": "1"}, tags={"batch": "b"}, status="KILLED")
    add(shelf, "b", (0.90, 0.92, 0.94))
    code, out = bless(shelf, "b")
    assert code == 0, out
    assert f"run {died} is left out: another attempt of seed 1 counts: it is KILLED" in out


def test_history_shows_what_the_check_compares_with(shelf: Shelf) -> None:
    add(shelf, "b", (0.92, 0.94, 0.96))
    assert bless(shelf, "b")[0] == 0
    found = shelf.client.search_runs(["0"], "tags.baseline = 'main'")
    blessed = {key: text for key, text in found[0].data.tags.items() if "baseline" in key}
    add(shelf, "b", (0.60, 0.62, 0.64), attempt="2")
    for seed in range(3):  # as an earlier version blessed all attempts
        shelf.tag(f"b-{seed}-2", **blessed)
    code, out = shelf.call("history", "eval/accuracy", "--policy", "gate.toml", "--format", "json")
    assert code == 0, out
    (point,) = json.loads(out)["points"]
    assert (point["summary"]["n"], point["summary"]["mean"]) == (3, pytest.approx(0.62))


def test_too_few_runs_for_the_policy_are_refused(shelf: Shelf) -> None:
    add(shelf, "b", (0.90, 0.92))
    code, out = bless(shelf, "b")
    assert (code, "2 runs cannot be a baseline: the policy needs 3 (min_runs)" in out) == (1, True)


def test_a_field_that_pairs_runs_and_that_none_has_is_refused(shelf: Shelf) -> None:
    add(shelf, "b", (0.90, 0.92, 0.94))
    assert bless(shelf, "b")[0] == 0
    Path("gate.toml").write_text(POLICY.format(more="").replace("params.seed", "params.sede"))
    code, out = bless(shelf, "b")
    assert (code, "has no params.sede, by which the policy pairs runs" in out) == (1, True)
    add(shelf, "c", (0.90, 0.92, 0.94))
    code, out = shelf.call("check", "gate.toml", "--candidate", "tags.batch = 'c'")
    assert code == 3, out
    assert "3 of 3 baseline runs did not log params.sede" in " ".join(out.split())
