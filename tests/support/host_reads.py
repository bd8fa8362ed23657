"""Counts the places where the host would wait for a GPU, while the code under test runs on a CPU."""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# Methods and functions whose result has a value or a size that only the device knows. The dispatcher does not
# see those that are views of memory on a CPU.
NAMES = {"item", "tolist", "numpy", "__array__", "cpu", "nonzero", "argwhere", "unique", "unique_consecutive"}
NAMES |= {"masked_select", "repeat_interleave", "bincount", "__bool__", "__int__", "__float__", "__index__"}
NAMES |= {"allclose", "equal"}
# Functions that read what is on the host in any case.
ON_THE_HOST = {
    ("base.py", "run_ops"),  # positions
    ("batch.py", "latents"),  # positions
    ("batch.py", "noise"),  # positions
    ("image_pool.py", "exchange"),  # positions
    ("step_sync.py", "digest"),  # positions and sample ids
    ("batch_norm.py", "commit"),  # how many images were counted
    ("collectives.py", "gather_vector"),  # control values travel on the CPU
}


def _by_mask(func: Any, args: tuple) -> bool:
    """Return whether a tensor is indexed by a mask, which makes a size that only the device knows."""
    if getattr(func, "__name__", "") not in ("__getitem__", "__setitem__"):
        return False
    index = args[1] if isinstance(args[1], tuple) else (args[1],)
    return any(isinstance(part, Tensor) and part.dtype == torch.bool for part in index)


def _caller() -> tuple[str, str]:
    """Return file and function of the nearest frame that is neither torch's nor of this file."""
    frame = sys._getframe(2)
    while "torch" in Path(frame.f_code.co_filename).parts or frame.f_code.co_filename == __file__:
        assert frame.f_back is not None
        frame = frame.f_back
    return Path(frame.f_code.co_filename).name, frame.f_code.co_name


class HostReads:
    """`found`: `<file> <function>: <what>` of each read inside the context."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._inside = False
        self._modes = (_Functions(self), _Operators(self))

    def note(self, what: str) -> None:
        if not self._inside and (place := _caller()) not in ON_THE_HOST:
            self.found.append(f"{' '.join(place)}: {what}")

    def __enter__(self) -> "HostReads":
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)


class _Functions(TorchFunctionMode):
    def __init__(self, reads: HostReads) -> None:
        super().__init__()
        self.reads = reads

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = getattr(func, "__name__", "")
        if name not in NAMES and not _by_mask(func, args):
            return func(*args, **(kwargs or {}))
        self.reads.note(name)
        was, self.reads._inside = self.reads._inside, True  # its operators are the same read
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.reads._inside = was


class _Operators(TorchDispatchMode):
    def __init__(self, reads: HostReads) -> None:
        super().__init__()
        self.reads = reads

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is torch.ops.aten._local_scalar_dense.default:
            self.reads.note("_local_scalar_dense")
        return func(*args, **(kwargs or {}))
