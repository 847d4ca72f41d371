"""Which journals are believed: a spool may hold what others put there.

A journal names the store that it goes to, and delivery has the credentials of its environment.
"""

import os
import stat
from pathlib import Path

from orbiter_mlflow.delivery.records import Head
from orbiter_mlflow.delivery.store_uri import is_local, same_store


def is_ours(journal: Path) -> bool:
    """Whether only our user can have written a journal: a regular file, ours, closed to others, in
    a folder of ours that others cannot write to. Where files have no owners: whether it is one."""
    try:
        file, folder = journal.lstat(), journal.parent.stat()
    except OSError:
        return False
    if not stat.S_ISREG(file.st_mode):
        return False
    if not hasattr(os, "geteuid"):  # Windows: modes say nothing there
        return True
    me = os.geteuid()
    closed = not file.st_mode & 0o077 and not folder.st_mode & 0o022
    return closed and file.st_uid == me and folder.st_uid == me


def goes_to(journal: Path, head: Head, in_force: str) -> str | None:
    """The tracking URI that a journal may be delivered to without asking, with the credentials that
    `in_force` holds; None where it names a store that nobody but the journal speaks of.

    A store on this machine is sent no credentials, so a journal of ours may name it.
    """
    if same_store(head.tracking_uri, in_force):
        return in_force
    if is_local(head.tracking_uri) and is_ours(journal):
        return head.tracking_uri
    return None
