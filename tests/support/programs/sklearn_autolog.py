"""`mlflow.sklearn.autolog()`: two fits with their logged models, scores and steps in between."""

import mlflow
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression, SGDClassifier

from programs.pauses import DOWN, UP, pause

x, y = make_classification(n_samples=80, n_features=4, random_state=0)
mlflow.set_experiment("sklearn")
mlflow.sklearn.autolog()
with mlflow.start_run(run_name="logistic", tags={"team": "agents"}):
    model = LogisticRegression(C=0.5).fit(x[:60], y[:60])
    pause(DOWN)
    model.score(x[60:], y[60:])
    for step in range(20):
        mlflow.log_metrics({"residual": 1 / (step + 1), "step": step}, step=step)
    mlflow.log_text("while the server was down\n", "notes.txt")
pause(UP)
SGDClassifier(random_state=0).fit(x, y)
