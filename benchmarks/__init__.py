"""Benchmarks: what tracking costs a training, beside other ways to log the same points to MLflow.

    python -m benchmarks [--quick] [--only NAME ...] [--json PATH]

Each measurement runs in a process of its own, so that nothing is warm that would be cold in a
training. The modules with measurements import neither rich nor mlflow at their head: the processes
they measure would pay for it.
"""
