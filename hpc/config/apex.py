"""Finds out whether NVIDIA Apex is installed. Imports neither it nor torch. Optimizers: `hpc/optim/apex.py`.

`pip install apex` brings an unrelated package of that name (web logins for Pyramid), and NVIDIA's own may be
built without its kernels (`amp_C`). One installed over the other leaves `amp_C` beside the wrong `apex`, so
both are looked at.
"""

import importlib.util
import socket
from pathlib import Path

from data_shards.errors import UserError
from hpc.config.optimizers import OPTIMIZERS

BUILD = "APEX_CPP_EXT=1 APEX_CUDA_EXT=1 pip install --no-build-isolation git+https://github.com/NVIDIA/apex"


def installation() -> str:
    """Classify what `import apex` would get: nvidia | no kernels (without amp_C) | unrelated | missing."""
    place = _place("apex")
    if place is None:
        return "missing"
    if not ((place / "optimizers").is_dir() and (place / "multi_tensor_apply").is_dir()):
        return "unrelated"
    return "nvidia" if _place("amp_C") else "no kernels"


def _place(module: str) -> Path | None:
    """Find the folder of an importable package or the file of a module; None without one."""
    try:
        spec = importlib.util.find_spec(module)
    except ValueError:  # a module made by hand, without a spec
        return None
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or [])
    return Path(folders[0] if folders else spec.origin or "")


def check_name(name: str) -> None:
    """Raise UserError where Apex has no optimizer `name`."""
    if not OPTIMIZERS[name].apex:
        raise UserError(f"optim.name={name}: NVIDIA Apex has no such optimizer: use optim.impl=torch")


def refuse(name: str) -> None:
    """Raise UserError where optim.impl=apex cannot work with the optimizer `name` on this machine."""
    check_name(name)
    kind, host = installation(), socket.gethostname()
    remedy = f"build NVIDIA's ({BUILD}), or use optim.impl=torch"
    if kind == "missing":
        raise UserError(f"optim.impl=apex: NVIDIA Apex is not installed on {host}: {remedy}")
    if kind == "unrelated":
        raise UserError(
            f"optim.impl=apex: the package `apex` in {_place('apex')} on {host} is not NVIDIA's (PyPI's apex "
            f"is a toolkit for web logins): `pip uninstall apex`, then {remedy}"
        )
    if kind == "no kernels":
        raise UserError(
            f"optim.impl=apex: NVIDIA Apex on {host} was built without its kernels (no module amp_C): "
            + remedy
        )
