"""Reports of the gate, one module for each format: pure functions of a `GateReport`.

Names of runs and metrics, params and reasons come from outside: no report lets them act.
"""
