"""What the gate found, for people and for programs: pure functions of a `GateReport`.

Run and metric names, params and reasons come from outside: no report lets them act.
"""

from orbiter_mlflow.gate.reports.comment import markdown
from orbiter_mlflow.gate.reports.console import terminal, terminal_text
from orbiter_mlflow.gate.reports.document import to_json
from orbiter_mlflow.gate.reports.page import html
from orbiter_mlflow.gate.reports.testsuite import junit

__all__ = ["html", "junit", "markdown", "terminal", "terminal_text", "to_json"]
