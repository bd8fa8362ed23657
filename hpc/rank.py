"""One rank, from its first instant: `python -m hpc.rank RUN`. Then read `hpc/train.py`.

The rank listens for signals before it loads its libraries, which takes seconds: a job that is stopped while
it starts leaves in order.
"""

import gc
import os
import sys

from hpc.cluster import slurm_env
from hpc.cluster.signals import SignalListener


def main(run: str) -> int:
    """Train as this rank and return its exit code."""
    listener = SignalListener()
    place = slurm_env.rank_from_env()
    if place and place[1] > 1:  # ranks share the cores of a node
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    gc.disable()  # the objects of libraries stay: looking for garbage among them is a fifth of the start
    from hpc.train import main as train

    gc.freeze()
    gc.enable()
    try:
        return train(run, listener)
    finally:
        listener.ignore_signals()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m hpc.rank RUN")
    sys.exit(main(sys.argv[1]))
