"""Reports of the gate for tests, built by hand: one for each outcome."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf, nan

from orbiter_mlflow.gate.model import (
    BaselineSource,
    Bound,
    FieldDifference,
    GateReport,
    GateRun,
    LeftOut,
    MetricResult,
    Outcome,
    Sample,
    Test,
    Verdict,
    WorstRun,
)
from orbiter_mlflow.gate.reports.junit import render as junit
from orbiter_mlflow.gate.reports.markdown import render as markdown
from orbiter_mlflow.gate.reports.terminal import render as terminal_text
from paths import ROOT

START = 1_760_000_000_000
DAY = 86_400_000

ACCURACIES = (0.8312, 0.8275, 0.8341, 0.8290, 0.8333, 0.8301, 0.8318, 0.8266, 0.8325, 0.8309)
LOSSES = (0.512, 0.53, 0.498, 0.507, 0.521, 0.515, 0.509, 0.533, 0.5, 0.511)


def a_run(name: str, day: int, **metrics: float) -> GateRun:
    """A finished run that started this many days after the first one."""
    return GateRun(
        run_id=name.encode()[::-1].hex().ljust(32, "0"),
        name=name,
        status="FINISHED",
        params={"learning_rate": "1e-05", "extra.seed": str(day)},
        datasets={"eval": "gsm8k:1f0e"},
        metrics=metrics,
        start_time=START + day * DAY,
    )


BASELINE = tuple(
    a_run(f"main-{day}", day, **{"eval/accuracy": accuracy, "eval/loss": loss})
    for day, (accuracy, loss) in enumerate(zip(ACCURACIES, LOSSES, strict=True))
)
CANDIDATE = tuple(
    a_run(f"change-{at}", 12, **{"eval/accuracy": accuracy, "eval/loss": loss})
    for at, (accuracy, loss) in enumerate([(0.8041, 0.51), (0.8102, 0.519), (0.7998, 0.508)])
)


def sample(runs: Sequence[GateRun], metric: str) -> Sample:
    """The values of a metric in these runs."""
    return Sample(
        {run.run_id: run.metrics[metric] for run in runs if metric in run.metrics},
        tuple(run.run_id for run in runs if metric not in run.metrics),
    )


LOSS = MetricResult(
    metric="eval/loss",
    direction="lower",
    severity="fail",
    verdict=Verdict.PASS,
    reason="within tolerance: better by 0.00127 (0.25%)",
    test=Test.PREDICTION,
    candidate=sample(CANDIDATE, "eval/loss"),
    baseline=sample(BASELINE, "eval/loss"),
    limits=("max_drop_rel = 0.05",),
    change=-0.00127,
    change_rel=-0.00247,
    worse_by=-0.00127,
    bound=Bound("at least", -0.0142, 0.95),
    worst=WorstRun(CANDIDATE[1].run_id, "seed 12", 0.519, 0.0054, 0.46),
    p_value=0.59,
    p_adjusted=0.59,
    allowed=(None, 0.53928),
)
ACCURACY = MetricResult(
    metric="eval/accuracy",
    direction="higher",
    severity="fail",
    verdict=Verdict.FAIL,
    reason="worse by 0.026 (3.13%), past max_drop = 0.01; p = 0.0024 over 2 metrics by "
    "the prediction interval",
    test=Test.PREDICTION,
    candidate=sample(CANDIDATE, "eval/accuracy"),
    baseline=sample(BASELINE, "eval/accuracy"),
    limits=("min = 0.5", "max_drop = 0.01"),
    change=-0.026,
    change_rel=-0.0313,
    worse_by=0.026,
    bound=Bound("at least", 0.0213, 0.975),
    worst=WorstRun(CANDIDATE[2].run_id, "seed 12", 0.7998, 0.0309, 12.6),
    p_value=0.0012,
    p_adjusted=0.0024,
    allowed=(0.8207, None),
)
GOOD_ACCURACY = replace(
    ACCURACY,
    verdict=Verdict.PASS,
    reason="within tolerance: worse by 0.0006 (0.07%)",
    candidate=Sample({run.run_id: 0.8301 for run in CANDIDATE}),
    change=-0.0006,
    change_rel=-0.00072,
    worse_by=0.0006,
    bound=Bound("at least", -0.0021, 0.95),
    worst=WorstRun(CANDIDATE[0].run_id, "seed 12", 0.8301, 0.0006, 0.24),
    p_value=0.31,
    p_adjusted=0.59,
)

REGRESSION = GateReport(
    outcome=Outcome.REGRESSION,
    metrics=(LOSS, ACCURACY),
    candidate=CANDIDATE,
    baseline=BASELINE,
    source=BaselineSource("filter tags.baseline = 'main' in experiment agents, last 10"),
    policy="gate.toml",
    policy_digest="5e" * 32,
    alpha=0.05,
    notes=(
        (
            "candidate and baseline also differ in params.batch_size (8; 16): add each to "
            "comparable.require_equal or comparable.allow_differ"
        ),
    ),
    left_out=(
        LeftOut("aa" * 16, "main-10", "it is FAILED, not FINISHED"),
        LeftOut("ab" * 16, "main-11", "it is KILLED, not FINISHED"),
    ),
    links={
        "Compare the runs": "https://mlflow.example/#/compare-runs?runs=%5B%22a%22%5D",
        "Candidate": "https://mlflow.example/#/experiments/1/runs?workflowType=machine_learning",
    },
)
PASS = replace(
    REGRESSION, outcome=Outcome.PASS, metrics=(LOSS, GOOD_ACCURACY), notes=(), left_out=()
)
WARN = replace(REGRESSION, outcome=Outcome.WARN, metrics=(LOSS, replace(ACCURACY, severity="warn")))
INCONCLUSIVE = replace(
    REGRESSION,
    outcome=Outcome.INCONCLUSIVE,
    metrics=(
        LOSS,
        replace(
            ACCURACY,
            verdict=Verdict.INCONCLUSIVE,
            reason="worse by 0.026 (3.13%), past max_drop = 0.01; p = 0.11 over 2 metrics by "
            "the prediction interval, which may be chance: if it is real, about 7 runs on each "
            "side would settle it",
            bound=Bound("at least", -0.0031, 0.975),
            p_value=0.055,
            p_adjusted=0.11,
            seeds_needed=7,
        ),
    ),
)
DIFFERENT = replace(
    REGRESSION,
    outcome=Outcome.CANNOT_COMPARE,
    metrics=tuple(
        replace(
            metric,
            verdict=Verdict.CANNOT_COMPARE,
            reason="not compared: the problems of the whole report say why",
            change=None,
            change_rel=None,
            worse_by=None,
            bound=None,
            worst=None,
            p_value=None,
            p_adjusted=None,
        )
        for metric in (LOSS, ACCURACY)
    ),
    problems=("datasets.eval differs between the candidate and the baseline",),
    differences=(
        FieldDifference("datasets.eval", ("gsm8k:77aa",), ("gsm8k:1f0e",)),
        FieldDifference("params.extra.eval_set", (None, "test"), ("test",)),
    ),
)
UNREADABLE = replace(
    REGRESSION,
    outcome=Outcome.CANNOT_COMPARE,
    metrics=(),
    candidate=(),
    baseline=(),
    problems=("the tracking store does not answer: http://127.0.0.1:5000",),
    left_out=(),
    links=None,
)
BOOTSTRAP = replace(
    REGRESSION,
    outcome=Outcome.WARN,
    metrics=tuple(
        replace(
            metric,
            verdict=Verdict.UNJUDGED,
            reason="not judged: there is no baseline yet; it is within its bounds",
            test=Test.BOUNDS,
            baseline=Sample({}),
            change=None,
            change_rel=None,
            worse_by=None,
            bound=None,
            worst=None,
            p_value=None,
            p_adjusted=None,
            allowed=(0.5, None),
        )
        for metric in (GOOD_ACCURACY, LOSS)
    ),
    baseline=(),
    left_out=(),
    notes=(
        (
            "NOT JUDGED AGAINST A BASELINE: it has 0 runs of 3, and with --bootstrap only bounds "
            "can fail; remove it as soon as there is a baseline"
        ),
    ),
    bootstrap=True,
)

_ODD_RUNS = (
    a_run("odd-0", 20, **{"eval/new": 3.0, "eval/nan": nan, "eval/inf": 1.0}),
    a_run("odd-1", 20, **{"eval/new": 4.0, "eval/nan": 0.5, "eval/inf": 1.7976931348623157e308}),
    a_run("odd-2", 20, **{"eval/some": 0.7, "eval/nan": 0.5, "eval/inf": 1.0}),
)
_ODD_BASELINE = tuple(
    a_run(f"old-{day}", day, **{"eval/some": 0.7 + day / 100, "eval/nan": 0.5, "eval/inf": -inf})
    for day in range(3)
)
ODD = replace(
    REGRESSION,
    candidate=_ODD_RUNS,
    baseline=_ODD_BASELINE,
    metrics=(
        MetricResult(
            "eval/new",
            "higher",
            "fail",
            Verdict.NEW,
            "the baseline lacks it",
            Test.BOUNDS,
            sample(_ODD_RUNS, "eval/new"),
            sample(_ODD_BASELINE, "eval/new"),
            limits=("min = 1",),
            allowed=(1.0, None),
        ),
        MetricResult(
            "eval/some",
            "higher",
            "fail",
            Verdict.FAIL,
            "2 of 3 runs of the candidate lack it",
            Test.TOLERANCE,
            sample(_ODD_RUNS, "eval/some"),
            sample(_ODD_BASELINE, "eval/some"),
            limits=("max_drop = 0.01",),
            change=0.0,
            change_rel=nan,
            allowed=(0.7, None),
        ),
        MetricResult(
            "eval/nan",
            "target",
            "fail",
            Verdict.FAIL,
            "1 of 3 runs of the candidate has NaN",
            Test.TOLERANCE,
            sample(_ODD_RUNS, "eval/nan"),
            sample(_ODD_BASELINE, "eval/nan"),
            limits=("max_drop = 0.1",),
            target=0.5,
            at="best",
            change=nan,
            change_rel=nan,
            allowed=(0.4, 0.6),
        ),
        MetricResult(
            "eval/inf",
            "lower",
            "fail",
            Verdict.CANNOT_COMPARE,
            "a run of the baseline has -inf",
            Test.TOLERANCE,
            sample(_ODD_RUNS, "eval/inf"),
            sample(_ODD_BASELINE, "eval/inf"),
            limits=("max_drop = 1",),
        ),
    ),
)
"""New, missing in some runs, NaN and infinities."""

HOSTILE = (
    "[red]x[/red] | `tick` <img src=x onerror=alert(1)> [a](http://evil.example) ![b](//c) "
    "@everyone #1 !2 GH-3 http://evil.example www.evil.example a@b.example :tada: $x$ ~~s~~ "
    "**bold** _under_ </details> --> &amp; \\| \x1b[31mred\x1b]8;;http://evil.example\x07link "
    "\x00\x07\r\n- item\n# head\n/close\n1. one \u202eright\u2066 \ud800 \ufffe \x9b2J"
)
"""A run's name that tries to break a report."""


