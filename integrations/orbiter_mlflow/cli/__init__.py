"""The command `orbiter-mlflow`."""
