"""Measure `rostro submit` against `import hydra`, all as whole processes, interleaved; medians.

A dry run, and a real submission to SLURM. The latter goes to a sandbox that lives as long as the bench (the
jobs are held, so that none runs meanwhile); it is left out, with a message, if SLURM is not installed.

usage: python bench/submit.py [rounds]
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SANDBOX = ["bash", str(ROOT / "slurm" / "sandbox.sh")]
SUBMIT = [sys.executable, str(ROOT / "launch" / "submit.py"), "task=siamese"]
DRY, QUEUED = "submit dry_run=true", "submit (SLURM)"
LIMITS = {DRY: 2.5, QUEUED: 4.0}


@contextmanager
def sandbox(folder: Path) -> Iterator[Path]:
    """Start a SLURM in `folder`; yield its slurm.conf."""
    folder /= "c"
    subprocess.run([*SANDBOX, "up", folder], check=True, stdout=subprocess.DEVNULL)
    try:
        yield folder / "slurm.conf"
    finally:
        subprocess.run([*SANDBOX, "down", folder], check=True, stdout=subprocess.DEVNULL)


def pack(folder: Path, environment: dict[str, str]) -> Path:
    """Pack a small set; return the folder of its training split."""
    words = ["source=procedural", f"out={folder}", "identities=20", "per_identity=4", "size=64"]
    command = [sys.executable, "-m", "launch.cli", "pack", *words]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    return folder / "train"


def measure(
    rounds: int, commands: dict[str, list[str]], environment: dict[str, str]
) -> dict[str, list[float]]:
    """Return the seconds of each command in each round; a first round only fills caches."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            begin = time.perf_counter()
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{name}: {done.stderr.strip()}")
            if number:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def report(rounds: int, seconds: dict[str, list[float]]) -> bool:
    """Print the table and the JSON line; return whether all limits are met."""
    median = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {name: median[name] / median["import hydra"] for name in LIMITS if name in median}
    print(f"{'command':<22}{'median':>9}{'fastest':>9}{'slowest':>9}{'ratio':>8}{'at most':>9}")
    for name, values in seconds.items():
        row = f"{name:<22}{median[name]:>8.3f}s{min(values):>8.3f}s{max(values):>8.3f}s"
        print(row + (f"{ratios[name]:>8.2f}{LIMITS[name]:>9g}" if name in ratios else ""))
    rounded = {name: round(ratio, 3) for name, ratio in ratios.items()}
    print(json.dumps({"bench": "submit", "rounds": rounds, "ratios": rounded, "limits": LIMITS, **median}))
    return all(ratio <= LIMITS[name] for name, ratio in ratios.items())


def main() -> int:
    """Run the bench; return 0 if all limits are met."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    # Installed packages are compiled, so the checkout must be, too: PYTHONDONTWRITEBYTECODE would forbid it.
    left_out = ("SLURM_", "ROSTRO_", "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    commands = {
        "import hydra": [sys.executable, "-c", "import hydra"],
        DRY: [*SUBMIT, "dry_run=true", "procs=2", "cluster=local"],
        "rostro --help": [sys.executable, "-m", "launch.cli", "--help"],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not shutil.which("slurmctld", path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
            print(f"{QUEUED} is left out: slurmctld is not installed here")
            return int(not report(rounds, measure(rounds, commands, environment)))
        train = pack(folder / "set", environment)
        words = ["cluster=slurm", "nodes=4", f"data.train={train}", "batch=64", f"runs={folder / 'runs'}"]
        commands[QUEUED] = [*SUBMIT, *words, "cluster.sbatch={hold: true}"]
        with sandbox(folder) as conf:
            return int(not report(rounds, measure(rounds, commands, environment | {"SLURM_CONF": str(conf)})))


if __name__ == "__main__":
    sys.exit(main())
