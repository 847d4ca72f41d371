"""An Optuna study with its `MLflowCallback`: nested runs, some pruned, metrics of each trial."""

import mlflow
import optuna
from optuna_integration.mlflow import MLflowCallback

from programs.pauses import DOWN, UP, pause

# With `create_experiment=True` the callback would ask the server for the experiment at each trial.
callback = MLflowCallback(
    metric_name="loss",
    create_experiment=False,
    mlflow_kwargs={"nested": True},
    tag_study_user_attrs=True,
)


@callback.track_in_mlflow()  # type: ignore[untyped-decorator]
def objective(trial: optuna.Trial) -> float:
    if trial.number == 2:
        pause(DOWN)
    elif trial.number == 5:
        pause(UP)
    rate = trial.suggest_float("rate", 0.01, 1.0, log=True)
    kind = trial.suggest_categorical("kind", ["line", "curve"])
    trial.set_user_attr("even", trial.number % 2 == 0)
    loss = 1.0
    for step in range(4):
        loss *= 1 - rate / 2
        mlflow.log_metric("reported", loss, step=step)
        trial.report(loss, step)
        if trial.number == 3 and step == 2:
            raise optuna.TrialPruned
    mlflow.log_dict({"kind": kind, "loss": loss}, "trial.json")
    return loss


mlflow.set_experiment("optuna")
study = optuna.create_study(study_name="study", sampler=optuna.samplers.TPESampler(seed=0))
study.set_user_attr("team", "agents")
with mlflow.start_run(run_name="study"):
    study.optimize(objective, n_trials=7, callbacks=[callback])
    mlflow.log_metric("best", study.best_value)
