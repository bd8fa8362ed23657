"""data.stage: a job's sets copied to its nodes before it reads them, once on each node.

The first rank of a node copies (`data_shards/loading/node_cache.py`), in a thread: meanwhile all ranks go on answering
each other, so that neither a long copy is taken for a rank that hangs, nor a failure on one node is waited out on the
others.
"""

import threading
import time
from collections.abc import Callable

from data_shards.errors import UserError
from data_shards.loading import node_cache
from hpc.config import held_out
from hpc.config.schema import Config
from hpc.distributed import collectives
from hpc.distributed.comm import Comm

POLL = 0.5  # seconds between two questions whether all nodes are done


class Left(Exception):
    """Some rank was told to leave while the sets were copied; `level` as in hpc/cluster/signals.py."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.level = level


class _Copy:
    """A copy that is under way in a thread."""

    def __init__(self, sources: list[str], folder: str) -> None:
        self._sources, self._folder = sources, folder
        self._unwanted = threading.Event()
        self.error = ""
        self._thread = threading.Thread(target=self._run, name="stage")
        self._thread.start()

    def _run(self) -> None:
        try:
            node_cache.stage(
                self._sources, node_cache.expanded(self._folder), cancelled=self._unwanted.is_set
            )
        except UserError as failure:
            self.error = str(failure)
        except node_cache.Cancelled:
            pass
        except Exception as failure:
            self.error = f"data.stage={self._folder}: {' '.join(repr(failure).split())}"

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def end(self) -> None:
        """Wait for the thread, which stops soon: what it has not finished is removed."""
        self._unwanted.set()
        self._thread.join()


def folders(config: Config, comm: Comm, asked: Callable[[], int] = lambda: 0) -> dict[str, str]:
    """Where this rank reads its sets: name (train | val | eval) -> folder. Called by all ranks.

    Without data.stage these are data.train and data.val (or else data.eval); else their copies, which are there and
    whole when this returns. UserError on all ranks where a node cannot hold them; Left on all ranks once `asked()` is
    not 0 on one.
    """
    data = config.data
    names = [name for name in ("train", held_out.validation(data)) if name]
    sources = {name: getattr(data, name) for name in names}
    if not data.stage:
        return sources
    work = _Copy(list(sources.values()), data.stage) if comm.local_rank == 0 else None
    told = False
    try:
        while True:
            done, error = (work.done, work.error) if work else (True, "")
            answers = collectives.gather_objects((done, error, asked()), comm)
            if all(done for done, *_ in answers) or any(error for _, error, _ in answers):
                break
            if level := max(level for *_, level in answers):
                raise Left(level)
            if comm.main and not told:
                told = True
                print(
                    f"the sets are copied to {data.stage} of each node; another job may be doing it",
                    flush=True,
                )
            time.sleep(POLL)
    finally:
        if work:
            work.end()
    collectives.agree_or_raise(work.error if work else "", comm)
    root = node_cache.expanded(data.stage)
    return {name: str(node_cache.place(folder, root)) for name, folder in sources.items()}
