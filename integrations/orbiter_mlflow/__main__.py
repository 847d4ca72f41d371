"""`python -m orbiter_mlflow` is `orbiter-mlflow`."""

from orbiter_mlflow.cli.main import main

main()
