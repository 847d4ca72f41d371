"""The commands of `orbiter-mlflow`, a module for each group; `cli` has them."""
