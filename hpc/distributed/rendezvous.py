"""Lets the ranks of a start find each other, and notices a rank that will never come.

Each rank records its process in the store by which torch connects them, and waits for the others. Meanwhile
it watches for a record in RUN/failures and for the end of a process of this host, known from the store, from
its launcher or from an earlier look. On other hosts nothing can be watched: when the time is over, the error
names the ranks that did not arrive. `hpc/distributed/comm.py` connects the ranks afterwards.
"""

import datetime
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch.distributed as dist

from data_shards.errors import LostRank, UserError
from hpc.cluster import slurm_env
from hpc.runs import failures
from hpc.runs.processes import alive, mark
from hpc.runs.run_dir import RunDir

POLL = 0.2  # seconds between two looks
SHORT = 2.0  # seconds that one attempt to reach rank 0 may take
SETTLE = 5.0  # seconds in which a launcher has started all its ranks
RANKS = ("RANK", "SUBMITIT_LOCAL_GLOBALID", "SLURM_PROCID")


def open_store(run: Path, rank: int, world: int, watch: "Watch") -> dist.Store:
    """Open this start's store: torchrun's, rank 0's at MASTER_ADDR, or a file for ranks of one machine."""
    if "MASTER_ADDR" not in os.environ:  # a file needs no port that another job could hold
        token = os.environ.get("ROSTRO_ATTEMPT") or os.environ.get("SUBMITIT_LOCAL_JOB_ID", "local")
        return dist.FileStore(str(run.resolve() / f".rendezvous-{token}"), world)
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    hosts = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    while not hosts and not _reachable(address, port):
        watch.look({0})
        time.sleep(POLL)
    patience = datetime.timedelta(seconds=watch.patience)
    try:
        store = dist.TCPStore(address, port, world, hosts, timeout=patience, wait_for_workers=False)
    except dist.DistNetworkError as error:
        text = " ".join(str(error).split())[:200]
        raise UserError(
            f"rank {rank}, at {address}:{port}: {text}: start again, by torchrun with a free port"
        ) from None
    return dist.PrefixStore(f"rostro/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def _reachable(address: str, port: int) -> bool:
    """Return whether something listens there, without a store, which would wait and write warnings."""
    try:
        socket.create_connection((address, port), timeout=SHORT).close()
    except OSError:
        return False
    return True


def meet(store: dist.Store, rank: int, world: int, watch: "Watch") -> None:
    """Return when all ranks have arrived; raise LostRank where one never will."""
    store.set(f"place/{rank}", json.dumps(mark()))
    keys = {other: f"place/{other}" for other in range(world)}
    while not store.check(list(keys.values())):
        watch.look({other for other, key in keys.items() if not store.check([key])})
        time.sleep(POLL)
    watch.places = {other: json.loads(store.get(key)) for other, key in keys.items()}


def connect_watched(connect: Callable[[], None], watch: "Watch") -> None:
    """Call `connect`, which waits for all ranks; raise LostRank where one ends meanwhile."""
    raised: list[BaseException] = []

    def call() -> None:
        try:
            connect()
        except BaseException as error:
            raised.append(error)

    # A daemon: it may wait for a dead rank for ever.
    thread = threading.Thread(target=call, name="connect", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(POLL)
        if thread.is_alive():
            watch.look(set())
    if raised:
        watch.look(set())  # a reset connection says less than a process that has ended
        raise raised[0]


class Watch:
    """One rank's view of the others before they are connected. `patience`: seconds until it gives up."""

    def __init__(self, run: RunDir, rank: int, world: int, patience: int) -> None:
        self.run, self.rank, self.world, self.patience = run, rank, world, patience
        self.places: dict[int, list[Any]] = {}  # rank -> [host, pid, start time], as the ranks wrote them
        self._seen: dict[int, list[Any]] = {}  # the same for processes of this host, as this rank found them
        self._begun = time.monotonic()
        self._own = psutil.Process()
        self._parent = self._own.ppid()

    def look(self, missing: set[int]) -> None:
        """Raise LostRank where a rank has ended, or where the time is over and `missing` have not arrived."""
        self._find_processes()
        if lost := self._failed() or self._ended(missing):
            raise lost
        if missing and time.monotonic() - self._begun > self.patience:
            raise LostRank(min(missing), self._absent(missing))

    def _failed(self) -> LostRank | None:
        """Return the loss that a failing rank of this start has recorded."""
        if "TORCHELASTIC_RUN_ID" in os.environ:  # its starts share a name, and its agent ends the others
            return None
        begun = 0.0 if slurm_env.in_step() else self._own.create_time()
        for path in sorted(self.run.failures.glob(f"{failures.attempt()}-rank*.json")):
            line = failures.read_line(path)
            if line and not line["lost"] and line["time"] > begun and line["rank"] != self.rank:
                return LostRank(
                    line["rank"], f"rank {line['rank']} failed before the ranks met: {line['message']}"
                )
        return None

    def _ended(self, missing: set[int]) -> LostRank | None:
        """Return the loss of a rank whose process has ended."""
        known = self._seen | self.places
        dead = [rank for rank, place in known.items() if alive(*place) is False]
        if not dead and self._all_are_children() and time.monotonic() - self._begun > SETTLE:
            dead = sorted(missing - known.keys() - {self.rank})
        if not dead:
            return None
        rank = min(dead)
        return LostRank(
            rank, f"rank {rank} died before the ranks met: it was killed by a signal, or the memory was full"
        )

    def _absent(self, missing: set[int]) -> str:
        ranks = sorted(missing)
        listed = ", ".join(map(str, ranks[:8])) + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")
        noun = "rank" if len(ranks) == 1 else "ranks"
        return (
            f"{noun} {listed} of {self.world} did not arrive within {self.patience} seconds: see "
            f"`rostro logs {self.run.name} rank={ranks[0]}`; where nodes start slowly, type a longer "
            "hang_timeout"
        )

    def _all_are_children(self) -> bool:
        """Return whether all ranks are children of this rank's parent, which started them all at once."""
        return "SUBMITIT_LOCAL_GLOBALID" in os.environ and self._own.ppid() == self._parent

    def _find_processes(self) -> None:
        """Find ranks among the children of this rank's parent, by their environment."""
        try:
            siblings = psutil.Process(self._parent).children()
        except psutil.Error:
            return
        own_token = self._token(self._own)
        known = {place[1] for place in self._seen.values()}
        for process in siblings:
            if process.pid in known:
                continue
            try:
                token, place = self._token(process), mark(process.pid)
            except (psutil.Error, OSError):  # it ended this moment, or belongs to another user
                continue
            if token and own_token and token[0] == own_token[0]:
                self._seen[token[1]] = place

    @staticmethod
    def _token(process: psutil.Process) -> tuple[tuple[str | None, ...], int] | None:
        """Return (names of the start, rank) of a process that is a rank, else None."""
        values = process.environ()
        rank = next((values[name] for name in RANKS if values.get(name, "").isdigit()), None)
        if rank is None:
            return None
        names = ("ROSTRO_ATTEMPT", "SUBMITIT_LOCAL_JOB_ID", "MASTER_PORT", "SLURM_JOB_ID", "SLURM_STEP_ID")
        return tuple(values.get(name) for name in names), int(rank)
