"""Loading, side by side with webdataset + PIL workers and with DALI's own reader, in interleaved rounds.

`python bench/load.py` makes photo-like images by program, packs them, and times batches of 64 as float
CHW: faces stored at 112 (decode, flip) and 256 -> random resized crop 112. Ours is measured with both
backends and the faster one is compared. Prints one table and one JSON line; exit code 1 where a bar is
missed. Bars against webdataset are ratios of wall-clock medians; our order against DALI's reader (same
decoder) of images per CPU-second, workers counted, which other jobs on the machine disturb less.
"""

import io
import json
import math
import os
import random
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import simplejpeg
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.support.figures import arguments, medians_of_columns
from data_shards import counter_rng
from data_shards.loading.loader import TrainLoader
from data_shards.sampling.order import PlainOrder
from hpc.config.schema import Augment
from hpc.data.views import view_of
from tests.support.small_set import SmallSet

BATCH, SIDE, THREADS, SHARDS = 64, 112, 2, 4
PLAIN = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
FACES = Augment([1.0, 1.0], flip=0.5, **PLAIN)
CROPS = Augment([0.08, 1.0], flip=0.5, **PLAIN)
BARS = {"faces / webdataset+PIL": 3.1, "crops / webdataset+PIL": 2.2, "own order / DALI reader": 0.95}


