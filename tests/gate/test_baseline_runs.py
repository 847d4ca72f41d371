"""Which runs of a real store are the baseline: the newest blessing, or the newest code."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from gate_runs import Shelf, names_of
from orbiter_mlflow import names
from orbiter_mlflow.errors import FilterError
from orbiter_mlflow.gate.baseline_runs import FoundBaseline, find_baseline
from orbiter_mlflow.gate.policy.baseline import Baseline
from orbiter_mlflow.runs.store import RunStore

POLICY = """
[gate]
schema = 1
[baseline]
filter = "tags.baseline = 'main'"
{baseline}
[metrics."eval/accuracy"]
direction = "higher"
max_drop = 0.03
paired_by = "params.seed"
"""

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def shelf(empty_store: Path, tmp_path: Path) -> Shelf:
    return Shelf.fresh(empty_store, tmp_path)


@pytest.fixture
def run(shelf: Shelf) -> Run:
    return shelf.call


@pytest.fixture
def check(run: Run, tmp_path: Path) -> Run:
    def invoke(*candidates: str, baseline: str = "") -> tuple[int, str]:
        Path("gate.toml").write_text(POLICY.format(baseline=baseline))
        return run("check", "gate.toml", "--json", "r.json", "--candidate", *candidates)

    return invoke


def seeds(
    shelf: Shelf, name: str, mean: float, *, sd: float = 0.004, tags: dict[str, str] | None = None
) -> list[str]:
    """Three runs around a mean."""
    made = [f"{name}-{seed}" for seed in range(3)]
    for seed, run_name in enumerate(made):
        value = mean + (seed - 1) * sd
        shelf.add(run_name, {"eval/accuracy": value}, params={"seed": str(seed)}, tags=tags)
    return made


def bless(run: Run, names_: Sequence[str], *more: str) -> None:
    code, out = run("bless", *names_, "--reason", "release", *more)
    assert code == 0, out


def found(shelf: Shelf, candidates: Sequence[str] = (), **baseline: Any) -> FoundBaseline:
    store = RunStore(shelf.uri)
    return find_baseline(
        store,
        Baseline.model_validate({"filter": "tags.baseline = 'main'"} | baseline),
        {"0": "Default"},
        candidates=[store.get(shelf.ids[name]) for name in candidates],
        waiting={},
    )


def taken(shelf: Shelf, candidates: Sequence[str] = (), **baseline: Any) -> list[str]:
    return sorted(
        names_of(shelf, [run.run_id for run in found(shelf, candidates, **baseline).runs])
    )


def left_out(shelf: Shelf, candidates: Sequence[str] = (), **baseline: Any) -> dict[str, str]:
    return {one.name: one.reason for one in found(shelf, candidates, **baseline).left_out}


# -- blessings -------------------------------------------------------------------------------------


def test_a_candidate_is_judged_by_the_present_release_and_not_by_all_releases_at_once(
    shelf: Shelf, run: Run, check: Run
) -> None:
    for release, mean in enumerate((0.70, 0.80, 0.90)):
        bless(run, seeds(shelf, f"release-{release}", mean))
    change = seeds(shelf, "change", 0.81, sd=0.003)
    code, out = check(*change)
    assert (code, out.startswith("REGRESSION")) == (1, True), out
    report = json.loads(Path("r.json").read_text())
    assert [one["name"] for one in report["baseline"]] == [
        "release-2-2",
        "release-2-1",
        "release-2-0",
    ]
    assert len({one["batch"] for one in report["baseline"]}) == 1
    (metric,) = report["metrics"]
    assert metric["baseline"]["n"] == 3
    assert metric["test"].startswith("paired"), "the seeds of one blessing occur once"
    assert check(*seeds(shelf, "good", 0.9))[0] == 0


def test_several_blessings_are_compared_with_as_one_on_request(shelf: Shelf, run: Run) -> None:
    releases = [seeds(shelf, f"release-{n}", 0.9) for n in range(4)]
    for release in releases:
        bless(run, release)
    assert taken(shelf) == releases[3]
    two = found(shelf, pool=2)
    assert [len(batch.runs) for batch in two.pooled] == [3, 3]
    assert len({two.batch_of(one.run_id) for one in two.runs}) == 2
    assert [len(batch.runs) for batch in two.former] == [3, 3]
    assert "2 blessings as one" in two.described
    assert [len(found(shelf, last=last).former) for last in (1, 2, 3, 10)] == [0, 1, 2, 3]


def test_a_blessing_that_is_blessed_once_more_is_the_newest(shelf: Shelf, run: Run) -> None:
    first, second = seeds(shelf, "first", 0.9), seeds(shelf, "second", 0.8)
    for release in (first, second, first):
        bless(run, release)
    assert taken(shelf) == first
    batches = found(shelf, last=3)
    assert [len(one.runs) for one in (*batches.pooled, *batches.former)] == [3, 3, 3]
    assert taken(shelf, pool=3) == sorted(first + second)


def test_a_run_may_belong_to_two_blessings(shelf: Shelf, run: Run) -> None:
    old, new = seeds(shelf, "old", 0.9), seeds(shelf, "new", 0.8)
    bless(run, old)
    mixed = [old[0], new[1], new[2]]
    bless(run, mixed)
    assert taken(shelf) == sorted(mixed)
    both = found(shelf, pool=2)
    assert [len(batch.runs) for batch in both.pooled] == [3, 3]
    assert len(both.runs) == 5
    assert both.batch_of(shelf.ids[old[0]]) == both.pooled[0].label


def test_a_blessing_under_another_name_leaves_the_baseline(shelf: Shelf, run: Run) -> None:
    old, new = seeds(shelf, "old", 0.9), seeds(shelf, "new", 0.8)
    bless(run, old)
    bless(run, new)
    bless(run, new, "--name", "other")
    assert taken(shelf) == old
    assert taken(shelf, filter="tags.baseline = 'other'") == new
    assert taken(shelf, filter="tags.baseline LIKE '%'") == new
    bless(run, new)
    assert taken(shelf) == new


def test_two_blessings_within_the_same_millisecond_are_two(shelf: Shelf, run: Run) -> None:
    for name in ("old", "new"):
        bless(run, seeds(shelf, name, 0.9))
        for seed in range(3):
            at = {names.BLESSED_AT: "2026-01-01T00:00:00.000+00:00"}
            tag = shelf.client.get_run(shelf.ids[f"{name}-{seed}"]).data.tags[names.BLESSINGS]
            (entry,) = json.loads(tag)
            entry["at"] = at[names.BLESSED_AT]
            shelf.tag(f"{name}-{seed}", **at, **{names.BLESSINGS: json.dumps([entry])})
    assert len(taken(shelf)) == 3


@pytest.mark.parametrize("damage", ["", "[1]", "nonsense", '[{"name": "main"}]'])
def test_runs_that_an_older_version_blessed_share_their_time(shelf: Shelf, damage: str) -> None:
    for hour, name in enumerate(("old", "new")):
        at = f"2026-01-01T{hour:02}:00:00.000+00:00"
        tags = {names.BASELINE: "main", names.BLESSED_AT: at} | (
            {names.BLESSINGS: damage} if damage else {}
        )
        seeds(shelf, name, 0.9, tags=tags)
    assert taken(shelf) == ["new-0", "new-1", "new-2"]


def test_an_unusable_newest_blessing_does_not_bring_an_older_one_back(
    shelf: Shelf, run: Run, check: Run
) -> None:
    bless(run, seeds(shelf, "old", 0.9))
    new = seeds(shelf, "new", 0.9)
    bless(run, new)
    shelf.client.set_terminated(shelf.ids["new-0"], "KILLED")
    shelf.tag("new-1", **{names.LOST: "7"})
    assert taken(shelf) == ["new-2"]
    assert left_out(shelf) == {
        "new-0": "it is KILLED, not FINISHED",
        "new-1": "7 records were not taken by the disk of the training machine (tag orbiter.lost)",
    }
    code, out = check(*seeds(shelf, "change", 0.9))
    assert code == 3
    assert "only 1 usable run, but needs 3 runs: bless 3 runs or more in one call" in out
    assert "baseline.pool" in out
    shelf.client.set_terminated(shelf.ids["new-2"], "KILLED")
    assert taken(shelf) == []


def test_candidates_that_are_the_newest_blessing_are_compared_with_the_one_before(
    shelf: Shelf, run: Run
) -> None:
    old, new = seeds(shelf, "old", 0.9), seeds(shelf, "new", 0.9)
    bless(run, old)
    bless(run, new)
    assert taken(shelf, new) == old
    assert taken(shelf, new[:1]) == new[1:]
    assert left_out(shelf, new[:1]) == {new[0]: "it is a candidate itself"}


def test_a_run_without_its_tag_is_no_longer_blessed(shelf: Shelf, run: Run) -> None:
    old, new = seeds(shelf, "old", 0.9), seeds(shelf, "new", 0.9)
    bless(run, old)
    bless(run, new)
    for name in new:
        shelf.client.delete_tag(shelf.ids[name], names.BASELINE)
    assert taken(shelf, filter="attributes.status = 'FINISHED'") == old


def test_runs_that_were_never_blessed_give_way_to_those_that_were(shelf: Shelf, run: Run) -> None:
    old = seeds(shelf, "old", 0.9)
    seeds(shelf, "later", 0.5, tags={names.BASELINE: "main"})
    bless(run, old)
    assert taken(shelf) == old


# -- runs that were never blessed ------------------------------------------------------------------

NEVER = {"filter": "tags.branch = 'main'"}


def code(commit: str) -> dict[str, str]:
    return {"branch": "main", names.GIT_COMMIT: commit * 40}


def test_runs_of_the_newest_commit_are_the_baseline(shelf: Shelf) -> None:
    shelf.add("early", {"eval/accuracy": 0.9}, tags=code("b"))
    seeds(shelf, "old", 0.8, tags=code("a"))
    seeds(shelf, "new", 0.9, tags=code("b"))
    assert taken(shelf, **NEVER) == ["early", "new-0", "new-1", "new-2"]
    assert f"commit {'b' * 40}, never blessed" in found(shelf, **NEVER).described
    assert taken(shelf, **NEVER, last=1) == ["early", "new-0", "new-1", "new-2"]
    assert len(taken(shelf, **NEVER, pool=2)) == 7


def test_runs_without_a_commit_are_a_baseline_each(shelf: Shelf) -> None:
    seeds(shelf, "old", 0.9, tags={"branch": "main"})
    assert taken(shelf, **NEVER) == ["old-2"]
    assert taken(shelf, **NEVER, pool=2) == ["old-1", "old-2"]


def test_unfinished_runs_and_those_of_the_candidates_commit_are_no_baseline(shelf: Shelf) -> None:
    seeds(shelf, "old", 0.9, tags=code("a"))
    attempt = seeds(shelf, "attempt", 0.9, tags=code("b"))
    change = seeds(shelf, "change", 0.9, tags=code("b"))
    shelf.add("goes on", {"eval/accuracy": 0.9}, status="RUNNING", tags=code("c"))
    shelf.add("gone", {"eval/accuracy": 0.9}, tags=code("c"))
    shelf.client.delete_run(shelf.ids["gone"])
    assert taken(shelf, change, **NEVER) == ["old-0", "old-1", "old-2"]
    assert left_out(shelf, change, **NEVER) == {
        "goes on": "it is RUNNING, not FINISHED",
        **dict.fromkeys(change, "it is a candidate itself"),
        **dict.fromkeys(attempt, "its commit is the candidate's own"),
    }


def test_runs_of_one_commit_are_told_apart_by_a_filter_that_leaves_out_the_candidates(
    shelf: Shelf,
) -> None:
    old = seeds(shelf, "old", 0.9, tags=code("a"))
    change = seeds(shelf, "change", 0.9, tags=code("a") | {"branch": "change"})
    assert taken(shelf, change, **NEVER) == old


def test_a_filter_that_finds_nothing_or_is_wrong(shelf: Shelf) -> None:
    assert taken(shelf) == []
    assert "finds no run" in found(shelf).described
    with pytest.raises(FilterError):
        found(shelf, filter="'; DROP TABLE runs; --")


def test_the_search_ends_where_thousands_are_not_fit(shelf: Shelf) -> None:
    for name in ("a", "b", "c"):
        shelf.add(name, {"eval/accuracy": 0.9}, tags={"branch": "main"}, status="KILLED")
    got = find_baseline(
        RunStore(shelf.uri),
        Baseline.model_validate(NEVER),
        {"0": "Default"},
        candidates=(),
        waiting={},
        max_skipped=2,
    )
    assert (got.runs, len(got.left_out)) == ([], 2)
    assert "only 0 found among the latest 2 that match" in got.described
