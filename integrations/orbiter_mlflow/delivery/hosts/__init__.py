"""Hosts: who runs delivery for a training process: a process, a thread, or nobody."""
