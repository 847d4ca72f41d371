"""Sweeps: one parent run for many trainers, with what became of them."""
