"""Orbiter: fine-tune agents. `orbiter.train` holds the trainer contract and a reference backend."""
