"""`orbiter-mlflow bless`: fit runs become the baseline, by tags or as a file."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gate_runs import Shelf
from orbiter_mlflow import names
from orbiter_mlflow.cli.main import commands

POLICY = """
[gate]
schema = 1
[baseline]
filter = "tags.baseline = 'main'"
min_runs = 1
[comparable]
require_equal = ["params.size"]
[metrics."eval/accuracy"]
direction = "higher"
max_drop = 0.01
paired_by = "params.extra.seed"
[metrics."eval/loss"]
direction = "lower"
max_drop = 0.1
at = "best"
"""

Bless = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def shelf(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    made = Shelf.fresh(empty_store, tmp_path_factory.mktemp("shelf"))
    for seed in range(3):
        made.add(
            f"good {seed}",
            {"eval/accuracy": 0.9 + seed / 100, "eval/loss": [0.5, 0.25, 0.75], "train/x": seed},
            params={"extra.seed": str(seed), "size": "7", "hf_token": "hf_verysecretindeed123"},
            data={"eval": ("test_data", "abcd"), "train": ("train_data", f"seed{seed}")},
        )
    fine = {"eval/accuracy": 0.9, "eval/loss": 0.5}
    made.add("died", fine, status="FAILED")
    made.add("goes on", fine, status="RUNNING")
    made.add("sick", fine | {"train/x": math.nan}, params={"extra.seed": "9"})
    made.add("endless", fine | {"eval/loss": -math.inf})
    made.add("lossy", fine, tags={names.DAMAGED: "2"})
    made.add("other data", fine, data={"eval": ("test_data", "ffff")})
    made.add("same data", fine)
    made.add("bigger", fine, params={"size": "8"})
    made.add("lacking", {"eval/accuracy": 0.9}, params={"size": "7"})
    made.add("empty", {})
    made.add("idle", {names.system_metric("cpu_utilization_percentage"): 1.0})
    made.add("red\x1b[31m [b]", fine, status="KILLED")
    return made


@pytest.fixture
def bless(shelf: Shelf) -> Bless:
    def invoke(*arguments: object, reason: str | None = "it is good") -> tuple[int, str]:
        command = ["bless", *map(str, arguments), *(["--reason", reason] if reason else [])]
        result = CliRunner(env={"MLFLOW_TRACKING_URI": shelf.uri}).invoke(commands, command)
        assert isinstance(result.exception, SystemExit | None), result.exc_info
        return result.exit_code, result.output

    return invoke


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "gate.toml"
    path.write_text(POLICY)
    return path


def tags(shelf: Shelf, name: str) -> dict[str, str]:
    found = shelf.client.get_run(shelf.ids[name]).data.tags
    return {key: text for key, text in found.items() if "baseline" in key}


def content(path: str) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


# -- by tags ---------------------------------------------------------------------------------------


def test_tags_record_baseline_person_time_reason_and_policy(
    bless: Bless, shelf: Shelf, policy: Path
) -> None:
    given = ["good 0", shelf.ids["good 1"][:12], "--name", "release/2"]
    code, out = bless(*given, "--policy", policy, reason="new data, see api_key=abc123xyz")
    assert code == 0, out
    assert f"run {shelf.ids['good 0']} is now part of the baseline release/2" in out
    assert "filter = \"tags.baseline = 'release/2'\"" in out
    found = tags(shelf, "good 0")
    assert found[names.BASELINE] == "release/2"
    assert found[names.BLESSED_REASON] == "new data, see api_key=[redacted]"
    assert found[names.BLESSED_BY]
    assert found[names.BLESSED_AT].endswith("+00:00")
    assert len(found[names.BLESSED_POLICY]) == 64
    (entry,) = [one for one in json.loads(found.pop(names.BLESSINGS)) if one["name"] == "release/2"]
    other = tags(shelf, "good 1")
    assert entry in json.loads(other.pop(names.BLESSINGS))
    assert other == found
    matching = shelf.client.search_runs(["0"], "tags.baseline = 'release/2'")
    assert len(matching) == 2


def test_to_bless_twice_changes_nothing_and_another_reason_does(bless: Bless, shelf: Shelf) -> None:
    assert bless("good 2", "--name", "twice")[0] == 0
    shelf.tag("good 2", **{names.BLESSED_BY: "somebody else"})
    before = tags(shelf, "good 2")
    code, out = bless("good 2", "good 2", "--name", "twice")
    assert (code, "is already part of the baseline twice" in out) == (0, True)
    assert tags(shelf, "good 2") == before
    bless("good 2", "--name", "twice", reason="better than ever")
    after = tags(shelf, "good 2")
    assert after[names.BLESSED_REASON] == "better than ever"
    assert after[names.BLESSED_BY] != "somebody else"


def test_a_run_belongs_to_one_baseline_and_a_move_is_reported(bless: Bless, shelf: Shelf) -> None:
    bless("good 2", "--name", "one")
    code, out = bless("good 2", "--name", "other")
    assert (code, "part of the baseline other, and no longer of one" in out) == (0, True)
    assert tags(shelf, "good 2")[names.BASELINE] == "other"


def test_by_default_the_baseline_is_main(bless: Bless, shelf: Shelf) -> None:
    code, _ = bless("params.extra.seed = '1'")
    assert code == 0
    assert tags(shelf, "good 1")[names.BASELINE] == "main"


# -- a worse baseline ------------------------------------------------------------------------------


def test_old_and_new_means_are_shown_and_a_lower_one_needs_acceptance(
    bless: Bless, shelf: Shelf, policy: Path
) -> None:
    for n, accuracy in enumerate((0.9, 0.6, 0.895)):
        fine = {"eval/accuracy": accuracy, "eval/loss": 0.25}
        shelf.add(f"release {n}", fine, params={"size": "7", "extra.seed": str(n + 70)})
    given = ("--name", "releases", "--policy", policy)
    assert bless("release 0", *given)[0] == 0
    code, out = bless("release 1", *given)
    assert code == 1
    assert (
        "eval/accuracy: mean 0.9 before, 0.6 now (-0.3), worse by 0.3, and the policy tolerates "
        "0.01: bless better runs, or add --accept-lower eval/accuracy"
    ) in out
    assert names.BASELINE not in tags(shelf, "release 1")

    code, out = bless("release 2", *given)
    assert (code, "eval/accuracy: mean 0.9 before, 0.895 now (-0.005)" in out) == (0, True)
    assert "eval/loss: mean 0.25 before, 0.25 now (+0)" in out

    code, out = bless("release 1", *given, "--accept-lower", "eval/accuracy")
    assert (code, "accepted although it is past tolerance" in out) == (0, True), out
    (entry,) = json.loads(tags(shelf, "release 1")[names.BLESSINGS])
    assert entry["lowered"] == ["eval/accuracy"]


def test_a_lower_loss_is_better_and_a_file_is_guarded_too(
    bless: Bless, shelf: Shelf, policy: Path
) -> None:
    for n, loss in enumerate((0.5, 0.2, 0.4)):
        values = {"eval/accuracy": 0.9, "eval/loss": loss}
        shelf.add(f"lossy {n}", values, params={"size": "7", "extra.seed": str(n + 70)})
    given = ("--file", "b.json", "--policy", policy)
    assert bless("lossy 0", *given)[0] == 0
    code, out = bless("lossy 1", *given)
    assert (code, "eval/loss: mean 0.5 before, 0.2 now (-0.3)" in out) == (0, True), out
    before = Path("b.json").read_text()
    code, out = bless("lossy 2", *given)
    assert (code, "worse by 0.2, and the policy tolerates 0.1" in out) == (1, True)
    assert Path("b.json").read_text() == before
    assert bless("lossy 2", *given, "--accept-lower", "eval/loss")[0] == 0
    assert content("b.json")["blessed"]["lowered"] == ["eval/loss"]


def test_without_a_policy_the_means_of_some_metrics_are_shown(bless: Bless, shelf: Shelf) -> None:
    for n in range(2):
        shelf.add(f"many {n}", {f"m{key:02}": 1.0 - n for key in range(25)})
        code, out = bless(f"many {n}", "--name", "many")
        assert code == 0
    lines = out.splitlines()
    assert "m00: mean 1 before, 0 now (-1)" in lines
    assert sum(" before, " in line for line in lines) == 20
    assert "and 5 more metrics" in lines


def test_metrics_of_the_system_are_no_baseline_unless_a_policy_names_them(
    bless: Bless, shelf: Shelf
) -> None:
    key = names.system_metric("gpu_0_memory_usage_megabytes")
    shelf.add("measured", {"eval/loss": 0.5, key: 900.0})
    assert bless("measured", "--file", "b.json")[0] == 0
    assert content("b.json")["metrics"].keys() == {"eval/loss"}
    head, _, _ = POLICY.partition("[comparable]")
    Path("memory.toml").write_text(f'{head}[metrics."{key}"]\ndirection = "lower"\nmax_drop = 9\n')
    given = ("--file", "m.json", "--policy", Path("memory.toml"))
    code, out = bless("measured", *given)
    assert code == 0, out
    assert content("m.json")["metrics"].keys() == {key}
    code, out = bless("idle", "--file", "none.json")
    assert (code, "has no metrics" in out) == (1, True), out
    assert not Path("none.json").exists()


def test_acceptance_of_an_unknown_metric_is_refused(bless: Bless, policy: Path) -> None:
    given = ("good 0", "--accept-lower", "eval/acuracy")
    code, out = bless(*given, "--policy", policy)
    assert (code, "did you mean eval/accuracy?" in out) == (1, True)
    code, out = bless(*given)
    assert (code, "--accept-lower needs --policy" in out) == (2, True)


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        (["died"], "is FAILED: only FINISHED runs"),
        (["goes on"], "is RUNNING: only FINISHED runs"),
        (["sick"], "has train/x = nan"),
        (["endless"], "has eval/loss = -1.79"),
        (["lossy"], "is incomplete: 2 lines of its journal"),
        (["other data", "same data"], "the runs differ in datasets.eval (test_data:0123abcd, "),
        (["empty"], "has no metrics"),
        (["idle"], "has no metrics but those of the system"),
        (["nobody"], "the name 'nobody'"),
        (["tags.x = 'nobody'"], "matches"),
        (["red\x1b[31m [b]"], "(red [b]) is KILLED"),
    ],
)
def test_unfit_runs_are_all_refused_at_once(
    bless: Bless, shelf: Shelf, runs: list[str], said: str
) -> None:
    code, out = bless("good 0", *runs, "--name", "refused")
    assert (code, said in out) == (1, True), out
    assert "\x1b" not in out
    assert tags(shelf, "good 0").get(names.BASELINE) != "refused"
    code, out = bless("good 0", *runs, "--file", "b.json")
    assert (code, Path("b.json").exists()) == (1, False)


def test_each_fault_is_reported_on_its_own_line(bless: Bless) -> None:
    code, out = bless("died", "sick", "lossy")
    assert code == 1
    assert len(out.splitlines()) == 3


def test_with_a_policy_its_metrics_and_fields_count(bless: Bless, policy: Path) -> None:
    with_policy = ("--policy", policy, "--name", "by/policy")
    assert bless("sick", *with_policy)[0] == 0, "it gates no train/x"
    code, out = bless("lacking", *with_policy)
    assert (code, "has no eval/loss, which the policy gates" in out) == (1, True)
    code, out = bless("good 0", "bigger", *with_policy)
    assert (code, "the runs differ in params.size (7, 8)" in out) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "reason", "said"),
    [
        (["good 0"], None, "Missing option '--reason'"),
        (["good 0"], " ", "--reason is empty"),
        ([], "why", "Missing argument"),
        (["good 0", "--name", "a'b"], "why", "--name"),
        (["good 0", "--name", "a", "--file", "b.json"], "why", "use one of them"),
        (["good 0", "--policy", "nowhere.toml"], "why", "nowhere.toml: cannot be read"),
        (["tags.a == 'b'"], "why", "tags.a == 'b'"),
    ],
)
def test_wrong_usage_exits_with_2(
    bless: Bless, arguments: list[str], reason: str | None, said: str
) -> None:
    code, out = bless(*arguments, reason=reason)
    assert (code, said in out) == (2, True), out


def test_a_missing_folder_is_reported(bless: Bless) -> None:
    code, out = bless("good 0", "--file", "no/b.json")
    assert (code, "no/" in out, "Traceback" in out) == (1, True, False)
    assert "no/b.json cannot be written: there is no folder no" in out


# -- as a file -------------------------------------------------------------------------------------


def test_the_file_has_values_by_seed_person_and_reason(
    bless: Bless, shelf: Shelf, policy: Path
) -> None:
    code, out = bless("good 2", "good 0", "good 1", "--file", "b.json", "--policy", policy)
    assert (code, "b.json now has 3 runs and 2 metrics" in out) == (0, True), out
    found = content("b.json")
    assert found["schema"] == 1
    assert found["blessed"]["reason"] == "it is good"
    assert len(found["blessed"]["policy"]) == 64
    assert found["metrics"] == {
        "eval/accuracy": {
            "mean": pytest.approx(0.91),
            "n": 3,
            "point": "last",
            "values": {"seed 0": 0.9, "seed 1": 0.91, "seed 2": 0.92},
        },
        "eval/loss": {
            "mean": 0.25,
            "n": 3,
            "point": "best (lower)",
            "values": {"seed 0": 0.25, "seed 1": 0.25, "seed 2": 0.25},
        },
    }
    run = found["runs"]["seed 0"]
    assert run["run_id"] == shelf.ids["good 0"]
    assert run["datasets"] == {"eval": "test_data:abcd", "train": "train_data:seed0"}
    assert run["params"]["size"] == "7"
    assert "verysecret" not in Path("b.json").read_text()


def test_the_file_is_the_same_however_the_runs_are_named(
    bless: Bless, shelf: Shelf, policy: Path
) -> None:
    ids = [shelf.ids[f"good {n}"] for n in range(3)]
    bless(*ids, "--file", "a.json", "--policy", policy)
    bless(*reversed(ids), "--file", "b.json", "--policy", policy)
    first, second = content("a.json"), content("b.json")
    assert first.pop("blessed")["reason"] == second.pop("blessed")["reason"]
    assert first == second
    text = Path("a.json").read_text()
    assert text == json.dumps(content("a.json"), indent=2, sort_keys=True) + "\n"


def test_writing_a_file_twice_changes_nothing(bless: Bless, policy: Path) -> None:
    given = ("good 0", "good 1", "--file", "b.json", "--policy", policy)
    assert bless(*given)[0] == 0
    Path("b.json").write_text(Path("b.json").read_text().replace('"by": "', '"by": "not '))
    before = Path("b.json").read_bytes()
    code, out = bless(*given)
    assert (code, "b.json is unchanged" in out) == (0, True)
    assert Path("b.json").read_bytes() == before
    assert bless(*given, reason="another")[0] == 0
    assert content("b.json")["blessed"]["reason"] == "another"
    assert [path.name for path in Path().iterdir() if "b.json" in path.name] == ["b.json"]


def test_without_seeds_the_runs_go_by_their_ids(bless: Bless, shelf: Shelf) -> None:
    bless("same data", "bigger", "--file", "b.json")
    assert set(content("b.json")["runs"]) == {shelf.ids["same data"], shelf.ids["bigger"]}


def test_a_file_keeps_the_blessings_before_it_a_line_each(
    bless: Bless, shelf: Shelf, policy: Path
) -> None:
    policy.write_text(POLICY.replace("[comparable]", "last = 3\n[comparable]"))
    given = ("--file", "b.json", "--policy", policy)
    assert bless("good 0", "good 1", *given, reason="release 0")[0] == 0
    old = Path("b.json").read_text()
    for n in range(1, 4):
        fine = {"eval/accuracy": 0.9 + n / 100, "eval/loss": 0.25}
        shelf.add(f"next {n}", fine, params={"size": "7", "extra.seed": "0"})
        assert bless(f"next {n}", *given, reason=f"release {n}")[0] == 0
    former = content("b.json")["former"]
    assert [one["blessed"]["reason"] for one in former] == ["release 2", "release 1"]
    assert former[0]["metrics"]["eval/accuracy"] == {"n": 1, "mean": 0.92}
    assert former[0]["metrics"]["eval/loss"]["point"] == "best (lower)"
    assert sum('"former": [' in line for line in Path("b.json").read_text().splitlines()) == 1
    assert Path("b.json").read_text().count('{"blessed"') == 2
    # The same runs for another reason are the same blessing.
    assert bless("next 3", *given, reason="release 3, with a better reason")[0] == 0
    assert content("b.json")["former"] == former
    Path("b.json").write_text(old)
    assert bless("next 1", *given, reason="release 1")[0] == 0
    (first,) = content("b.json")["former"]
    assert first["metrics"]["eval/accuracy"] == {
        "n": 2,
        "mean": pytest.approx(0.905),
        "sd": pytest.approx(0.005 * 2**0.5),
    }
    assert first["datasets"] == {
        "eval": ["test_data:abcd"],
        "train": ["train_data:seed0", "train_data:seed1"],
    }


def test_another_file_is_not_overwritten(bless: Bless) -> None:
    Path("notes.json").write_text('{"my": "notes"}')
    code, out = bless("good 0", "--file", "notes.json")
    assert (code, "notes.json is not a baseline file" in out) == (1, True)
    assert content("notes.json") == {"my": "notes"}
