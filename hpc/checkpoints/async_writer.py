"""Saves while training continues: a thread writes a copy of the state in host memory.

The training waits for the copy alone. The copy's memory is kept for the next save; one save is under way at a
time, a second one waits. What is written, and how it is committed: `hpc/checkpoints/store.py`.
"""

import contextlib
import copy
import os
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from data_shards.errors import UserError
from hpc.checkpoints import task_state
from hpc.checkpoints.checkpoint import Checkpoint, Tensors

Write = Callable[[Checkpoint], None]
COPIERS = 4  # threads that copy: one alone does not fill the memory's bandwidth
NICE = 10  # of the thread that writes: training has the first claim on the cores


class StagingBuffer:
    """Copies of checkpoints in the same memory, one after the other."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, str], Tensor] = {}
        self._pool = ThreadPoolExecutor(min(COPIERS, len(os.sched_getaffinity(0))), thread_name_prefix="copy")

    def take(self, state: Checkpoint) -> Checkpoint:
        """Return a copy of `state` that is valid until the next call."""
        before, self._kept = self._kept, {}
        under_way: list[Future] = []
        live, plain = task_state.split(state.task)
        taken = Checkpoint(state.clock, state.updates, meta=copy.deepcopy(state.meta))
        for part in ("players", "optim", "ema"):
            for player, tensors in getattr(state, part).items():
                getattr(taken, part)[player] = self._copy((part, player), tensors, before, under_way)
        taken.pieces = self._copy(("pieces", ""), state.pieces, before, under_way)
        taken.task = task_state.joined(self._copy(("task", ""), live, before, under_way), plain)
        taken.monitor = copy.deepcopy(state.monitor)
        for copied in under_way:
            copied.result()
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # copies from a GPU are asynchronous
        return taken

    def _copy(
        self,
        place: tuple[str, str],
        tensors: Tensors,
        before: dict[tuple[str, str, str], Tensor],
        under_way: list[Future],
    ) -> Tensors:
        copies: Tensors = {}
        for name, tensor in tensors.items():
            source = tensor.detach()
            old = before.get((*place, name))
            if old is None or (old.shape, old.dtype, old.stride()) != (
                source.shape,
                source.dtype,
                source.stride(),
            ):
                old = torch.empty_like(source, device="cpu", pin_memory=source.is_cuda)
            self._kept[*place, name] = copies[name] = old
            # The memory layout is kept: a plain copy costs a fraction of one that sorts the channels.
            if source.is_cuda:
                old.copy_(source, non_blocking=True)
            else:
                under_way.append(self._pool.submit(old.copy_, source))
        return copies


class AsyncCheckpointWriter:
    """Writes checkpoints, or this rank's part of them; `write` raises UserError where it cannot."""

    def __init__(self, write: Write, *, background: bool) -> None:
        self._write, self._copies = write, StagingBuffer() if background else None
        self._thread: threading.Thread | None = None
        self.error = ""  # why a save failed, on one line; later saves do not clear it
        self.longest = 0.0  # seconds that a save took in the background

    def save(self, state: Checkpoint) -> str:
        """Write `state`, or begin to; return the error of this save or of the one before, or ''."""
        if self.wait():
            return self.error
        if self._copies is None:
            self._run(state)
            return self.error
        taken = self._copies.take(state)
        self._thread = threading.Thread(target=self._run, args=(taken,), name="save")
        self._thread.start()
        return ""

    def wait(self) -> str:
        """Wait for the save that is under way; return its error or ''."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        return self.error

    def _run(self, state: Checkpoint) -> None:
        if self._copies is not None:  # the threads that hash inherit it
            with contextlib.suppress(OSError):  # a process with a higher niceness may not lower it to NICE
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        began = time.perf_counter()
        try:
            self._write(state)
            if self._copies is not None:
                self.longest = max(self.longest, time.perf_counter() - began)
        except UserError as failure:
            self.error = str(failure)
        except BaseException as failure:
            if self._copies is None:
                raise
            traceback.print_exc()  # no caller would see an exception of a thread
            self.error = (
                f"the checkpoint of clock {state.clock} was not saved: {' '.join(repr(failure).split())}"
            )
