"""Measures the cost of joining two processes: DDP against two that never meet, ZeRO-1 against DDP with Adam.

`python bench/engines.py` starts two ranks of one thread and times whole updates (forward, backward,
gradients, Adam) of the siamese job on a batch in memory, in interleaved rounds; the slower rank counts. DDP
is compared with independent processes where DeepSpeed is not loaded, as in a run of its own, and again with
the ZeRO stages where it is. Bars: DDP of 2 <= 1.15 x two independent processes; ZeRO-1 <= 1.3 x DDP. Prints
one table and one JSON line; exit code 1 where a bar is missed.
"""

import contextlib
import json
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.support.figures import arguments, medians, ratio, show

BARS = {"ddp / independent": 1.15, "zero1 / ddp": 1.3}
TASK = {"name": "siamese", "trunk": "googlenet", "embedding": 128, "loss": "contrastive"}
TASK |= {"margin": 1.0, "temperature": 0.1, "mirror": False}
SHARE, SIZE, WORLD = 16, 64, 2
# The first of a group is what the others are compared with.
GROUPS = (("independent", "ddp"), ("ddp", "zero0", "zero1", "zero2", "zero3"))


class Variant:
    """One network under one engine, and the batch that it sees again and again."""

    def __init__(self, name: str, comm: Any) -> None:
        import torch

        from hpc.config.schema import Config, DeepSpeed, Engine, Optim
        from hpc.distributed.comm import Comm
        from hpc.task import Batch
        from hpc.tasks.siamese import Siamese
        from hpc.training.player import Player

        self.comm = Comm() if name == "independent" else comm
        engine = {"independent": "flat", "ddp": "ddp"}.get(name, "deepspeed")
        stage = int(name[-1]) if engine == "deepspeed" else 0
        config = Config(
            batch=SHARE * self.comm.world,
            optim=Optim(name="adam"),
            engine=Engine(name=engine, deepspeed=DeepSpeed(stage=stage)),
            task=TASK,
        )
        torch.manual_seed(0)
        self.task = Siamese(config)
        self.task.comm = self.comm
        self.player = Player("net", self.task.players()["net"], config, self.comm)
        rows = torch.arange(SHARE) + comm.rank * SHARE
        images = torch.randn(SHARE, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
        self.batch = Batch({"image": images}, {"identity": rows // 4}, rows[:, None], rows)

    def step(self) -> None:
        from hpc.task import Phase
        from hpc.training.accumulation import BackwardPass

        player = self.player
        player.optimizer.zero_grad(set_to_none=True)
        phase = Phase("embed", "net", coupled=True)
        passes = BackwardPass(
            self.task,
            phase,
            {"net": player.engine},
            clock=0,
            seed=lambda _: None,
            autocast=contextlib.nullcontext,
        )
        passes.backward(self.batch, [slice(0, SHARE)])
        player.engine.reduce()
        player.update(1e-3, player.norm_of_gradient())


def rank_main(
    rank: int, folder: str, names: tuple[str, ...], rounds: int, steps: int
) -> dict[str, list[float]]:
    """Return the seconds of an update by variant and round, of the slower rank."""
    import torch

    from hpc.distributed import collectives
    from hpc.distributed.comm import connect, disconnect

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(WORLD), "LOCAL_RANK": str(rank)}
    comm = connect(Path(folder), timeout=300, device="cpu")
    variants = {name: Variant(name, comm) for name in names}
    rows: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-1, rounds):
        for name, variant in variants.items():
            collectives.gather_vector([0.0], comm)  # both begin together
            start = time.perf_counter()
            for _ in range(steps if number >= 0 else 2):
                variant.step()
            spent = (time.perf_counter() - start) / steps
            slower = max(value for (value,) in collectives.gather_vector([spent], comm))
            if number >= 0:
                rows[name].append(slower)
    disconnect()
    return rows


def main() -> int:
    options = arguments(__doc__, rounds=15, steps=4)
    os.environ.pop("MASTER_ADDR", None)
    seconds: dict[str, float] = {}
    ratios: dict[str, float] = {}
    for names in GROUPS:
        with (
            tempfile.TemporaryDirectory() as folder,
            multiprocessing.get_context("spawn").Pool(WORLD) as pool,
        ):
            jobs = [(rank, folder, names, options.rounds, options.steps) for rank in range(WORLD)]
            rows = pool.starmap(rank_main, jobs, chunksize=1)[0]
        seconds = medians(rows) | seconds
        for name in names[1:]:
            ratios[f"{name} / {names[0]}"] = ratio(rows, name, names[0])
    head = f"GoogLeNet, {WORLD} x {SHARE} images of {SIZE} px"
    passed = show(head, dict(sorted(seconds.items())), ratios, BARS, column="ms an update")
    print(json.dumps({"bench": "engines", "seconds": seconds, "ratios": ratios, "bars": BARS}))
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
