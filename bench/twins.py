"""Reading twins, side by side with decoding the originals at the DCT scale that the target allows.

`python bench/twins.py` packs photo-like images of 1024 pixels (JPEG, quality 95, no chroma subsampling) with
`rostro pack twins=[64,256]` and times the training loader at 64 and at 128 pixels, whole images, with and
without the twins, on both backends, in interleaved rounds. Prints one table and one JSON line; exit code 1
where the bar is missed: a ratio of images per CPU-second of the host backend, which other jobs on the machine
disturb less than the clock's.
"""

import json
import os
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import cv2
import simplejpeg
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.load import THREADS, photo, timed
from bench.support.figures import arguments, medians_of_columns
from data_shards.loading.loader import TrainLoader
from data_shards.sampling.order import PlainOrder
from data_shards.sampling.view import View
from data_shards.shard_format.shard_set import ShardSet
from launch.cli import main as rostro

SIDE, BATCH, TWINS = 1024, 32, [64, 256]
SIZES = {64: "from the 64-pixel twin", 128: "from the 256-pixel twin"}
BAR = 15.0  # of the host backend at 64 pixels


def pack(folder: Path, count: int) -> ShardSet:
    """Make, pack and twin `count` images."""
    for number in range(count):
        path = folder / "src" / f"p{number % 4}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(simplejpeg.encode_jpeg(photo(number, SIDE), 95, "RGB", "444"))
    words = ["pack", "source=folder", f"src={folder / 'src'}", f"out={folder / 'out'}", "verify=none"]
    if rostro([*words, f"twins={TWINS}".replace(" ", "")]):
        raise SystemExit("the images were not packed")
    return ShardSet.open(folder / "out" / "train")


def loader(shards: ShardSet, size: int, backend: str, twins: list[int]) -> Generator[int]:
    """Yield the images of one batch after the other."""
    train = TrainLoader(
        PlainOrder(shards, 0),
        shards,
        seed=0,
        rank=0,
        world=1,
        batch=BATCH,
        backend=backend,
        threads=THREADS,
        ahead=4,
        view=View((size, size), flip=0.5),
        twins=twins,
    )
    train.start(0)
    try:
        while True:
            yield len(train.next())
    finally:
        train.close()


def timed_in_turn(shards: ShardSet, *, rounds: int, images: int) -> dict[str, list[float]]:
    """Return medians of images/s and images per CPU-second of each variant, timed in turn."""
    measured: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for size in SIZES:
            for backend in ("host", "dali"):
                for kind, twins, times in (("originals", [], 1), ("twins", TWINS, 8)):
                    source = loader(shards, size, backend, twins)
                    seconds = timed(source, images * times)  # twins are over too soon to be timed else
                    measured.setdefault(f"{size} {backend} {kind}", []).append(seconds)
                    source.close()
    return medians_of_columns(measured)


def main() -> int:
    originals = (256, "originals timed in each round, and 8 times as many twins")
    args = arguments(__doc__, images=(160, "in the set"), timed=originals, rounds=5)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        shards = pack(Path(folder), args.images)
        found = timed_in_turn(shards, rounds=args.rounds, images=args.timed)
        manifest = shards.manifest
    original = sum(shard["bytes"] for shard in manifest["shards"])
    shares = {
        twin["size"]: sum(shard["bytes"] for shard in twin["shards"]) / original for twin in manifest["twins"]
    }
    print("| pixels | backend | what is read | images/s | images per CPU-second |\n|---|---|---|---|---|")
    for name, (wall, cpu) in found.items():
        size, backend, kind = name.split()
        print(f"| {size} | {backend} | {kind} | {wall:,.0f} | {cpu:,.0f} |")
    ratios = {
        f"{size} {backend}": found[f"{size} {backend} twins"][1] / found[f"{size} {backend} originals"][1]
        for size in SIZES
        for backend in ("host", "dali")
    }
    print("| ratio | measured | bar |\n|---|---|---|")
    for name, ratio in ratios.items():
        bar = f">= {BAR:g}" if name == "64 host" else "none"
        print(f"| {name.split()[1]}, {SIZES[int(name.split()[0])]} | {ratio:.1f} | {bar} |")
    for size, share in shares.items():
        print(f"twin {size}: {share:.1%} of the bytes of the originals")
    passed = ratios["64 host"] >= BAR
    print(json.dumps({"bench": "twins", "passed": passed, "ratios": ratios, **found}))
    return 0 if passed else 1


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