def named(text: str, other: str = "") -> GateReport:
    """The regression with `text` for every name, param, reason and address; `other` for some."""
    runs = tuple(
        replace(run, name=text, params={text: other}, datasets={other: text})
        for run in (*BASELINE, *CANDIDATE)
    )
    verdicts = (Verdict.FAIL, Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.CANNOT_COMPARE)
    return replace(
        REGRESSION,
        metrics=tuple(
            replace(
                ACCURACY,
                metric=text,
                verdict=verdict,
                reason=other or text,
                limits=(text, other),
                at=text,
            )
            for verdict in verdicts
        ),
        baseline=runs[: len(BASELINE)],
        candidate=runs[len(BASELINE) :],
        source=BaselineSource(text, other),
        policy=text,
        problems=(text, other),
        notes=(other, text),
        left_out=(LeftOut(text, text, other), LeftOut(other, other, text)),
        differences=(FieldDifference(text, (text, None), (other,)),),
        links={text: other, "web": f"http://x/{text}", "page": text},
    )


EXAMPLES = {
    "pass": PASS,
    "warn": WARN,
    "regression": REGRESSION,
    "inconclusive": INCONCLUSIVE,
    "different": DIFFERENT,
    "unreadable": UNREADABLE,
    "bootstrap": BOOTSTRAP,
    "odd": ODD,
    "hostile": named(HOSTILE),
}


GOLDEN = ROOT / "tests/gate/golden"
"""Some reports as golden files for people to read; run this module to write them again."""


def golden() -> dict[str, str]:
    """File name -> report, as it is now."""
    found = {}
    for name in ("regression", "different", "bootstrap"):
        report = EXAMPLES[name]
        found[f"gate_{name}.txt"] = terminal_text(report)
        found[f"gate_{name}.md"] = markdown(report)
        found[f"gate_{name}.xml"] = junit(report)
    return found


if __name__ == "__main__":
    for _name, _text in golden().items():
        (GOLDEN / _name).write_text(_text, encoding="utf-8")
