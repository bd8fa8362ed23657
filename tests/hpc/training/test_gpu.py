"""Tests that need a GPU: bf16, DALI's mixed decoding, deterministic resume, DeepSpeed, waits; NCCL on two."""

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hpc import train
from hpc.config.optimizers import OPTIMIZERS
from hpc.config.schema import Data, DeepSpeed, Engine, Evaluate, Log, Optim, Save
from hpc.distributed.comm import Comm
from hpc.optim import build
from hpc.optim.guard import guarded
from hpc.runs.run_dir import RunDir
from hpc.task import Task, build_task
from launch.audit.compare import differences, elastic_differences, records, series
from tests.support.centres import Centres
from tests.support.rivals import Rivals
from tests.support.runs import finish, make_run, start
from tests.support.sets import pack_set

GPUS = torch.cuda.device_count()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not GPUS, reason="no NVIDIA GPU")]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_set(tmp_path_factory.mktemp("set"))


def on_gpu(path: Path, shards: Path, *, backend: str, procs: int = 1, **changes: Any) -> Path:
    data = Data(
        train=str(shards / "train"),
        eval=str(shards / "eval"),
        size=32,
        order="groups",
        backend=backend,
        threads=1,
    )
    changes = {"precision": "bf16", "deterministic": True, "procs": procs} | changes
    return make_run(path, shards, data=data, **changes)


@pytest.mark.parametrize("backend", ["host", "dali"])
def test_a_killed_bf16_run_equals_a_straight_one(tmp_path: Path, shards: Path, backend: str) -> None:
    straight = on_gpu(tmp_path / "straight", shards, backend=backend)
    assert [code for code, *_ in finish(start(straight))] == [0]
    killed = on_gpu(tmp_path / "killed", shards, backend=backend)
    assert finish(start(killed, variables={"ROSTRO_FAULT": "step@200"}))[0][0] == -9
    assert [code for code, *_ in finish(start(killed))] == [0]
    assert differences(straight, killed) == []


@pytest.mark.skipif(GPUS < 2, reason="fewer than two NVIDIA GPUs")
def test_two_ranks_by_nccl_see_the_samples_of_one(tmp_path: Path, shards: Path) -> None:
    runs, seen = [], []
    for procs in (1, 2):
        run = on_gpu(tmp_path / f"procs{procs}", shards, backend="dali", procs=procs)
        assert [code for code, *_ in finish(start(run, procs))] == [0] * procs
        runs.append(series(run))
        seen.append([line for line in records(run) if line["group"] == "data"])
    assert seen[0] == seen[1] != []
    assert runs[0]["loss/embed"][0][1] == pytest.approx(runs[1]["loss/embed"][0][1], rel=0.05)


def zero(stage: int, *, offload: bool = False) -> Engine:
    return Engine(name="deepspeed", deepspeed=DeepSpeed(stage=stage, offload=offload))


@pytest.mark.parametrize("procs", [1, pytest.param(2, marks=pytest.mark.skipif(GPUS < 2, reason="one GPU"))])
@pytest.mark.parametrize("engine", [*map(zero, range(4)), zero(2, offload=True), zero(3, offload=True)])
def test_deepspeed_trains_as_ddp_does(tmp_path: Path, shards: Path, engine: Engine, procs: int) -> None:
    runs = []
    for name, chosen in (("ddp", Engine()), ("zero", engine)):
        more = {"engine": chosen, "precision": "fp32", "norm_stats": "group"}
        runs.append(on_gpu(tmp_path / name, shards, backend="host", procs=procs, **more))
        assert [code for code, *_ in finish(start(runs[-1], procs))] == [0] * procs
    assert elastic_differences(*runs, 1e-3)[0] == []


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_killed_run_of_deepspeed_equals_a_straight_one(tmp_path: Path, shards: Path, stage: int) -> None:
    runs = []
    for name, faults in (("straight", [None]), ("killed", ["step@200", None])):
        runs.append(on_gpu(tmp_path / name, shards, backend="host", engine=zero(stage)))
        for fault in faults:
            ended = finish(start(runs[-1], variables={"ROSTRO_FAULT": fault} if fault else {}))
            assert ended[0][0] == (-9 if fault else 0)
    assert differences(*runs) == []


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("job", "engine"), [(build_task, "ddp"), (Rivals, "flat"), (Centres, "flat")])
def test_an_update_waits_for_nothing_but_the_numbers_of_the_one_before(
    tmp_path: Path,
    shards: Path,
    monkeypatch: pytest.MonkeyPatch,
    job: Callable[[Any], Task],
    engine: str,
    precision: str,
) -> None:
    """torch raises at any other wait: those for an event, as the exchange's, are not among them."""
    monkeypatch.setattr(train, "build_task", job)
    options: dict[str, Any] = {"save": Save(every=1000), "eval": Evaluate(every=1000), "log": Log(every=1000)}
    options |= {"engine": Engine(name=engine), "precision": precision, "deterministic": False}
    run = on_gpu(tmp_path / "run", shards, backend="host", **options)
    comm = Comm(device=torch.device("cuda", 0))
    with contextlib.closing(train.Trainer(RunDir(run), comm)) as trainer:
        for _ in range(2):  # kernels are chosen, memory is taken
            trainer.step()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(3):
                before = trainer.clock
                trainer.step()
                trainer._after_step(before)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert {count for _, count in trainer.means.sums.values()} == {4}
        assert all(math.isfinite(total) for total, _ in trainer.means.sums.values())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_gradient_that_is_not_finite_is_kept_out_without_a_wait(name: str) -> None:
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 4).cuda()
    optimizer = build.build_optimizer(Optim(name=name, momentum=0.9), list(net.named_parameters()))
    for bad in (True, False, True):
        before = [p.detach().clone() for p in net.parameters()]
        for p in net.parameters():
            p.grad = torch.full_like(p, torch.nan if bad else 1.0)
        finite = torch.isfinite(net.weight.grad.norm())
        torch.cuda.set_sync_debug_mode("error")
        try:
            with guarded(optimizer, finite):
                optimizer.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert all(bool(p.isfinite().all()) for p in net.parameters())
        if name in ("sgd", "adam", "adamw"):
            pairs = zip(before, net.parameters(), strict=True)
            assert all(torch.equal(old, new) == bad for old, new in pairs)
