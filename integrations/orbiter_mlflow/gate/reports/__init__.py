"""What the gate found, for people and for programs: pure functions of a `GateReport`.

Run and metric names, params and reasons come from outside: no report lets them act.
"""

from orbiter_mlflow.gate.reports.html import html
from orbiter_mlflow.gate.reports.json import to_json
from orbiter_mlflow.gate.reports.junit import junit
from orbiter_mlflow.gate.reports.markdown import markdown
from orbiter_mlflow.gate.reports.terminal import terminal, terminal_text

__all__ = ["html", "junit", "markdown", "terminal", "terminal_text", "to_json"]
