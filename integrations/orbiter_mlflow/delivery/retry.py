"""Every wait, poll and number of tries in delivery: how long anything is tried, in one place.

All times are in seconds.
"""

import random

# -- requests to a store in trouble ----------------------------------------------------------------

FIRST = 0.5
"""Before the second attempt at a store in trouble; the wait doubles with each failure."""
LONGEST = 60.0
"""Between attempts, at most."""
HELD = 60.0
"""Between attempts while a person has to act: a password may be corrected at any time."""
WAITED_FOR = 1.0
"""Between attempts, at most, while somebody waits for the delivery."""
SYNC = 30.0
"""How long `sync` keeps trying a store that cannot be reached, by default."""
HTTP_RETRIES, HTTP_TIMEOUT = 0, 30
"""Retries of MLflow's own client, and its timeout in seconds, in a process that does nothing but
deliver: the drain decides how often to try. A timeout that the user has set takes precedence."""


def delay(failures: int, rng: random.Random) -> float:
    """Seconds to wait after `failures` failures in a row: doubling, capped at `LONGEST`, and
    jittered by half, so that a thousand trainers do not return to a restarted server at once."""
    return min(LONGEST, FIRST * 2.0 ** min(failures - 1, 10)) * rng.uniform(0.5, 1.0)


# -- entries that the store refuses ----------------------------------------------------------------

FAILED_BEFORE_SPLIT = 5
"""HTTP 500 answers to one batch in a row after which its content may be the cause."""
DEFINITE = (1.0, 4.0)
"""Between tries of an entry that MLflow's validation refuses; then it is quarantined."""
DOUBTFUL = (2.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 60.0)
"""Between tries of an entry that a database, a gateway or an HTTP 500 refuses: ten tries in 4.6
minutes. On servers that answer six of ten requests with a random 500, this quarantines one innocent
entry in 160 of those suspected, each of which was suspected after a dozen failures in a row."""
MOST_ASIDE = 200
"""Refused entries that are retried at a time. More mean that the store is in trouble: delivery
waits."""

# -- the delivery process and its drain loop -------------------------------------------------------

IDLE = 1.0
"""Between looks at the journals while nobody waits for them. Records that arrive within this time
go out in one request, which takes less of a shared core from the training than five requests."""
FULL = 20_000
"""Bytes that a journal grows by until its host is told: some 1,000 points, which fill a request."""
LINGER = 600.0
"""How long the delivery process goes on after the training process has died."""
LINGER_POLL = 0.1
"""Between looks at the journals during that time."""
PAUSE = 5.0
"""After an error of this machine, such as no free descriptor, until its journal is tried again."""
ADOPT = 10.0
"""Between two looks through a spool for what others have left, which take long in a large one."""
REUSE = 10.0
"""How long the delivery process stays when all is delivered and nobody is left, for a training that
starts next: it saves the import of mlflow, some 2 s of CPU."""
STRAY_FORK = 5.0
"""How long a delivery process that ends waits for those who still have its pipe open."""
SERVER_THREADS = 4
"""Threads that deliver to one MLflow server, if there are as many journals."""
CONNECT = 2.0
"""How long a process that is about to start the shared delivery process is waited for. Normally it
takes some 10 ms."""
MOVE = 5.0
"""Between two moves to another delivery process because the environment has changed, at least."""
MAX_STARTS, LIVED_LONG = 5, 60.0
"""Times that a delivery process is started before a thread takes over, unless one lived so long."""
EXIT_WAIT = 5.0
"""How long the exit of a training process waits for its delivery process, which outlives it: for
people who look at the run right away."""
ENVIRONMENT_POLL = 0.25
"""Between looks for changes in the environment of the training; one takes some 50 microseconds."""

# -- syncing to the disk ---------------------------------------------------------------------------

SYNC_EVERY = 0.5
"""Between the beginnings of two passes that sync the journals: half of the second that may be lost
with the machine, which leaves the disk the other half."""
SYNC_PAUSE = 0.1
"""Between the end of a pass and the next one on a disk that is slower than that."""

# -- a training process that waits -----------------------------------------------------------------

WAKE = 0.2
"""Between two calls for delivery's attention by one process that waits, unless something new was
appended."""
ACK_POLL = 0.02
"""Between looks at the ack while somebody waits for delivery."""
READ_POLL = 0.005
"""The same while a read of MLflow's own API waits for what was written before it."""

# -- files and locks -------------------------------------------------------------------------------

LOCK_TRIES, LOCK_PAUSE = 4, 0.003
"""Tries to take a lock, and the pause between them: a mere look holds it for microseconds."""
LOCK_POLL = 0.02
"""Between tries to take a lock that is waited for."""
UNNAMED_LOCK = 60.0
"""Age at which a lock file that names no holder counts as left behind by a process that died."""
WRITER_LOCK_CHECK = 1.0
"""Between checks that a journal's writer still holds its lock."""
REPLACE_TRIES, REPLACE_PAUSE = 10, 0.01
"""Tries to replace a file on Windows, which refuses while somebody reads it, and the pause."""
FINAL_TRIES, FINAL_PAUSE = 10, 0.02
"""Tries to write a final record on a full disk that cannot preallocate, and the pause: another
program may take the bytes that were just freed for it."""

# -- a sqlite store that another client creates ----------------------------------------------------

CREATION_STILL = 5.0
"""Without a change after which no client is taken to be creating the store; the longest of MLflow's
migrations takes a fraction of one."""
CREATION_LONGEST = 120.0
"""How long the creation by another client is waited for."""
CREATION_POLL = 0.05
"""Between looks at it."""
