"""Packing against its limits: plain copying, webdataset's writer, and decoding alone.

usage: python bench/pack.py [files=10000] [repeats=5] [workers=2] [clock=wall] [work=FOLDER]

All variants read the same files and run interleaved, in a new order each round. `rostro pack` and bare
decoding are whole commands with the same number of processes. clock=cpu judges CPU seconds, for machines with
other work to do. sha256 is shown beside: without SHA instructions in the CPU, it alone exceeds the bar of the
row that it is part of.
Prints one table of medians and one JSON line; the exit code is 1 where a demand is missed.
"""

import hashlib
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import webdataset as wds

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from data_shards.pack.tar_writer import TarWriter  # noqa: E402
from data_shards.sources.base import read_file  # noqa: E402
from launch.options.key_value import parse  # noqa: E402

DECODER = """
import os, sys
from multiprocessing import get_context
import simplejpeg
from data_shards.sources.base import read_file
def decode(paths):
    for path in paths:
        simplejpeg.decode_jpeg(read_file(path))
if __name__ == "__main__":
    paths = sorted(os.path.join(folder, name) for folder, _, names in os.walk(sys.argv[1]) for name in names)
    workers = int(sys.argv[2])
    jobs = [get_context("spawn").Process(target=decode, args=(paths[at::workers],)) for at in range(workers)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    sys.exit(max(job.exitcode for job in jobs))
"""


def make_images(folder: Path, count: int, *, side: int = 256) -> list[str]:
    """Write JPEGs of about 20 KB: smooth shapes with grain, cut from a large one; 50 to a folder."""
    rng = np.random.default_rng(0)
    large = cv2.resize(
        rng.uniform(0, 255, (48, 48, 3)).astype(np.float32), (2048, 2048), interpolation=cv2.INTER_CUBIC
    )
    large += cv2.resize(rng.normal(0, 25, (512, 512, 3)).astype(np.float32), (2048, 2048))
    large = np.clip(large + rng.normal(0, 5, large.shape), 0, 255).astype(np.uint8)
    paths = []
    for number in range(count):
        x, y = rng.integers(0, 2048 - side, 2)
        image = np.ascontiguousarray(large[y : y + side, x : x + side])
        path = folder / f"id_{number // 50:04d}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(simplejpeg.encode_jpeg(image, 87, colorsubsampling="420"))
        paths.append(str(path))
    return paths


def copy(paths: list[str], out: Path) -> None:
    with open(out, "wb", 1 << 20) as file:
        for path in paths:
            file.write(read_file(path))


def plain(paths: list[str], out: Path) -> None:
    writer = TarWriter(out, index_path=out.with_suffix(".idx"), sha256=False)
    for number, path in enumerate(paths):
        writer.add(f"{number:06d}", {"jpg": read_file(path)})
    writer.close(sync=False)


def labelled(paths: list[str], out: Path, *, sha256: bool = False) -> None:
    writer = TarWriter(out, index_path=out.with_suffix(".idx"), sha256=sha256)
    for number, path in enumerate(paths):
        writer.add(f"{number:06d}", {"jpg": read_file(path), "cls": b"%d" % number})
    writer.close(sync=False)


