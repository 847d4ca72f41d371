"""Import mlflow where the user has no home; modules that import it import this one before."""

from orbiter_mlflow.delivery.files.places import some_home

with some_home():
    import mlflow  # noqa: F401
