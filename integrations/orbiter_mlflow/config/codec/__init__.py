"""The codec: one config, its params, and back.

`flatten` turns a config into paths and leaves, `redact` takes the secrets out, `reading` reads the
params (`loading`: with what the user supplies). `leaf` writes one value: plain as `hints` allow, or
by `marking` with the markers of the registry, `kinds`. `objects` reads the state of an instance,
`equality` checks that it came back, `rebuild` makes the instance; `unencodable` values become text.
"""
