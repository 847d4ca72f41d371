"""The policy file: the documented example, every refusal, and patterns."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from orbiter_mlflow.errors import PolicyError
from orbiter_mlflow.gate.policy import MetricPolicy, Policy, expand, load_policy

FULL = """\
[gate]
schema = 1
alpha = 0.05                   # Holm-corrected over the gated metrics
on_inconclusive = "warn"       # warn | fail
[baseline]
filter = "tags.baseline = 'main'"   # or run = "...", or file = "baseline.json"
last = 10
min_runs = 3
[comparable]
require_equal = ["datasets.eval", "params.extra.eval_set"]
allow_differ = ["params.learning_rate"]
[metrics."eval/accuracy"]
direction = "higher"           # required: higher | lower | target; never guessed
min = 0.80                     # bounds hold with no baseline at all
max_drop = 0.01
max_drop_rel = 0.02            # past any one limit is past tolerance
test = "auto"                  # auto | none | welch | paired
paired_by = "params.extra.seed"
severity = "fail"              # fail | warn | info
at = "last"                    # last | best | step=N
"""
HEAD = '[gate]\nschema = 1\n[baseline]\nrun = "r"\n'
METRIC = '[metrics.m]\ndirection = "higher"\nmax_drop = 1\n'


def policy(tmp_path: Path, text: str) -> Policy:
    path = tmp_path / "policy.toml"
    path.write_text(text, encoding="utf-8")
    return load_policy(path)


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(PolicyError) as caught:
        policy(tmp_path, text)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{tmp_path / 'policy.toml'}: ")
    return message.split(": ", 1)[1]


# -- what is read ----------------------------------------------------------------------------------


def test_all_of_it(tmp_path: Path) -> None:
    found = policy(tmp_path, FULL)
    assert (found.gate.alpha, found.gate.on_inconclusive) == (0.05, "warn")
    assert (found.baseline.filter, found.baseline.last) == ("tags.baseline = 'main'", 10)
    assert found.baseline.needed == 3
    assert found.comparable.require_equal == ("datasets.eval", "params.extra.eval_set")
    assert found.comparable.allow_differ == ("params.learning_rate",)
    assert found.metrics == {
        "eval/accuracy": MetricPolicy(
            direction="higher",
            min=0.8,
            max_drop=0.01,
            max_drop_rel=0.02,
            test="auto",
            paired_by="params.extra.seed",
            severity="fail",
            at="last",
        )
    }
    assert found.metrics["eval/accuracy"].limits == (
        "min = 0.8",
        "max_drop = 0.01",
        "max_drop_rel = 0.02",
    )
    assert found.path == str(tmp_path / "policy.toml")
    assert found.digest == hashlib.sha256(FULL.encode()).hexdigest()


def test_defaults(tmp_path: Path) -> None:
    found = policy(tmp_path, HEAD + METRIC)
    assert (found.gate.alpha, found.gate.on_inconclusive) == (0.05, "warn")
    assert (found.baseline.last, found.baseline.min_runs) == (10, 3)
    assert found.comparable.require_equal == ("datasets.*",)
    wanted = found.metrics["m"]
    assert (wanted.test, wanted.severity, wanted.at) == ("auto", "fail", "last")


def test_one_run_that_was_named_is_enough(tmp_path: Path) -> None:
    kept = '[gate]\nschema = 1\n[baseline]\nrun = "r"\nlast = 10\nmin_runs = 3\n'
    assert policy(tmp_path, kept + METRIC).baseline.needed == 1
    file = kept.replace('run = "r"', 'file = "baseline.json"')
    assert policy(tmp_path, file + METRIC).baseline.needed == 3


def test_information_needs_no_limit(tmp_path: Path) -> None:
    text = HEAD + '[metrics.m]\ndirection = "lower"\nseverity = "info"\n'
    assert policy(tmp_path, text).metrics["m"].limits == ()


@pytest.mark.parametrize("at", ["last", "best", "step=0", "step=1200"])
def test_points_of_a_history(tmp_path: Path, at: str) -> None:
    assert policy(tmp_path, f'{HEAD}{METRIC}at = "{at}"').metrics["m"].at == at


def test_the_digest_is_of_the_text(tmp_path: Path) -> None:
    digests = {policy(tmp_path, text).digest for text in (FULL, FULL + "\n", FULL)}
    assert len(digests) == 2


# -- refusals --------------------------------------------------------------------------------------

REFUSED = {
    "no TOML": (
        "[gate\n",
        "is not TOML: Expected ']' at the end of a table declaration (at line 1",
    ),
    "a broken line": (HEAD + "a = \n", "is not TOML: Invalid value (at line 5, column 5)"),
    "no tables": (METRIC, "[gate] is missing: add it with schema = 1; [baseline] is missing: add"),
    "no schema": (
        HEAD.replace("schema = 1", "") + METRIC,
        "gate.schema is missing: add schema = 1",
    ),
    "another schema": (
        HEAD.replace("= 1", "= 2") + METRIC,
        "gate.schema = 2: this version reads schema = 1 only",
    ),
    "bool for schema": (HEAD.replace("= 1", "= true") + METRIC, "gate.schema = true should be a"),
    "a float for schema": (HEAD.replace("= 1", "= 1.0") + METRIC, "gate.schema = 1.0 should be"),
    "no metrics": (HEAD, 'there are no metrics: add a [metrics."<key>"] with a direction and'),
    "empty metrics": (HEAD + "[metrics]\n", "there are no metrics: add"),
    "metrics are no table": ("metrics = 3\n" + HEAD, "metrics = 3 should be a table: write [me"),
    "a metric is no table": (HEAD + "[metrics]\nm = 0.8\n", "metrics.m = 0.8 should be a table"),
    "unknown table": (HEAD + METRIC + "[other]\n", "other is an unknown key: known are gate, ba"),
    "unknown key": (
        HEAD + METRIC + "max_drop_abs = 1\n",
        "metrics.m.max_drop_abs is an unknown key: did you mean max_drop?",
    ),
    "unknown key of the gate": (
        HEAD.replace("schema = 1", "schema = 1\nalfa = 0.1") + METRIC,
        "gate.alfa is an unknown key: did you mean alpha?",
    ),
    "no direction": (
        HEAD + "[metrics.m]\nmax_drop = 1\n",
        "metrics.m.direction is missing: set it to 'higher', 'lower' or 'target'; it is never gu",
    ),
    "wrong direction": (
        HEAD + METRIC.replace("higher", "up"),
        "metrics.m.direction = 'up' should be 'higher', 'lower' or 'target'",
    ),
    "no limit": (
        HEAD + '[metrics."a/b c"]\ndirection = "lower"\n',
        'metrics."a/b c": has no limit, so it could never fail: add min, max, max_drop or max_dr',
    ),
    "a limit that is NaN": (
        HEAD + METRIC.replace("= 1", "= nan"),
        "metrics.m.max_drop = nan should be a finite number",
    ),
    "an infinite limit": (HEAD + METRIC + "min = -inf\n", "metrics.m.min = -inf should be a fini"),
    "a negative limit": (
        HEAD + METRIC.replace("= 1", "= -0.1"),
        "metrics.m.max_drop = -0.1 should be greater than or equal to 0",
    ),
    "a percentage": (
        HEAD + METRIC + "max_drop_rel = 1\n",
        "metrics.m: max_drop_rel = 1 allows to lose the whole baseline: write a fraction (1% is 0",
    ),
    "a negative relative limit": (HEAD + METRIC + "max_drop_rel = -1\n", "metrics.m.max_drop_rel"),
    "bool for a limit": (HEAD + METRIC.replace("= 1", "= true"), "metrics.m.max_drop = true sho"),
    "text for a limit": (HEAD + METRIC.replace("= 1", '= "1"'), "metrics.m.max_drop = '1' should"),
    "a limit past floats": (HEAD + METRIC.replace("= 1", f"= 1{'0' * 400}"), "metrics.m.max_dro"),
    "a number past counting": (
        HEAD + METRIC + f"min = {'9' * 5000}\n",
        "has an invalid value: Exceeds",
    ),
    "min above max": (
        HEAD + METRIC + "min = 2\nmax = 1\n",
        "metrics.m: min = 2 is above max = 1: nothing could pass",
    ),
    "target without one": (
        HEAD + METRIC.replace("higher", "target"),
        "metrics.m: direction = 'target' needs a target: add target = <number>",
    ),
    "a target that is none": (
        HEAD + METRIC + "target = 1\n",
        "metrics.m: target = 1 belongs to direction = 'target', not to 'higher'",
    ),
    "a target past the statistics": (
        HEAD + METRIC.replace("higher", "target") + "target = -1e151\n",
        "metrics.m: target = -1e+151 is beyond 1e+150",
    ),
    "paired by nothing": (
        HEAD + METRIC + 'test = "paired"\n',
        "metrics.m: test = 'paired' needs paired_by = 'params.<key>'",
    ),
    "paired without a test": (
        HEAD + METRIC + 'test = "none"\npaired_by = "params.seed"\n',
        "metrics.m: paired_by has no effect with test = 'none': remove one",
    ),
    "paired for Welch": (
        HEAD + METRIC + 'test = "welch"\npaired_by = "params.seed"\n',
        "metrics.m: paired_by has no effect with test = 'welch'",
    ),
    "paired by no param": (
        HEAD + METRIC + 'paired_by = "seed"\n',
        "metrics.m.paired_by: 'seed' is not a param: write params.<key>",
    ),
    "paired by a pattern": (HEAD + METRIC + 'paired_by = "params.*"\n', "metrics.m.paired_by: 'p"),
    "a test of bounds": (
        HEAD + METRIC.replace("max_drop", "min") + 'test = "welch"\n',
        "metrics.m: test = 'welch' needs max_drop or max_drop_rel",
    ),
    "wrong test": (HEAD + METRIC + 'test = "wilcoxon"\n', "metrics.m.test = 'wilcoxon' should be"),
    "wrong severity": (HEAD + METRIC + 'severity = "low"\n', "metrics.m.severity = 'low' should"),
    "wrong point": (HEAD + METRIC + 'at = "first"\n', "metrics.m.at = 'first' should be last, be"),
    "wrong step": (HEAD + METRIC + 'at = "step=-1"\n', "metrics.m.at = 'step=-1' should be last"),
    "no alpha": (
        HEAD.replace("schema = 1", "schema = 1\nalpha = 0") + METRIC,
        "gate.alpha = 0 should be greater than 0",
    ),
    "too much alpha": (
        HEAD.replace("schema = 1", "schema = 1\nalpha = 0.51") + METRIC,
        "gate.alpha = 0.51 should be less than or equal to 0.5",
    ),
    "no baseline": (
        HEAD.replace('run = "r"', "") + METRIC,
        "baseline: needs one of run, filter and file, but has none of them",
    ),
    "two baselines": (
        HEAD + 'file = "b.json"\n' + METRIC,
        "baseline: needs one of run, filter and file, but has run and file",
    ),
    "an empty run": (HEAD.replace('"r"', '""') + METRIC, "baseline.run = '' should have at least"),
    "too few taken": (
        HEAD.replace('run = "r"', 'filter = "f"\nlast = 2\npool = 3') + METRIC,
        "baseline: pool = 3 compares with more blessings than last = 2 reads: raise last or lower",
    ),
    "several blessings of a file": (
        HEAD.replace('run = "r"', 'file = "b.json"\npool = 2') + METRIC,
        "baseline: pool = 2 needs a filter: file names a single blessing",
    ),
    "no field": (
        HEAD + METRIC + '[comparable]\nrequire_equal = ["eval_set"]\n',
        "comparable.require_equal: 'eval_set' is not a field: write params.<key> or datasets.<cont",
    ),
    "data that must be equal": (
        HEAD + METRIC + '[comparable]\nrequire_equal = ["data.eval"]\n',
        "comparable.require_equal: 'data.eval' is always required to be equal: remove it",
    ),
    "no field to allow": (
        HEAD + METRIC + '[comparable]\nallow_differ = ["eval"]\n',
        "comparable.allow_differ: 'eval' is not a field: write params.<key> or datasets.<context>,",
    ),
    "no list": (
        HEAD + METRIC + '[comparable]\nallow_differ = "params.x"\n',
        "comparable.allow_differ = 'params.x' should be a list: [\"...\"]",
    ),
    "a contradiction": (
        HEAD + METRIC + '[comparable]\nrequire_equal = ["params.x"]\nallow_differ = ["params.x"]\n',
        "comparable: 'params.x' is in require_equal and in allow_differ: remove one",
    ),
    "a long value": (
        HEAD + METRIC + f'severity = "{"x" * 1000}"\n',
        f"metrics.m.severity = '{'x' * 79}... (1002 characters) should be",
    ),
    "a name of two lines": (HEAD + METRIC.replace("m]", '"a\\nb"]') + "x = 1\n", 'metrics."a b".x'),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_policy_that_is_refused(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text).startswith(message)


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    text = HEAD.replace("= 1", "= 2") + METRIC.replace("= 1", "= -1") + "x = 1\n"
    found = refusal(tmp_path, text).split("; ")
    assert [one.split(" ")[0] for one in found] == [
        "gate.schema",
        "metrics.m.max_drop",
        "metrics.m.x",
    ]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"none\.toml: cannot be read \(No such file"):
        load_policy(tmp_path / "none.toml")
    with pytest.raises(PolicyError, match=r"cannot be read \(Is a directory"):
        load_policy(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\n")
    with pytest.raises(PolicyError, match=r"latin\.toml: is not UTF-8 text \(byte 2\)"):
        load_policy(tmp_path / "latin.toml")
    (tmp_path / "deep.toml").write_text("a = " + "[" * 100_000)
    with pytest.raises(PolicyError, match=r"deep\.toml: is not TOML"):
        load_policy(tmp_path / "deep.toml")


# -- in code ---------------------------------------------------------------------------------------


def test_a_policy_for_one_metric() -> None:
    found = Policy.for_one("eval/accuracy", direction="higher", max_drop=0.01)
    assert found.metrics == {"eval/accuracy": MetricPolicy(direction="higher", max_drop=0.01)}
    assert found.baseline.needed == 1
    assert (found.baseline.run, found.baseline.filter, found.baseline.file) == (None, None, None)
    assert found.path == "the policy given in code"
    again = Policy.for_one("eval/accuracy", direction="higher", max_drop=0.01)
    other = Policy.for_one("eval/accuracy", direction="higher", max_drop=0.02)
    assert found.digest == again.digest != other.digest


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({}, "the policy given in code: metrics.m: has no limit"),
        ({"max_drop": -1}, "the policy given in code: metrics.m.max_drop = -1 should be"),
        ({"max_fall": 1}, "the policy given in code: metrics.m.max_fall is an unknown key"),
        ({"direction": "up", "max_drop": 1}, "the policy given in code: metrics.m.direction = "),
    ],
)
def test_a_wrong_policy_for_one_metric(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        Policy.for_one("m", **{"direction": "higher", **limits})
    assert str(caught.value).startswith(message)


# -- patterns --------------------------------------------------------------------------------------


def with_metrics(tmp_path: Path, *patterns: str) -> Policy:
    """A metric for each pattern, its place in the file as its limit."""
    tables = (
        f"[metrics.'{pattern}']\ndirection = 'higher'\nmax_drop = {place}\n"
        for place, pattern in enumerate(patterns)
    )
    return policy(tmp_path, HEAD + "".join(tables))


def expanded(tmp_path: Path, patterns: list[str], keys: list[str]) -> dict[str, float | None]:
    found = expand(with_metrics(tmp_path, *patterns), keys)
    return {key: wanted.max_drop for key, wanted in found.items()}


def test_a_full_name_overrides_patterns_and_the_first_pattern_the_next(
    tmp_path: Path,
) -> None:
    patterns = ["eval/*", "eval/b", "*"]
    found = expanded(tmp_path, patterns, ["train/x", "eval/c", "eval/b", "eval/a"])
    assert found == {"eval/a": 0, "eval/c": 0, "eval/b": 1, "train/x": 2}
    assert list(found) == ["eval/a", "eval/c", "eval/b", "train/x"]  # as in the file, then by name


def test_all_kinds_of_patterns(tmp_path: Path) -> None:
    keys = ["a/1", "a/2", "a/b/3", "A/1", "x1", "x2", "x3"]
    assert expanded(tmp_path, ["a/*"], keys).keys() == {"a/1", "a/2", "a/b/3"}
    assert expanded(tmp_path, ["a/?"], keys).keys() == {"a/1", "a/2"}
    assert expanded(tmp_path, ["x[12]"], keys).keys() == {"x1", "x2"}


def test_a_name_that_no_run_has_is_kept(tmp_path: Path) -> None:
    assert expanded(tmp_path, ["a", "b*"], ["b1"]) == {"a": 0, "b1": 1}


def test_a_pattern_that_matches_nothing(tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        expanded(tmp_path, ["a", "evil/*"], ["a", "eval/b"])
    assert str(caught.value) == (
        f'{tmp_path / "policy.toml"}: metrics."evil/*": no run has a metric that matches: check '
        "the pattern, and that the metrics were logged"
    )
