"""A run's description for its page in the MLflow UI: trainer, config, result, way to reproduce it.

Markdown, in which text from elsewhere is escaped.
"""

from collections.abc import Mapping

from orbiter_mlflow import names
from orbiter_mlflow.config.codec.splitting import join_values
from orbiter_mlflow.text.escaping import markdown_code, markdown_text
from orbiter_mlflow.text.shortening import shortened

__all__ = ["Description"]

_MOST = 12
"""Fields of the config that are shown; the page lists all params besides."""
_MOST_METRICS = 4
_LONGEST = 60
"""Characters of a value."""
_LONGEST_ERROR = 500


class Description:
    """The description of a run, as far as it is known.

    Args:
        trainer: its class, as `module:qualname`.
        own: the user's description, in Markdown; it stands first.
    """

    def __init__(self, trainer: str, own: str = "") -> None:
        self._trainer = trainer
        self._own = own.strip()
        self._params: Mapping[str, str] = {}
        self._results: dict[str, float] = {}
        self._error = ""

    def configured(self, params: Mapping[str, str]) -> None:
        """Note the params of the config, which are redacted."""
        own = join_values(params)
        self._params = {key: _as_it_is(text) for key, text in own.items() if key != names.KEY_ORDER}

    def measured(self, values: Mapping[str, float]) -> None:
        """Note a result of `train` or `evaluate`."""
        self._results |= values

    def failed(self, phase: str, kind: str, message: str, *, on_purpose: bool = False) -> None:
        """Note an exception of `train` or `evaluate`; with `on_purpose` it is no error."""
        said = markdown_text(shortened(message, _LONGEST_ERROR))
        what = "Stopped" if on_purpose else "Error"
        self._error = f"**{what}:** {phase} ended with {markdown_code(kind)}: {said}"

    def text(self) -> str:
        """The description; `names.RUN_ID_HERE` stands for the run's id."""
        parts = [self._own] if self._own else []
        parts.append(f"Trained by {markdown_code(self._trainer)}.")
        if self._error:
            parts.append(self._error)
        if self._results:
            parts.append(f"**Result:** {self._result()}")
        parts.append(f"Config and code again: `orbiter-mlflow reproduce {names.RUN_ID_HERE}`")
        if self._params:
            parts.append(self._config())
        return "\n\n".join(parts)

    def _result(self) -> str:
        keys = names.by_importance(self._results)
        shown = [f"{markdown_code(key)} {self._results[key]:.5g}" for key in keys[:_MOST_METRICS]]
        return ", ".join([*shown, *_rest(len(keys) - _MOST_METRICS)])

    def _config(self) -> str:
        rows = [
            f"| {markdown_code(key)} | {markdown_code(shortened(text, _LONGEST))} |"
            for key, text in list(self._params.items())[:_MOST]
        ]
        table = "\n".join(["| config | |", "|---|---|", *rows])
        return "\n\n".join([table, *_rest(len(self._params) - _MOST)])


def _as_it_is(text: str) -> str:
    """`text` without a place that delivery would put the run's id in; it looks the same."""
    return text.replace(names.RUN_ID_HERE, f"{names.RUN_ID_HERE[0]}\u2060{names.RUN_ID_HERE[1:]}")


def _rest(count: int) -> list[str]:
    return [f"and {count} more"] if count > 0 else []
