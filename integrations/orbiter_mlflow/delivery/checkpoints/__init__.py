"""Checkpoints of a run: kept until they are uploaded, chosen, uploaded once, and deleted again."""
