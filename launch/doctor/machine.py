"""Findings on this machine: GPU, NCCL, DALI, NVIDIA Apex, DeepSpeed, network, file systems.

torch and DALI are imported in a process of their own: a broken driver or library ends that, not the report,
and a login node need not load them. Everything else is read without importing it.
"""

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hpc.config import apex
from launch.doctor.finding import HARMFUL, MISSING, NOTE, OK, Finding

PATIENCE = 180.0  # seconds to import torch and DALI: a cold network file system is slow
PROBE = """
import json
found = {}
try:
    import torch
    found |= {"torch": torch.__version__, "cuda": torch.version.cuda, "gpus": [], "nccl": None}
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            p = torch.cuda.get_device_properties(i)
            found["gpus"].append([p.name, round(p.total_memory / 2**30)])
        found["bf16"] = torch.cuda.is_bf16_supported(including_emulation=False)
    if torch.distributed.is_available() and torch.distributed.is_nccl_available():
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
except Exception as error:
    found["error"] = " ".join(str(error).split())[:200]
try:
    import nvidia.dali
    found["dali"] = nvidia.dali.__version__
except ModuleNotFoundError:
    found["dali"] = None
except Exception as error:
    found["dali_error"] = " ".join(str(error).split())[:200]
print(json.dumps(found))
"""
# Kinds of file systems that several nodes can share.
SHARED = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "wekafs", "panfs", "fuse.", "afs", "cifs", "9p")
SHARED += ("virtiofs",)
SLOWING = {  # variables left over from debugging: what they cost
    "NCCL_P2P_DISABLE": "GPUs of a node talk through host memory",
    "NCCL_IB_DISABLE": "nodes talk over TCP instead of InfiniBand",
    "NCCL_SHM_DISABLE": "ranks of a node talk over the network",
    "CUDA_LAUNCH_BLOCKING": "the host waits for every kernel",
}


