"""Copies a task's state, nested dicts and lists of tensors and plain values, and splits it for a checkpoint.

A checkpoint keeps the tensors in one file, by their place (`pool/0/images`), and the rest as JSON.
"""

from typing import Any

from torch import Tensor

from data_shards.errors import UserError
from hpc.checkpoints import safetensors_writer

State = dict[str, Any]
PLAIN = (bool, int, float, str, type(None))


def copied(value: Any) -> Any:
    """Return a copy that shares no memory with `value`, at any depth."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copied(item) for item in value]
    return value


def split(state: State) -> tuple[dict[str, Tensor], State]:
    """Return the tensors by place, and a copy of the rest with None in their places.

    Raises UserError, with the place, for a value that a checkpoint would not restore as it was.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, {
        key: _plain(item, key, tensors) for key, item in state.items() if _is_key(key, "state()")
    }


def _plain(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor) and value.dtype in safetensors_writer.DTYPES:
        tensors[place] = value
        return None
    if type(value) is dict:
        return {
            key: _plain(item, f"{place}/{key}", tensors) for key, item in value.items() if _is_key(key, place)
        }
    if type(value) is list:
        return [_plain(item, f"{place}/{number}", tensors) for number, item in enumerate(value)]
    if type(value) in PLAIN:
        return value
    what = f"a tensor of {value.dtype}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
    raise UserError(
        f"the task's state holds {what} at {place}, which a checkpoint cannot: use tensors "
        f"({', '.join(safetensors_writer.DTYPES.values())}), dicts, lists, numbers, text, true, false and "
        f"None"
    )


def _is_key(key: Any, place: str) -> bool:
    if type(key) is not str or not key or "/" in key:
        raise UserError(f"the task's state has the key {key!r} at {place}: use text without a slash")
    return True


def joined(tensors: dict[str, Tensor], plain: State) -> State:
    """Reverse `split`, changing `plain`; KeyError, IndexError or TypeError where the two do not fit."""
    for place, tensor in tensors.items():
        *path, last = place.split("/")
        owner: Any = plain
        for step in path:
            owner = owner[int(step) if isinstance(owner, list) else step]
        owner[int(last) if isinstance(owner, list) else last] = tensor
    return plain
