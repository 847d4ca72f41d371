"""Which method of a tracking store does what behind the prefix.

A method that is in none of these sets is passed on to MLflow's own store unchanged.
"""

from typing import Final

JOURNALED: Final = frozenset(
    {
        "log_batch",
        "log_batch_async",
        "log_inputs",
        "log_metric",
        "log_metric_async",
        "log_param",
        "log_param_async",
        "set_tag",
        "set_tag_async",
        "update_run_info",
    }
)
"""Become records of a journal, and return at once."""

ASKED: Final = frozenset({"create_run", "get_experiment", "get_run"})
"""Ask the store, and answer without it if it gives no answer in time."""

FLUSHING: Final = frozenset({"flush_async_logging"})
"""Wait until what was written is in the store."""

NOTHING: Final = frozenset({"end_async_logging", "shut_down_async_logging"})
"""Have nothing to do: no thread of MLflow's holds anything back."""

FLUSHED: Final = frozenset(
    {
        "delete_experiment",
        "delete_run",
        "delete_tag",
        "get_logged_model",
        "get_metric_history",
        "get_metric_history_bulk",
        "get_metric_history_bulk_interval",
        "get_metric_history_bulk_interval_from_steps",
        "link_traces_to_run",
        "log_outputs",
        "record_logged_model",
        "search_logged_models",
        "search_runs",
        "unlink_traces_from_run",
    }
)
"""First wait until what this process wrote is in the store, then ask it."""

TRANSLATED: Final = frozenset({"create_logged_model", "restore_run"})
"""Passed on with the id that the store knows, in place of a provisional one."""
