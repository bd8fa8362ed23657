"""Simulated scale: a sparse synthetic set of 260 million samples in 26,000 shards, seen by a rank of 1,024.

`python bench/scale.py` measures, for plain and P x K order, each in a process of its own: time to open the
set (manifest, sizes of all files, hashes of the index), time to the first batch (that, build the order,
compute one rank's job), resident memory, the cost of a batch beside a 100 times smaller set (interleaved
medians), and the balance of the ranks. Nothing is decoded: the shards are holes, and so are the columns.
Prints one table and one JSON line; exit code 1 where a bar is missed.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_shards.files import file_entry
from data_shards.loading.requests import RequestBuilder
from data_shards.sampling.order import GroupOrder, Order, PlainOrder, rank_block
from data_shards.sampling.view import View
from data_shards.shard_format import shard_set
from data_shards.shard_format.columns import BLOCK_BYTES, BLOCKS
from data_shards.shard_format.manifest import write_manifest
from data_shards.shard_format.shard_set import ShardSet

COLUMNS = {
    "shard": "u4",
    "offset": "u8",
    "size": "u4",
    "width": "u2",
    "height": "u2",
    "crc": "u4",
    "labels.identity": "i4",
}
WORLD, SHARE, GROUP = 1024, 64, 4
VIEW = View((112, 112), crop_area=(0.5, 1.0), flip=0.5, brightness=0.2, contrast=0.2, saturation=0.2)
BARS = {"open_s": 2.0, "first_batch_s": 2.0, "resident_mb": 300.0, "cost_ratio": 1.2, "imbalance": 1}


def write_set(folder: Path, *, samples: int, shards: int, identities: int) -> None:
    """Make a set of holes: the columns are zero; tables of starts, hashes and the manifest are real."""
    (folder / "index").mkdir(parents=True)
    rng = np.random.default_rng(0)
    starts = {}
    for name, count in (("identity_start", identities), ("shard_start", shards)):
        cuts = np.unique(rng.integers(1, samples, count - 1)) if count > 1 else np.empty(0)
        starts[name] = np.concatenate([[0], cuts, [samples]]).astype(np.uint64)
        np.save(folder / "index" / f"{name}.npy", starts[name])
    zeros = hashlib.sha256(bytes(BLOCK_BYTES)).digest()
    hashes, files = (
        b"",
        [file_entry(folder / f"index/{name}.npy", name=f"index/{name}.npy") for name in starts],
    )
    for name, dtype in sorted(COLUMNS.items()):
        path = folder / "index" / f"{name}.npy"
        with open(path, "wb") as file:
            header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (samples,)}
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + samples * np.dtype(dtype).itemsize)
        first, last = _ends(path)
        hashes += first + zeros * (-(-path.stat().st_size // BLOCK_BYTES) - 2) + last
        files.append({"name": f"index/{name}.npy", "bytes": path.stat().st_size, "sha256": zeros.hex()})
    (folder / BLOCKS).write_bytes(hashes)
    for name in ("identities.txt", "rejected.csv"):
        (folder / name).touch()
    files += [file_entry(folder / name, name=name) for name in (BLOCKS, "identities.txt", "rejected.csv")]
    counts = np.diff(starts["shard_start"].astype(np.int64)).tolist()
    tars = []
    for number, count in enumerate(counts):
        for ending in ("tar", "idx"):
            with open(folder / f"scale-{number:06d}.{ending}", "wb") as file:
                file.truncate(100)
        entry = {"bytes": 100, "sha256": zeros.hex()}
        tars.append({"name": f"scale-{number:06d}.tar", "samples": count, **entry})
        files.append({"name": f"scale-{number:06d}.idx", **entry})
    people = len(starts["identity_start"]) - 1
    words = {
        "name": "scale",
        "source": "none",
        "split": "train",
        "licence": "",
        "request": "",
        "verify": "none",
    }
    numbers = {"size": 0, "seed": 0, "holdout": 0.0, "rejected": 0, "picture_bytes": 0, "samples": samples}
    fields = {"identity": {"dtype": "i4", "largest": people - 1}}
    write_manifest(
        folder,
        {
            **words,
            **numbers,
            "identities": people,
            "converted": {},
            "fields": fields,
            "shards": tars,
            "files": files,
        },
    )


def _ends(path: Path) -> tuple[bytes, bytes]:
    """Hash the first block of a file, which holds the header, and the last one, which is not whole."""
    with open(path, "rb") as file:
        first = hashlib.sha256(file.read(BLOCK_BYTES)).digest()
        file.seek((path.stat().st_size - 1) // BLOCK_BYTES * BLOCK_BYTES)
        return first, hashlib.sha256(file.read()).digest()


class Rank:
    """One rank's view of a set: everything of a batch but reading and decoding its bytes."""

    def __init__(self, folder: Path, kind: str, rank: int) -> None:
        self.shards, self.rank = ShardSet.open(folder), rank
        self.order: Order = (
            PlainOrder(self.shards, 0) if kind == "plain" else GroupOrder(self.shards, 0, group=GROUP)
        )
        self.supply = RequestBuilder(self.shards, ("identity",), view=VIEW)

    def batch(self, step: int) -> np.ndarray:
        first, count = rank_block(step * WORLD * SHARE, WORLD * SHARE, self.rank, WORLD, unit=self.order.unit)
        job = self.supply.training(self.order.slots(first, count), 0)
        ids = job.slots.ids[:, 0]
        np.asarray(self.shards.offset[ids]), np.asarray(self.shards.size[ids])  # what the reader looks up
        return ids


