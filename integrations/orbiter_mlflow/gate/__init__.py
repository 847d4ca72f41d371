"""The gate: whether a candidate's metrics are worse than its baseline's."""
