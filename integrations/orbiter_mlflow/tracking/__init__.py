"""The training process' side of a run: what becomes a record of its journal."""