def hashed(paths: list[str]) -> None:
    """Read and hash: what no writer with sha256 can do without."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(read_file(path))


def webdataset_writer(paths: list[str], out: Path) -> None:
    with wds.TarWriter(str(out), encoder=False, mtime=0) as writer:
        for number, path in enumerate(paths):
            writer.write({"__key__": f"{number:06d}", "jpg": read_file(path), "cls": b"%d" % number})


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of all its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """Return (wall, CPU) seconds."""
    start, cpu = time.perf_counter(), cpu_seconds()
    action()
    return time.perf_counter() - start, cpu_seconds() - cpu


def measure(
    paths: list[str], src: Path, work: Path, *, repeats: int, workers: int
) -> dict[str, list[tuple[float, float]]]:
    """Return the (wall, CPU) seconds of every variant and round; outputs are removed outside the clock."""
    script = work / "decode.py"
    script.write_text(DECODER)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    packing = [
        "-m",
        "launch.cli",
        "pack",
        "source=folder",
        f"src={src}",
        f"out={work / 'set'}",
        f"workers={workers}",
    ]

    def run(*words: str) -> None:
        subprocess.run([sys.executable, *words], env=environment, check=True, stdout=subprocess.DEVNULL)

    variants: dict[str, Callable[[], object]] = {
        "copy into one file": lambda: copy(paths, work / "o.bin"),
        "writer": lambda: plain(paths, work / "o.tar"),
        "writer with label": lambda: labelled(paths, work / "o.tar"),
        "writer with label and sha256": lambda: labelled(paths, work / "o.tar", sha256=True),
        "sha256 alone": lambda: hashed(paths),
        "wds.TarWriter with label": lambda: webdataset_writer(paths, work / "o.tar"),
        "decoding, whole command": lambda: run(str(script), str(src), str(workers)),
        "rostro pack, whole command": lambda: run(*packing),
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for turn in range(repeats + 1):
        for name in random.Random(turn).sample(list(variants), len(variants)):
            taken = timed(variants[name])
            if turn:  # the first round warms the page cache
                seconds[name].append(taken)
            for leftover in (*work.glob("o.*"), work / "set"):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
            os.sync()
    return seconds


RATIOS = {  # ratio: (above, below, limit, whether the ratio must stay below it)
    "writer / copy": ("writer", "copy into one file", 1.3, True),
    "writer with label and sha256 / copy": ("writer with label and sha256", "copy into one file", 2.6, True),
    "wds.TarWriter / writer, both with label": ("wds.TarWriter with label", "writer with label", 3.0, False),
    "rostro pack / decoding": ("rostro pack, whole command", "decoding, whole command", 1.2, True),
}


def report(seconds: dict[str, list[tuple[float, float]]], *, files: int, size: int, clock: str) -> bool:
    """Print the table and the JSON line; return whether all demands are met."""
    middle = {
        variant: {
            "wall": statistics.median(wall for wall, _ in taken),
            "cpu": statistics.median(cpu for _, cpu in taken),
        }
        for variant, taken in seconds.items()
    }
    print("| variant | wall s | CPU s | us a file (CPU) |\n|---|---|---|---|")
    for variant, each in middle.items():
        print(f"| {variant} | {each['wall']:.3f} | {each['cpu']:.3f} | {each['cpu'] / files * 1e6:.1f} |")
    print("| **ratio** | **wall** | **CPU** | **demand** |")
    ratios = {}
    for name, (above, below, limit, low) in RATIOS.items():
        both = {kind: middle[above][kind] / middle[below][kind] for kind in ("wall", "cpu")}
        met = (both[clock] <= limit) == low
        ratios[name] = {**both, "limit": limit, "met": met}
        demand = f"{'<=' if low else '>='} {limit}: {'met' if met else 'missed'}"
        print(f"| {name} | {both['wall']:.2f} | {both['cpu']:.2f} | {demand} |")
    print(
        json.dumps(
            {
                "bench": "pack",
                "files": files,
                "bytes": size,
                "clock": clock,
                "seconds": middle,
                "ratios": ratios,
            }
        )
    )
    return all(each["met"] for each in ratios.values())


def main() -> int:
    args = parse(sys.argv[1:], {"files": 10_000, "repeats": 5, "workers": 2, "clock": "wall", "work": ""})
    if args.clock not in ("wall", "cpu"):
        raise SystemExit(f"error: clock={args.clock}: type wall or cpu")
    with tempfile.TemporaryDirectory(dir=args.work or None) as name:
        work = Path(name)
        src = work / "src"
        paths = make_images(src, args.files)
        size = sum(os.path.getsize(path) for path in paths)
        print(f"{len(paths)} files, {size / len(paths) / 1e3:.1f} KB each, medians of {args.repeats}\n")
        seconds = measure(paths, src, work, repeats=args.repeats, workers=args.workers)
    return 0 if report(seconds, files=len(paths), size=size, clock=args.clock) else 1


if __name__ == "__main__":
    sys.exit(main())
