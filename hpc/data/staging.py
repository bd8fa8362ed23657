"""Copies a job's sets to its nodes before the ranks read them, once on each node: data.stage.

The first rank of a node copies in a thread (`data_shards/loading/node_cache.py`). Meanwhile all ranks keep
answering each other, so that a long copy does not look like a hanging rank and a failure on one node ends the
others at once.
"""

import threading
import time
from collections.abc import Callable

from data_shards.errors import UserError
from data_shards.loading import node_cache
from hpc.cluster.signals import StopReason
from hpc.config import held_out
from hpc.config.schema import Config
from hpc.distributed import collectives
from hpc.distributed.comm import Comm

POLL = 0.5  # seconds between two questions whether all nodes are done


class StagingStopped(Exception):
    """A rank was asked to leave while the sets were copied."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason = reason


class _Copy:
    """A copy that is under way in a thread."""

    def __init__(self, sources: list[str], folder: str) -> None:
        self._sources, self._folder = sources, folder
        self._cancel = threading.Event()
        self.error = ""
        self._thread = threading.Thread(target=self._run, name="stage")
        self._thread.start()

    def _run(self) -> None:
        try:
            node_cache.stage(self._sources, node_cache.expanded(self._folder), cancelled=self._cancel.is_set)
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
        """Stop the thread and wait for it; an unfinished copy is removed."""
        self._cancel.set()
        self._thread.join()


def folders(
    config: Config, comm: Comm, stop_reason: Callable[[], StopReason] = lambda: StopReason.NONE
) -> dict[str, str]:
    """Return where this rank reads its sets: name (train | train_b | val | eval) -> folder; for all ranks.

    Without data.stage these are data.train, data.train_b and data.val (or else data.eval); else copies, all
    complete when this returns. Raises UserError on all ranks where a node cannot hold them, and
    StagingStopped on all ranks once `stop_reason()` names one on any of them.
    """
    data = config.data
    names = ["train", *["train_b"] * bool(data.train_b), *filter(None, [held_out.validation(data)])]
    sources = {name: getattr(data, name) for name in names}
    if not data.stage:
        return sources
    work = _Copy(list(sources.values()), data.stage) if comm.local_rank == 0 else None
    announced = False
    try:
        while True:
            done, error = (work.done, work.error) if work else (True, "")
            answers = collectives.gather_objects((done, error, stop_reason()), comm)
            if all(done for done, *_ in answers) or any(error for _, error, _ in answers):
                break
            if reason := max(reason for *_, reason in answers):
                raise StagingStopped(reason)
            if comm.main and not announced:
                announced = True
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
