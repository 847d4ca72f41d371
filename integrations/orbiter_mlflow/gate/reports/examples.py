"""The parts of a report about comparisons example by example."""

from collections.abc import Iterator

from orbiter_mlflow.gate.examples.model import ExamplesResult, PairedScores, SliceResult
from orbiter_mlflow.gate.model import GateReport, Verdict, counted
from orbiter_mlflow.gate.reports import figures, wording
from orbiter_mlflow.gate.reports.section import Section
from orbiter_mlflow.text.shortening import shortened

__all__ = ["parts", "summary"]

_SLICES_SHOWN = 10
_ID = 120
"""Characters of an example's id, which may be the whole question."""


def parts(report: GateReport) -> Iterator[Section]:
    """The table of all comparisons; for each, its slices and the examples that got worst."""
    if not report.examples:
        return
    yield Section(
        "Example by example",
        lines=tuple(
            f"{one.name} {wording.verdict_words(one)}: {one.reason}"
            for one in report.examples
            if one.verdict is not Verdict.PASS
        ),
        columns=("scores", "verdict", "baseline", "candidate", "change", "broken / fixed, p"),
        rows=tuple(map(_row, report.examples)),
    )
    for one in report.examples:
        calm = one.verdict is Verdict.PASS
        if one.slices or one.small_slices:
            yield _slices(one, folded=calm)
        if one.worst:
            yield Section(
                f"{one.name}: the {counted(len(one.worst), 'example')} that got worst",
                columns=("example", "baseline", "candidate"),
                rows=tuple(
                    (
                        shortened(change.example, _ID),
                        figures.number(change.baseline),
                        figures.number(change.candidate),
                    )
                    for change in one.worst
                ),
                folded=calm,
            )
        if one.scores is not None:
            yield Section(f"{one.name}: how it was compared", tuple(_method(one)), folded=True)


def summary(result: ExamplesResult) -> list[str]:
    """The figures of one comparison, a line each."""
    scores = result.scores
    lines = [f"{wording.verdict_words(result)}: {result.reason}"]
    if scores is not None:
        lines += [
            f"baseline: {figures.number(scores.baseline)}",
            f"candidate: {figures.number(scores.candidate)} (n = {scores.n})",
            f"change: {_change(result, scores)}",
            f"broken: {scores.broken}, fixed: {scores.fixed}",
            f"p (adjusted): {_p(scores)}",
            *_method(result),
        ]
    return lines


def _row(result: ExamplesResult) -> tuple[str, ...]:
    scores = result.scores
    if scores is None:
        return (result.name, wording.verdict_words(result), *[figures.NONE] * 4)
    return (
        result.name,
        wording.verdict_words(result),
        f"{figures.number(scores.baseline)} (n = {scores.n})",
        figures.number(scores.candidate),
        _change(result, scores),
        f"{scores.broken} / {scores.fixed}, p = {_p(scores)}".replace("= <", "< "),
    )


def _slices(result: ExamplesResult, *, folded: bool) -> Section:
    shown = result.slices[:_SLICES_SHOWN]
    lines = []
    if len(result.slices) > len(shown):
        lines.append(f"{counted(len(result.slices) - len(shown), 'more slice')}, none worse")
    if result.small_slices:
        lines.append(f"{counted(result.small_slices, 'slice')} with too few examples to test")
    return Section(
        f"{result.name}: the worst of {counted(len(result.slices), 'slice')}",
        lines=tuple(lines),
        columns=("slice", "n", "baseline", "candidate", "change", "broken / fixed, p"),
        rows=tuple(_slice_row(result, one) for one in shown),
        folded=folded and not any(one.failed for one in result.slices),
    )


def _slice_row(result: ExamplesResult, one: SliceResult) -> tuple[str, ...]:
    scores = one.scores
    return (
        f"{one.column} = {shortened(one.label, _ID)}",
        str(scores.n),
        figures.number(scores.baseline),
        figures.number(scores.candidate),
        _change(result, scores),
        f"{scores.broken} / {scores.fixed}, p = {_p(scores)}".replace("= <", "< "),
    )


def _change(result: ExamplesResult, scores: PairedScores) -> str:
    return figures.signed(-scores.worse_by if result.direction == "higher" else scores.worse_by)


def _p(scores: PairedScores) -> str:
    return figures.p_value(scores.p_value, scores.p_adjusted)


def _method(result: ExamplesResult) -> Iterator[str]:
    yield (
        f"{result.test} of the column {result.score!r} of {result.table}, {result.direction} is "
        f"better, max_drop = {figures.number(result.max_drop)}"
    )
    if result.bound is not None:
        yield f"{figures.bound(result.bound)} in the mean score"
    if result.unpaired:
        yield f"{counted(result.unpaired, 'example')} that not all runs have: not compared"
    for run in result.left_out:
        yield f"run {run.run_id} of the baseline is not compared: {run.reason}"
    for run_id, digest in result.tables.items():
        yield f"table of run {run_id}: SHA-256 {digest}"