def imported() -> dict[str, Any]:
    """Return what torch and DALI report of themselves, or the error of their import."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROBE],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
        )
        return dict(json.loads(done.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired:
        return {"error": f"importing it took more than {PATIENCE:.0f} s"}
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return {"error": f"importing it ended with: {last[:200]}"}


def judge(found: dict[str, Any], *, slurm: bool) -> list[Finding]:
    """Return findings on the libraries. slurm: this may be a login node, whose GPUs are elsewhere."""
    if "torch" not in found:
        why = found.get("error", "it is not installed")
        return [Finding(HARMFUL, "torch", why, "pip install -e . in the checkout, with this python")]
    return [*_gpu(found, slurm), _dali(found), _apex(bool(found["gpus"])), _deepspeed(), *_variables()]


def _gpu(found: dict[str, Any], slurm: bool) -> list[Finding]:
    torch = f"torch {found['torch']}"
    if found["gpus"]:
        names = ", ".join(sorted({f"{name} ({memory} GiB)" for name, memory in found["gpus"]}))
        lines = [Finding(OK, "GPU", f"{len(found['gpus'])} x {names}, {torch}")]
        if not found.get("bf16"):
            text = "this GPU does not compute bf16: precision=auto means fp32"
            lines.append(Finding(NOTE, "bf16", text))
        if found["nccl"]:
            return [*lines, Finding(OK, "NCCL", found["nccl"])]
        return [
            *lines,
            Finding(MISSING, "NCCL", f"{torch} has none: several GPUs cannot train together", TORCH),
        ]
    if _nvidia_smi():
        cuda = found["cuda"] or "none: this is the CPU build"
        text = f"there is one, but torch cannot use it ({torch}, CUDA {cuda})"
        return [Finding(HARMFUL, "GPU", text, f"{TORCH}, or ask the admin for a newer driver")]
    if slurm:
        advice = (
            "a login node needs none; for a node with one: srun --gpus-per-node=1 rostro doctor only=machine"
        )
        lines = [Finding(NOTE, "GPU", f"none on this machine, {torch}", advice)]
    else:
        lines = [Finding(MISSING, "GPU", f"none, {torch}: runs train on the CPU, ranks talk over gloo")]
    nccl = Finding(OK, "NCCL", f"{found['nccl']}, for nodes with GPUs") if found["nccl"] else None
    return [*lines, nccl or Finding(NOTE, "NCCL", f"{torch} has none; ranks on a CPU use gloo", TORCH)]


TORCH = "on machines with GPUs install a CUDA build of torch: https://pytorch.org/get-started/locally"


def _nvidia_smi() -> bool:
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0 and "GPU 0" in done.stdout


def _dali(found: dict[str, Any]) -> Finding:
    if found.get("dali"):
        use = "decodes on the GPU" if found["gpus"] else "without a GPU data.backend=auto takes `host`"
        return Finding(OK, "DALI", f"{found['dali']}: {use}")
    if found.get("dali_error"):
        return Finding(
            MISSING, "DALI", f"it cannot be imported: {found['dali_error']}", "data.backend=host works"
        )
    advice = "pip install nvidia-dali-cuda130; data.backend=host works without it"
    return Finding(MISSING, "DALI", "not installed: images are decoded on the CPU", advice)


def _apex(gpu: bool) -> Finding:
    kind = apex.installation()
    texts = {
        "missing": "not installed: optim.impl=torch has the same optimizers",
        "no kernels": "NVIDIA's, built without its kernels (no module amp_C): optim.impl=apex is refused",
        "unrelated": "the package of that name is not NVIDIA's, but PyPI's toolkit for web logins",
    }
    if kind == "nvidia":
        return Finding(OK, "Apex", "NVIDIA's, with its kernels: optim.impl=apex works")
    if kind == "unrelated":
        return Finding(HARMFUL, "Apex", texts[kind], f"pip uninstall apex; NVIDIA's: {apex.BUILD}")
    advice = apex.BUILD if gpu else f"on machines with GPUs: {apex.BUILD}"
    return Finding(MISSING, "Apex", texts[kind], advice)


def _deepspeed() -> Finding:
    if importlib.util.find_spec("deepspeed") is None:
        return Finding(
            MISSING,
            "DeepSpeed",
            "not installed: engine=deepspeed is refused",
            "pip install -e '.[deepspeed]'",
        )
    return Finding(OK, "DeepSpeed", f"{importlib.metadata.version('deepspeed')}: engine=deepspeed works")


def _variables() -> list[Finding]:
    return [
        Finding(HARMFUL, name, f"{os.environ[name]}: {cost}", f"unset {name}")
        for name, cost in SLOWING.items()
        if os.environ.get(name, "0") not in ("0", "")
    ]


def network() -> list[Finding]:
    """Return findings on how ranks of several nodes would reach each other from here."""
    root = Path("/sys/class")
    cards = sorted(path.name for path in (root / "infiniband").glob("*"))
    lines = []
    if cards:
        lines.append(Finding(OK, "InfiniBand", f"{', '.join(cards)}: NCCL finds them by itself"))
        lines += _locked_memory()
    links = sorted(path.name for path in (root / "net").glob("*") if _is_network(path))
    if len(links) > 1 and not os.environ.get("NCCL_SOCKET_IFNAME"):
        text = f"{', '.join(links)}: NCCL and gloo guess which one joins the nodes"
        advice = f"if ranks do not find each other, in cluster.setup: export NCCL_SOCKET_IFNAME={links[0]} "
        advice += f"GLOO_SOCKET_IFNAME={links[0]}"
        lines.append(Finding(NOTE, "network", text, advice))
    else:
        lines.append(Finding(OK, "network", ", ".join(links) or "no interface but loopback"))
    return lines


def _is_network(path: Path) -> bool:
    """Return whether a link is real and up: not loopback, a bridge of containers or a tunnel."""
    try:
        up = (path / "operstate").read_text().strip() in ("up", "unknown")
    except OSError:
        return False
    return up and not path.name.startswith(("lo", "docker", "veth", "br-", "virbr", "tun", "cni", "flannel"))


def _locked_memory() -> list[Finding]:
    import resource

    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if limit == resource.RLIM_INFINITY:
        return []
    text = f"at most {limit >> 10} KiB of locked memory: InfiniBand needs no limit, and jobs inherit this one"
    return [
        Finding(
            HARMFUL,
            "memlock",
            text,
            "ask the admin: LimitMEMLOCK=infinity for slurmd and logins",
        )
    ]


def folders(places: dict[str, Path], *, elsewhere: bool) -> list[Finding]:
    """Return findings on the file systems of a job's folders. elsewhere: its nodes are other machines."""
    mounts = _mounts()
    found = []
    for what, path in places.items():
        kind = _kind(path, mounts)
        free = shutil.disk_usage(_existing(path)).free / 2**30
        text = f"{path} on {kind}, {free:,.0f} GiB free"
        if elsewhere and not kind.startswith(SHARED):
            found.append(
                Finding(
                    HARMFUL,
                    what,
                    f"{text}: other nodes do not see it",
                    "put it on a file system that all nodes share; rostro doctor trial=true tests it",
                )
            )
        elif free < 5:
            found.append(Finding(NOTE, what, text, "make room, or save.last=1"))
        else:
            found.append(Finding(OK, what, text))
    return found


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _mounts() -> list[tuple[str, str]]:
    """Return (mount point, kind), the longest first; empty if the system does not tell."""
    try:
        rows = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return []
    return sorted(((row[1].replace("\\040", " "), row[2]) for row in rows), key=lambda row: -len(row[0]))


def _kind(path: Path, mounts: list[tuple[str, str]]) -> str:
    real = _existing(path).resolve()
    return next((kind for point, kind in mounts if real.is_relative_to(point)), "an unknown file system")
