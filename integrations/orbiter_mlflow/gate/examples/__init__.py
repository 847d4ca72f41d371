"""Comparing two evaluations example by example: parse their tables, pair, test, and judge."""