def photo(number: int, side: int) -> np.ndarray:
    """Draw uint8 [side, side, 3] with texture and grain, whose JPEG is as large as a photograph's."""
    rng = np.random.default_rng(number)
    base = rng.uniform(20, 235, (6, 6, 3)).astype(np.float32)
    image = cv2.resize(base, (side, side), interpolation=cv2.INTER_CUBIC)
    for _ in range(8):
        centre = rng.integers(0, side, 2).tolist()
        axes = rng.integers(side // 16, side // 3, 2).tolist()
        colour = rng.uniform(0, 255, 3).tolist()
        cv2.ellipse(image, centre, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
    for cells, strength in ((side // 8, 14), (min(side // 3, 40), 10)):
        texture = rng.normal(0, strength, (cells, cells, 1)).astype(np.float32)
        image += cv2.resize(texture, (side, side), interpolation=cv2.INTER_CUBIC)[..., None]
    grain = rng.normal(0, 9 * min(1, 112 / side), (side, side, 3)).astype(np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), 0.7)  # weaker in a large image, whose pixels were not averaged
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def pack(folder: Path, count: int, side: int) -> SmallSet:
    """Write `count` images into tars with DALI's index; a few hundred distinct ones are enough."""
    folder.mkdir()
    distinct = [simplejpeg.encode_jpeg(photo(number, side), 90) for number in range(min(count, 300))]
    rows, paths = [], []
    for number in range(SHARDS):
        paths.append(folder / f"p-{number}.tar")
        lines = []
        with tarfile.open(paths[-1], "w", format=tarfile.USTAR_FORMAT) as tar:
            for at in range(count * number // SHARDS, count * (number + 1) // SHARDS):
                places = []
                for ending, data in (("jpg", distinct[at % len(distinct)]), ("cls", b"0")):
                    info = tarfile.TarInfo(f"{at:08d}.{ending}")
                    info.size = len(data)
                    places.append(f"{ending} {tar.offset + 512} {info.size} {info.name}")
                    if ending == "jpg":
                        rows.append((number, tar.offset + 512, info.size, zlib.crc32(data)))
                    tar.addfile(info, io.BytesIO(data))
                lines.append(" ".join(places))
        paths[-1].with_suffix(".idx").write_text("\n".join([f"v1.2 {len(lines)}", *lines]) + "\n")
    shard, offset, size, crc = np.array(rows).T
    sides = np.full(count, side)
    start = np.searchsorted(shard, np.arange(SHARDS + 1))
    labels = {"identity": np.zeros(count, np.int64)}
    return SmallSet(
        folder, paths, shard, offset, size, sides, sides, crc, labels, np.array([0, count]), start
    )


def to_float(images: torch.Tensor) -> torch.Tensor:
    """Turn uint8 NHWC memory into float CHW in [-1, 1], once a batch."""
    out = torch.empty(images.shape)
    return out.copy_(images).sub_(127.5).mul_(1 / 127.5)


def ours(images: SmallSet, config: Augment, backend: str) -> Iterator[int]:
    order = PlainOrder(images, 0)
    loader = TrainLoader(
        order,
        images,
        seed=0,
        rank=0,
        world=1,
        batch=BATCH,
        view=view_of(config, (SIDE, SIDE)),
        backend=backend,
        threads=THREADS,
        ahead=4,
    )
    loader.start(0)
    try:
        while True:
            yield len(to_float(loader.next().images["image"]))
    finally:
        loader.close()


def _random_crop(wide: int, high: int) -> tuple[int, int, int, int]:
    """Draw a random resized crop by scalar code, as such pipelines do: one sample at a time."""
    for _ in range(10):
        area = wide * high * random.uniform(*CROPS.crop_area)
        ratio = math.exp(random.uniform(math.log(CROPS.crop_ratio[0]), math.log(CROPS.crop_ratio[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= wide and 0 < h <= high:
            return random.randint(0, wide - w), random.randint(0, high - h), w, h
    return 0, 0, wide, high


def _pil(data: bytes, crop: bool) -> torch.Tensor:
    from PIL import Image

    image: Any = Image.open(io.BytesIO(data)).convert("RGB")
    if crop:
        x, y, w, h = _random_crop(*image.size)
        image = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=(x, y, x + w, y + h))
    pixels = np.asarray(image)
    if random.random() < 0.5:
        pixels = pixels[:, ::-1]
    chw = np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)
    return torch.from_numpy((chw - 127.5) / 127.5)


def webdataset_pil(source: SmallSet, config: Augment) -> Iterator[int]:
    """Run the usual pipeline: webdataset's reading and shuffling, PIL, two worker processes."""
    import webdataset

    crop = config is CROPS
    data = (
        webdataset.WebDataset([str(path) for path in source.shards], shardshuffle=SHARDS)
        .shuffle(1000)
        .repeat()
        .to_tuple("jpg", "cls")
        .map_tuple(lambda jpeg: _pil(jpeg, crop), int)
        .batched(BATCH, partial=False)
    )
    loader = webdataset.WebLoader(data, batch_size=None, num_workers=2, prefetch_factor=4)
    for images, _ in loader:
        yield len(images)


def dali_reader(source: SmallSet, config: Augment) -> Iterator[int]:
    """Run DALI's own webdataset reader and shuffle buffer, and the operators that our backend uses."""
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def(batch_size=BATCH, num_threads=THREADS, device_id=None, prefetch_queue_depth=4, seed=0)
    def pipeline() -> Any:
        jpeg, _ = fn.readers.webdataset(
            paths=[str(path) for path in source.shards],
            index_paths=[str(path.with_suffix(".idx")) for path in source.shards],
            ext=["jpg", "cls"],
            dtypes=[types.UINT8, types.UINT8],
            random_shuffle=True,
            initial_fill=1024,
            missing_component_behavior="error",
        )
        if config is CROPS:
            images = fn.decoders.image_random_crop(jpeg, random_area=[0.08, 1.0])
            images = fn.resize(images, size=(SIDE, SIDE))
        else:
            images = fn.decoders.image(jpeg)
        return fn.flip(images, horizontal=fn.random.coin_flip())

    built = pipeline()
    built.build()
    while True:
        (images,) = built.run()
        yield len(to_float(torch.from_numpy(np.array(images.as_array())).permute(0, 3, 1, 2)))


def cpu_seconds() -> float:
    """Return the user and system time of this process and its living children, in seconds."""
    total = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        times = process.cpu_times()
        total += times.user + times.system
    return total


def timed(source: Iterator[int], images: int) -> tuple[float, float]:
    """Return (images/s, images per CPU-second) of the next `images` images, after those in the queues."""
    for _ in range(10):
        next(source)
    cpu, begin, done = cpu_seconds(), time.perf_counter(), 0
    while done < images:
        done += next(source)
    return done / (time.perf_counter() - begin), done / max(cpu_seconds() - cpu, 1e-6)


def measure(rows: dict[str, Callable[[], Iterator[int]]], rounds: int, images: int) -> dict[str, list[float]]:
    """Return medians of images/s and images per CPU-second; variants in turn, each alone on the machine."""
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
    for number in range(rounds):
        shift = int(counter_rng.uniform(counter_rng.key(number), np.array([0]), 1)[0, 0] * len(rows))
        for name in [*rows][shift:] + [*rows][:shift]:
            source = rows[name]()
            measured[name].append(timed(source, images))
            source.close()  # type: ignore[attr-defined]
    return medians_of_columns(measured)


def main() -> int:
    args = arguments(__doc__, images=(4000, "packed, and timed in each round"), rounds=5)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, side, config in (("faces", 112, FACES), ("crops", 256, CROPS)):
            images = pack(Path(folder, kind), args.images, side)
            mean = images.size.mean()
            print(f"{kind}: {len(images)} images {side}x{side}, {mean:,.0f} bytes in the mean", flush=True)
            rows: dict[str, Callable[[], Iterator[int]]] = {
                "ours, host": lambda p=images, c=config: ours(p, c, "host"),
                "ours, dali": lambda p=images, c=config: ours(p, c, "dali"),
                "webdataset + PIL, 2 workers": lambda p=images, c=config: webdataset_pil(p, c),
                "DALI's own reader": lambda p=images, c=config: dali_reader(p, c),
            }
            results[kind] = measure(rows, args.rounds, args.images)
    return report(results)


def report(results: dict[str, dict[str, list[float]]]) -> int:
    print("| task | variant | images/s | images per CPU-second |\n|---|---|---|---|")
    for kind, rows in results.items():
        for name, (wall, cpu) in rows.items():
            print(f"| {kind} | {name} | {wall:,.0f} | {cpu:,.0f} |")
    ratios, fastest = {}, {}
    for kind, rows in results.items():
        fastest[kind] = max(("ours, host", "ours, dali"), key=lambda name: rows[name][0])
        ratios[f"{kind} / webdataset+PIL"] = rows[fastest[kind]][0] / rows["webdataset + PIL, 2 workers"][0]
    faces = results["faces"]
    ratios["own order / DALI reader"] = faces["ours, dali"][1] / faces["DALI's own reader"][1]
    print("| ratio | measured | bar |\n|---|---|---|")
    for name, bar in BARS.items():
        print(f"| {name} | {ratios[name]:.2f} | >= {bar} |")
    for kind, name in fastest.items():
        print(f"{kind}: the faster backend of ours is `{name.split()[1]}`")
    passed = all(ratios[name] >= bar for name, bar in BARS.items())
    print(json.dumps({"bench": "load", "passed": passed, "ratios": ratios, "fastest": fastest, **results}))
    return 0 if passed else 1


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
