"""Resumed runs: a journal that continues a run, and how its records are rewritten for it."""
