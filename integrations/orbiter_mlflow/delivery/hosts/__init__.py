"""Hosts run the drain in the background, in a thread or in a process that outlives the training."""
