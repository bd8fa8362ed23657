"""A checkpoint against a plain copy of its bytes, and how long training stands still for it.

`python bench/save.py` makes the state of a network with Adam and an average (1 GB), then in interleaved
rounds: copies the files of a saved checkpoint (read, write, fsync), saves with and without hashes, and saves
in the background. Two figures for the background: how long the step boundary takes, and how much longer a
loop of training steps takes in all, since the thread that writes shares the cores. Bar: the boundary's stall
of an asynchronous save < 10 % of a synchronous one. Prints one table and one JSON line; exit code 1 where it
is missed.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from hpc.checkpoints import safetensors_writer, store
from hpc.checkpoints.async_writer import AsyncCheckpointWriter
from hpc.checkpoints.store import Checkpoint

BAR = "asynchronous stall / synchronous save"
BARS = {BAR: 0.1}
SIDE = 1024  # of the square weights


def make_state(gigabytes: float) -> Checkpoint:
    """Make weights, two moments and an average: four tensors of each shape."""
    count = max(1, round(gigabytes * 1e9 / (4 * 4 * SIDE * SIDE)))
    draw = torch.Generator().manual_seed(0)
    weights = {f"layer{n}.weight": torch.randn(SIDE, SIDE, generator=draw) for n in range(count)}
    optim = {}
    for name, weight in weights.items():
        optim |= {
            f"{name}/exp_avg": weight * 0.1,
            f"{name}/exp_avg_sq": weight**2,
            f"{name}/step": torch.tensor(1.0),
        }
    ema = {name: weight * 0.9 for name, weight in weights.items()}
    return Checkpoint(0, 0, {"net": weights}, {"net": optim}, {"net": ema})


def copy_plainly(source: Path, target: Path) -> None:
    """Copy the same bytes, as durably as a checkpoint."""
    target.mkdir()
    for file in source.iterdir():
        shutil.copyfile(file, target / file.name)
        with open(target / file.name, "rb") as done:
            os.fsync(done.fileno())


class Bench:
    """Runs one round after the other; every save has a clock of its own and is deleted at once."""

    def __init__(self, folder: Path, gigabytes: float) -> None:
        self.folder, self.state = folder, make_state(gigabytes)
        self.rows: dict[str, list[float]] = {}
        self.background = AsyncCheckpointWriter(self.write, background=True)
        self.model = store.save(folder, self.state)
        self.bytes = sum(file.stat().st_size for file in self.model.iterdir())
        self.left, self.right = torch.randn(192, 192), torch.randn(192, 192)

    def write(self, state: Checkpoint) -> None:
        store.save(self.folder, state)

    def timed(self, name: str, action: Callable[[], object]) -> None:
        start = time.perf_counter()
        action()
        self.rows.setdefault(name, []).append(time.perf_counter() - start)

    def clean(self) -> None:
        for path in (*store.listing(self.folder), self.folder / "copy"):
            if path != self.model:
                shutil.rmtree(path, ignore_errors=True)
        os.sync()
        self.state.clock += 1

    def step(self) -> None:
        for _ in range(10):
            torch.mm(self.left, self.right)

    def train(self, seconds: float, save: Callable[[], object]) -> None:
        """Run steps worth `seconds` where nothing else runs, with a save after the first tenth."""
        for number in range(self.steps(seconds)):
            if number == self.steps(seconds) // 10:
                save()
            self.step()

    def steps(self, seconds: float) -> int:
        return max(10, int(seconds / self.second_of_step))

    def round(self, longer: bool) -> None:
        self.timed("plain copy", lambda: copy_plainly(self.model, self.folder / "copy"))
        self.clean()
        self.timed("save", lambda: self.write(self.state))
        self.clean()
        with mock.patch.object(safetensors_writer, "digest", return_value=""):
            self.timed("save without hash", lambda: self.write(self.state))
        self.clean()
        self.timed("asynchronous stall", lambda: self.background.save(self.state))
        self.timed("asynchronous rest", self.background.wait)
        self.clean()
        if longer:
            self.timed("one step", self.step)
            self.second_of_step = statistics.median(self.rows["one step"])
            length = 1.5 * statistics.median(self.rows["save"])
            for name, save in (
                ("steps alone", lambda: None),
                ("steps and save", lambda: self.write(self.state)),
                ("steps and asynchronous save", lambda: self.background.save(self.state)),
            ):
                self.timed(name, lambda save=save: self.train(length, save))
                self.background.wait()
                self.clean()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--work", default=None, help="folder on the disk to be measured")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        bench = Bench(Path(name), options.gigabytes)
        bench.round(longer=False)  # memory for the copy, files' pages: what only a first save pays
        first = bench.rows["asynchronous stall"][0]
        bench.rows = {}
        for _ in range(options.rounds):
            bench.round(longer=True)
    rows = bench.rows
    medians = {name: statistics.median(values) for name, values in rows.items()}

    def ratio(above: str, below: str) -> float:
        return statistics.median(a / b for a, b in zip(rows[above], rows[below], strict=True))

    lost = [
        (asynchronous - alone) / (synchronous - alone)
        for alone, synchronous, asynchronous in zip(
            rows["steps alone"], rows["steps and save"], rows["steps and asynchronous save"], strict=True
        )
    ]
    ratios = {
        "save / plain copy": ratio("save", "plain copy"),
        "save without hash / plain copy": ratio("save without hash", "plain copy"),
        BAR: ratio("asynchronous stall", "save"),
        "training time lost, asynchronous / synchronous": statistics.median(lost),
    }
    print(
        f"| {f'{bench.bytes / 1e9:.2f} GB, {options.rounds} rounds':<46} | seconds |\n|{'-' * 48}|{'-' * 9}|"
    )
    for name, value in medians.items():
        print(f"| {name:<46} | {value:7.3f} |")
    print(f"| {'asynchronous stall of the first save':<46} | {first:7.3f} |")
    for name, value in ratios.items():
        print(f"| {name:<46} | {value:7.3f} |" + (f" bar {BARS[name]}" if name in BARS else ""))
    print(json.dumps({"bench": "save", "seconds": medians, "first": first, "ratios": ratios, "bars": BARS}))
    return int(any(ratios[name] > bar for name, bar in BARS.items()))


if __name__ == "__main__":
    sys.exit(main())
