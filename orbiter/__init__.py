"""Orbiter: fine-tune agents. `orbiter.train` holds the trainer contract and a reference backend."""

__version__ = "0.1.0"
