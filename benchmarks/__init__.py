"""Benchmarks: the cost of tracking a training, compared with other ways to log the same points.

    python -m benchmarks [--quick] [--only NAME ...] [--json PATH]

Each measurement runs in a process of its own, so that nothing is warm that would be cold in a
training. The modules with measurements import neither rich nor mlflow at the top, because the
processes they measure would pay for it.
"""
