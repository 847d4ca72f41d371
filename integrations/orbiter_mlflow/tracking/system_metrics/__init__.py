"""System metrics: sample the machine, the process tree and the GPUs while a run goes on."""
