"""Deliver records to MLflow exactly once, without ever making the training wait.

It knows records, not trainers. The modules in the order in which the data pass them:

In the training process:
    records           the records of a journal and their encoding
    run_writer        append records of one run, wait for their delivery
    journal           write a journal, on a full disk too
    spool             the folder of journals and the files beside each
    spool_folder      where that folder is by default
    opened_journals   tell `orbiter-mlflow run` which journals a program opens
    kept_files        copies of artifacts, kept until they are uploaded
    process_identity  identify the writing process, and find out whether it still runs
    durability        sync journals to the disk, here or where delivery runs
    writer_lock       the lock that shows that the writer lives

Where delivery runs:
    hosts/            run the drain in a process that outlives the training, or in a thread
    sync              deliver on demand
    journal_reader    read a journal
    drain             deliver metrics, params, tags and statuses
    side_lane         deliver datasets, or artifacts, beside them
    lane              the common part of both: attempts, waits, retries
    batches           pack records into batches within MLflow's limits
    resumption/       rewrite the records of a journal that resumes a run
    late_effects      undo what requests did that were given up
    killed_run        end a run whose process died
    description_guard keep a description that a person has written
    ack               how far a journal has been delivered
    retry             every wait, poll and number of tries

The store:
    sink              the tracking store as delivery sees it
    mlflow_sink       the sink for MLflow
    mlflow_client/    open a store and classify its errors, for writing and reading
    store_uri         interpret tracking URIs

    files/            atomic writes, locks, descriptors, preallocation, syncing to the disk
"""
