"""Open a tracking store and classify its errors, for writing and reading.

Importing this package imports mlflow, also for a user without a home; modules that import mlflow
import this package before it.
"""

from orbiter_mlflow.delivery.spool_folder import some_home

with some_home():
    import mlflow  # noqa: F401  loaded here first
