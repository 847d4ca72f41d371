"""The plugin by which MLflow's own clients write through our journals: `journal+<tracking URI>`.

MLflow finds it by the entry points of this package and asks it for stores:

    entry_points         what MLflow calls: build the stores and artifact repositories
    store                a tracking store whose writes become records of journals
    methods              which method of a store is journaled, flushed first, or passed on
    runs                 the runs that this process writes through one tracking URI
    journaled_run        one of them: its journal, and what is known of it
    bound_run            the run of a trainer: it goes into the trainer's own journal
    active_run           make that the active run of MLflow's fluent API
    entities             MLflow's entities as records, after MLflow's own validation
    provisional          runs and experiments that the store has not told of yet
    asking               ask a store that may not answer
    endings              how runs end that the process leaves open
    artifact_repository  artifacts become records, too
    model_registry       the model registry behind the prefix
"""
