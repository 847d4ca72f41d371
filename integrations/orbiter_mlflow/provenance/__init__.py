"""Where a run comes from: program and user, code, machine, packages, seeds.

One module for each; `gather` puts them together, on a thread of its own.
"""
