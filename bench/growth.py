"""A StyleGAN at each of its levels from images of 1024 pixels: images a second, and the wait for data.

`python bench/growth.py` packs photo-like images of 1024 pixels (JPEG, quality 95, no chroma subsampling) with
`rostro pack twins=[64,256]` and trains the job `stylegan` of width 64, an eighth of its own, for some updates
at each level from 8 pixels on, with and without the twins, in interleaved rounds. One rank; one thread
computes, another one decodes. Bar: with twins no more than 5 % of the time is spent waiting for data, at any
level. Prints one table and one JSON line; exit code 1 where the bar is missed.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import torch

from bench.support.figures import arguments, medians_of_columns
from bench.support.steps import make_trainer
from bench.twins import TWINS, pack
from hpc.config.schema import Config
from hpc.train import Trainer
from launch.options.compose import composed

BAR = 0.05  # of the time
BATCHES = {8: 64, 16: 64, 32: 32, 64: 8, 128: 4, 256: 4, 512: 4, 1024: 4}  # by pixels
LEAST = 1  # update that is timed
VARIANTS: dict[str, list[int]] = {"twins": TWINS, "originals": []}


def config(train: Path, pixels: int, width: int, twins: list[int]) -> Config:
    """The job at one of its levels, which is its first and last one here."""
    words = ["task=stylegan", "images=1_000_000_000", f"data.train={train}", f"data.size={pixels}"]
    words += [f"task.start={pixels}", f"task.width={width}", "task.latents=128", "task.rates=[1.0]"]
    words += [f"task.batches=[{BATCHES[pixels]}]", f"data.twins={twins}".replace(" ", "")]
    words += ["precision=fp32", "data.backend=host", "data.threads=1", "log.every=1_000_000_000"]
    return composed(words)


def timed(trainer: Trainer, seconds: float) -> tuple[float, float]:
    """Return images a second, and the share of the time that the step waits for data.

    What has been decoded ahead is used up first; where an update takes seconds, decoding is ahead anyway.
    """
    start = time.perf_counter()
    for _ in range(trainer.config.data.ahead + 1):
        trainer.step()
        if time.perf_counter() - start > 3 * seconds:
            break
    start, waited, clock, updates = time.perf_counter(), trainer.loader.waited, trainer.clock, 0
    while updates < LEAST or time.perf_counter() - start < seconds:
        trainer.step()
        updates += 1
    took = time.perf_counter() - start
    return (trainer.clock - clock) / took, (trainer.loader.waited - waited) / took


def main() -> int:
    options = arguments(
        __doc__, images=(64, "in the set"), rounds=2, seconds=(1, "of a level in each round"), width=64
    )
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    measured: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train = Path(pack(folder, options.images).folder)
        for turn in range(options.rounds):
            for pixels in BATCHES:
                for kind, twins in VARIANTS.items():
                    run = folder / f"run-{pixels}-{kind}-{turn}"
                    trainer = make_trainer(config(train, pixels, options.width, twins), run)
                    measured.setdefault(f"{pixels} {kind}", []).append(timed(trainer, options.seconds))
                    trainer.close()
    found = medians_of_columns(measured)
    print("| pixels | batch | images/s with twins | wait | images/s without | wait |")
    print("|---|---|---|---|---|---|")
    for pixels, batch in BATCHES.items():
        (rate, wait), (slower, longer) = (found[f"{pixels} {kind}"] for kind in VARIANTS)
        print(f"| {pixels} | {batch} | {rate:,.2f} | {wait:.1%} | {slower:,.2f} | {longer:.1%} |")
    worst = max(found[f"{pixels} twins"][1] for pixels in BATCHES)
    without = max(found[f"{pixels} originals"][1] for pixels in BATCHES)
    print(f"longest wait with twins {worst:.1%} (bar {BAR:.0%}), without {without:.1%}")
    figures = {"wait with twins": worst, "wait without": without}
    print(json.dumps({"bench": "growth", "passed": worst <= BAR, "figures": figures, "levels": found}))
    return int(worst > BAR)


if __name__ == "__main__":
    sys.exit(main())
