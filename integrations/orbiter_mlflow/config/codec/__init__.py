"""One config value, one text, and back: what `params.py` is made of.

`flatten` and `unflatten` walk a config; `leaves` encodes a value, as its field's type or with one
of the `markers`, of which `kinds` is the registry; `objects` says what an instance carries, and
`sameness` judges whether it came back; `masking` takes the secrets out.
"""