def resident_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS in /proc/self/status")


def measure(big: Path, small: Path, kind: str, batches: int) -> dict[str, float]:
    """Measure one order; called in a fresh process."""
    shard_set.WHOLE = 0  # both sets are verified by blocks, so that the costs of their batches compare
    before = resident_mb()
    begin = time.perf_counter()
    ShardSet.open(big)
    opened = time.perf_counter() - begin
    begin = time.perf_counter()
    rank = Rank(big, kind, WORLD // 3)
    rank.batch(0)
    first = time.perf_counter() - begin
    cold, peak = [], resident_mb()
    for step in range(batches):
        cold.append(_timed(rank, step))
        peak = max(peak, resident_mb())
    # compared with the index in the page cache, as the ranks of a node share it; `cold` is the first touch
    other = Rank(small, kind, WORLD // 3)
    for step in range(batches):
        other.batch(step)
    cost: dict[str, list[float]] = {"big": [], "small": []}
    for step in range(batches):
        for name, seen in (("big", rank), ("small", other))[:: 1 if step % 2 else -1]:
            cost[name].append(_timed(seen, step))
    medians = {name: statistics.median(values) for name, values in cost.items()}
    return {
        "open_s": opened,
        "first_batch_s": first,
        "resident_mb": peak,
        "growth_mb": peak - before,
        "cold_batch_ms": statistics.median(cold) * 1e3,
        "batch_ms": medians["big"] * 1e3,
        "small_batch_ms": medians["small"] * 1e3,
        "cost_ratio": medians["big"] / medians["small"],
        "imbalance": _imbalance(rank.order),
    }


def _timed(rank: Rank, step: int) -> float:
    begin = time.perf_counter()
    rank.batch(step)
    return time.perf_counter() - begin


def _imbalance(order: Order) -> int:
    """Return the spread of the ranks' numbers of samples of a global batch, which their blocks must tile."""
    blocks = [rank_block(0, WORLD * SHARE, rank, WORLD, unit=order.unit) for rank in range(WORLD)]
    expected = 0
    for first, count in blocks:
        if first != expected:
            raise AssertionError(f"ranks leave a gap or overlap at {first}")
        expected = first + count
    counts = [count for _, count in blocks]
    return max(counts) - min(counts)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=260_000_000)
    parser.add_argument("--shards", type=int, default=26_000)
    parser.add_argument("--identities", type=int, default=4_000_000)
    parser.add_argument("--batches", type=int, default=300)
    parser.add_argument("--measure", nargs=3, metavar=("BIG", "SMALL", "ORDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        big, small, kind = args.measure
        print(json.dumps(measure(Path(big), Path(small), kind, args.batches)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        sets = []
        for name, divisor in (("big", 1), ("small", 100)):
            sets.append(Path(folder, name))
            write_set(
                sets[-1],
                samples=args.samples // divisor,
                shards=max(1, args.shards // divisor),
                identities=max(1, args.identities // divisor),
            )
        results = {}
        for kind in ("plain", "groups"):
            command = [
                sys.executable,
                __file__,
                "--batches",
                str(args.batches),
                "--measure",
                *map(str, sets),
                kind,
            ]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            results[kind] = json.loads(done.stdout.splitlines()[-1])
    return report(results)


def report(results: dict[str, dict[str, float]]) -> int:
    print(f"| {'figure':<16} | {'plain':>8} | {'groups':>8} | bar |\n|---|---|---|---|")
    for name in results["plain"]:
        bar = f"<= {BARS[name]:g}" if name in BARS else ""
        print(f"| {name:<16} | {results['plain'][name]:8.3f} | {results['groups'][name]:8.3f} | {bar} |")
    passed = all(figures[name] <= bar for figures in results.values() for name, bar in BARS.items())
    print(json.dumps({"bench": "scale", "passed": passed, **results}))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
