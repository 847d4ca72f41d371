"""The training process' side of a run: events become records of its journal."""
