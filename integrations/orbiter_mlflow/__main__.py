"""`python -m orbiter_mlflow` is `orbiter-mlflow`."""

from orbiter_mlflow.cli import main

main()
