"""Which process of a distributed training this is, by the variables that launchers set.

The innermost launcher decides: `srun` may start `mpirun`, and that `torchrun`.
"""

import os
import re
from collections.abc import Mapping

__all__ = ["is_rank_zero"]

_LAUNCHERS = (
    (("RANK",), "WORLD_SIZE"),  # torchrun, DeepSpeed, accelerate
    (("HOROVOD_RANK",), "HOROVOD_SIZE"),
    (("OMPI_COMM_WORLD_RANK",), "OMPI_COMM_WORLD_SIZE"),  # Open MPI
    (("PMI_RANK",), "PMI_SIZE"),  # MPICH, Intel MPI, Cray
    (("JSM_NAMESPACE_RANK",), "JSM_NAMESPACE_SIZE"),  # jsrun
    (("PMIX_RANK",), None),
    (("NODE_RANK", "LOCAL_RANK"), None),  # Lightning, which knows no rank before it trains
    (("SLURM_PROCID",), "SLURM_NTASKS"),
)
"""Variables of the rank, and of the number of processes, in order: the first of which a rank is set
decides. Without a number, a rank above 0 decides, and 0 leaves it to the next: `NODE_RANK=0` is set
for each process of the first node."""


def is_rank_zero(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process has rank 0, or none: it was started alone.

    A value that is no whole number counts as not set, as an empty one does.
    """
    for ranks, size in _LAUNCHERS:
        found = [number for name in ranks if (number := _number(environ.get(name))) is not None]
        if found and size is not None:
            return max(found) == 0 or (_number(environ.get(size)) or 1) == 1
        if any(found):
            return False
    return True


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,9}", text.strip()) else None
