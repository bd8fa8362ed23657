"""The trainer as real processes: signals, dead and hanging ranks, NaN, a full disk, locks, evaluation on any
world.
"""

import contextlib
import json
import os
import random
import resource
import signal
import time
from pathlib import Path

import pytest
import torch

from data_shards.errors import UserError
from hpc import train
from hpc.checkpoints import store
from hpc.config.schema import Data, Ema, Evaluate, Log, Optim, Save
from hpc.data import loaders
from hpc.distributed.comm import Comm
from hpc.runs.run_dir import RunDir
from hpc.task import build_task
from hpc.training import step_sync
from launch.audit.compare import differences, records, series
from tests.support.ranks import launch
from tests.support.runs import finish, make_run, start, wait_for
from tests.support.sets import pack_set


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """An undisturbed run of 2 ranks."""
    run = make_run(tmp_path_factory.mktemp("runs") / "straight", shards, procs=2)
    assert [code for code, *_ in finish(start(run, 2))] == [0, 0]
    return run


def clock(run: Path) -> int:
    return int(RunDir(run).status().get("clock", 0) or 0)


def test_a_straight_run_leaves_everything_a_user_looks_for(straight: Path) -> None:
    status = json.loads((straight / "status.json").read_text())
    assert (status["state"], status["clock"]) == ("finished", 320)
    assert 0.0 <= status["metrics"]["verification/eer"] <= 0.5
    assert int(store.listing(straight)[-1].name) == 320
    curves = series(straight)
    assert {"loss/embed", "optim/lr", "optim/grad_norm", "metrics/verification/eer"} <= curves.keys()
    assert sum(line["group"] == "data" for line in records(straight)) == 10
    assert [step for step, _ in curves["loss/embed"]] == list(range(32, 321, 32))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_at_the_step_boundary_and_the_resumed_run_is_the_same(
    tmp_path: Path, shards: Path, straight: Path, number: signal.Signals
) -> None:
    run = make_run(tmp_path / "run", shards, procs=2)
    ranks = start(run, 2)
    wait_for(lambda: clock(run) >= 64)
    ranks[1].send_signal(number)  # one rank is told; both leave
    assert [code for code, *_ in finish(ranks)] == [0, 0]
    stopped = RunDir(run).status()
    assert stopped["state"] == "stopped"
    assert int(store.listing(run)[-1].name) == stopped["clock"] < 320
    assert [code for code, *_ in finish(start(run, 2))] == [0, 0]
    assert differences(straight, run) == []


@pytest.mark.parametrize("length", [320, 100_000])
def test_signals_are_handled_until_the_process_ends(tmp_path: Path, shards: Path, length: int) -> None:
    """As torchrun forwards them; also after the loop: while it saves, writes its status and closes."""
    run = make_run(tmp_path / "run", shards, images=length, log=Log(every=16))
    (rank,) = start(run, fork=False)
    wait_for(lambda: clock(run) >= min(length, 320))
    draw = random.Random(length)
    while rank.poll() is None:
        rank.send_signal(draw.choice([signal.SIGTERM, signal.SIGUSR1]))
        time.sleep(draw.uniform(0.001, 0.03))
    assert [code for code, *_ in finish([rank])] == [0]
    status = RunDir(run).status()
    assert status["state"] == ("finished" if length == 320 else "stopped")
    assert int(store.listing(run)[-1].name) == status["clock"]


def test_a_dead_rank_ends_the_others_and_nothing_older_is_lost(
    tmp_path: Path, shards: Path, straight: Path
) -> None:
    run = make_run(tmp_path / "run", shards, procs=2)
    found = finish(start(run, 2, variables={"ROSTRO_FAULT": "step@200/1"}))
    assert found[1][0] == -signal.SIGKILL
    assert found[0][0] == 1
    assert "lost another rank" in found[0][2].splitlines()[-1]
    assert RunDir(run).status()["state"] == "failed"
    assert [code for code, *_ in finish(start(run, 2))] == [0, 0]
    assert differences(straight, run) == []


def test_a_hanging_rank_ends_the_run_after_the_timeout(tmp_path: Path, shards: Path) -> None:
    run = make_run(tmp_path / "run", shards, procs=2, hang_timeout=5, images=100_000, log=Log(every=16))
    ranks = start(run, 2)
    wait_for(lambda: clock(run) >= 32)
    ranks[1].send_signal(signal.SIGSTOP)
    code, _, err = finish(ranks[:1])[0]
    ranks[1].kill()
    ranks[1].communicate()
    assert code == 1
    assert "lost another rank" in err.splitlines()[-1]


def test_a_loss_that_is_not_finite_stops_all_ranks_at_once(tmp_path: Path, shards: Path) -> None:
    run = make_run(tmp_path / "run", shards, procs=2, optim=Optim(lr=1e30, name="sgd"))
    found = finish(start(run, 2))
    assert [code for code, *_ in found] == [1, 1]
    for _, _, err in found:
        line = err.strip().splitlines()[-1]
        assert line.startswith("error: ")
        assert all(word in line for word in ("not finite", "rank", "phase embed", "clock", "sample ids"))
    assert not store.listing(run)


def test_a_full_disk_while_saving_is_one_line_and_loses_nothing(tmp_path: Path, shards: Path) -> None:
    run = make_run(tmp_path / "run", shards)
    assert finish(start(run, variables={"ROSTRO_FAULT": "step@112"}))[0][0] == -signal.SIGKILL
    assert [int(path.name) for path in store.listing(run)] == [96]

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (350_000, 350_000))

    code, _, err = finish(start(run, preexec_fn=small_files))[0]
    assert code == 1
    assert len(err.strip().splitlines()) == 1
    assert "was not saved" in err
    assert "free space" in err
    assert [path.name for path in store.folder_of(run).iterdir()] == [f"{96:012d}"]
    store.verify(store.listing(run)[0])


def test_a_run_in_use_is_refused(tmp_path: Path, shards: Path) -> None:
    run = make_run(tmp_path / "run", shards, images=100_000, log=Log(every=16))
    first = start(run)
    wait_for(lambda: clock(run) >= 16)
    code, _, err = finish(start(run))[0]
    assert code == 1
    assert "in use by a living job" in err.strip().splitlines()[-1]
    first[0].send_signal(signal.SIGTERM)
    assert finish(first)[0][0] == 0
    assert RunDir(run).status()["state"] == "stopped"


@pytest.mark.parametrize("backend", ["host", "dali"])
def test_an_image_that_does_not_decode_stops_the_run_and_is_named(tmp_path: Path, backend: str) -> None:
    shards = pack_set(tmp_path / "set", identities=8, each=3)
    tar = next(iter((shards / "train").glob("*.tar")))
    data = bytearray(tar.read_bytes())
    start_of_image = data.index(b"\xff\xd8\xff")
    data[start_of_image : start_of_image + 300] = bytes(300)
    tar.write_bytes(data)
    settings = Data(train=str(shards / "train"), size=32, order="groups", backend=backend, threads=1)
    code, _, err = finish(start(make_run(tmp_path / "run", shards, data=settings)))[0]
    assert code == 1
    line = err.strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert tar.name in line


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_a_streamed_run_trains_on_genuine_pairs(tmp_path: Path, kind: str) -> None:
    shards = pack_set(tmp_path, shard_mb=0.05)
    tars = sorted((shards / "train").glob("*.tar"))
    last = tars[-1].stem[-6:]
    assert int(last) > 2
    source = str(shards / "train")
    if kind == "pipe":
        source = f"pipe:cat {tars[0]}".replace("000000", f"{{000000..{last}}}")
    settings = Data(
        train=source,
        eval=str(shards / "eval"),
        size=32,
        order="groups",
        group=4,
        stream=True,
        backend="host",
        threads=1,
    )
    run = make_run(tmp_path / "run", shards, data=settings, images=160, log=Log(every=16))
    config = RunDir(run).config()
    job = build_task(config)
    loader = loaders.train_loader(config, job, {}, job.stage(0), Comm(0, 1, 0, torch.device("cpu")))
    loader.start(0)
    groups = loader.next().labels["identity"].reshape(-1, 4)
    loader.close()
    assert (groups == groups[:, :1]).all()
    assert len(groups.unique()) > 1
    assert [code for code, *_ in finish(start(run))] == [0]
    assert RunDir(run).status()["state"] == "finished"
    curves = series(run)
    # Exactly 0 where a batch has no such pair.
    genuine = [value for _, value in curves["loss/cosine_genuine"]]
    assert len(genuine) == 10
    assert all(genuine)
    assert 0.0 <= curves["metrics/verification/eer"][-1][1] <= 0.5


def test_a_checkpoint_of_another_config_is_refused(tmp_path: Path, shards: Path, straight: Path) -> None:
    run = make_run(tmp_path / "run", shards, seed=7)
    os.symlink(straight / "checkpoints", run / "checkpoints")
    code, _, err = finish(start(run))[0]
    assert code == 1
    assert "seed=0" in err
    assert "seed=7" in err


def _fit(run: Path) -> None:
    """One rank, in this process."""
    trainer = train.Trainer(RunDir(run), Comm(0, 1, 0, torch.device("cpu")))
    with contextlib.closing(trainer), contextlib.suppress(ConnectionError):
        trainer.fit()


def test_a_save_inside_a_tick_leaves_the_lines_as_they_were(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first name is what `status` shows as the loss: a resume must not sort them."""
    sizes = {"images": 128, "save": Save(every=48), "eval": Evaluate(every=0), "log": Log(every=64)}
    straight, killed = (make_run(tmp_path / name, shards, **sizes) for name in ("straight", "killed"))
    _fit(straight)

    def die(place: str, clock: int, rank: int = 0) -> None:
        if clock == 112:
            raise ConnectionError

    with monkeypatch.context() as patched:
        patched.setattr(train.fault_injection, "crash_point", die)
        _fit(killed)
    assert [int(path.name) for path in store.listing(killed)][-1] == 96  # between the ticks at 64 and 128
    _fit(killed)
    lines = [
        [line for line in (run / "metrics.jsonl").read_bytes().splitlines() if b'"perf"' not in line]
        for run in (straight, killed)
    ]
    assert lines[0] == lines[1]
    assert RunDir(killed).status()["loss"] == RunDir(straight).status()["loss"]


def test_foreign_code_is_refused(tmp_path: Path, shards: Path) -> None:
    run = make_run(tmp_path / "run", shards)
    (run / "code").unlink()
    (run / "code").mkdir()
    code, _, err = finish(start(run))[0]
    assert code == 1
    assert "this run's code is" in err


def out_of_step(comm: Comm, run: str) -> str:
    trainer = train.Trainer(RunDir(Path(run)), comm)
    try:
        step_sync.compare_ranks(trainer.players, trainer.clock, comm)
        if comm.rank == 1:
            with torch.no_grad():
                trainer.players["net"].module.embed.bias[3] += 1e-7
        step_sync.compare_ranks(trainer.players, trainer.clock, comm)
    except UserError as error:
        return str(error)
    finally:
        trainer.close()
    return "nothing noticed"


def test_ranks_out_of_step_are_noticed_by_tensor_and_rank(tmp_path: Path, shards: Path) -> None:
    run = make_run(tmp_path / "run", shards, procs=2)
    for text in launch(out_of_step, 2, str(run)):
        assert "net.embed.bias of rank 1 differs" in text


def test_images_move_nothing_where_no_average_is_kept(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", shards, ema=Ema(half_life=0))
    with contextlib.closing(train.Trainer(RunDir(run), Comm())) as trainer:
        seen: list[bool] = []

        def images(nets: dict[str, torch.nn.Module], *_: object) -> dict[str, torch.Tensor]:
            seen.extend(layer.training for layer in nets["net"].modules())
            return {}

        monkeypatch.setattr(trainer.task, "images", images)
        while trainer.clock < 160:
            before = trainer.clock
            trainer.step()
        trainer._interval_start = (0.0, 0, 0.0)
        trainer._after_step(before)
        assert seen
        assert not any(seen)
        assert trainer.players["net"].module.training


def evaluated(comm: Comm, run: str) -> dict[str, float]:
    trainer = train.Trainer(RunDir(Path(run)), comm)
    try:
        return trainer.evaluate()
    finally:
        trainer.close()


def test_evaluation_gives_the_same_figures_on_any_number_of_ranks(
    tmp_path: Path, shards: Path, straight: Path
) -> None:
    found = []
    for world in (1, 2, 3, 5):
        run = make_run(tmp_path / f"run{world}", shards, procs=world, batch=60, data=_data(shards))
        found += launch(evaluated, world, str(run))
    assert len(found) == 11
    assert found[0]["verification/eer"] > 0
    assert all(scalars == found[0] for scalars in found[1:])  # digit by digit


def _data(shards: Path) -> Data:
    return Data(train=str(shards / "train"), eval=str(shards / "eval"), size=32, order="plain", threads=1)


def test_a_task_reports_no_scalar_by_the_trainers_names(tmp_path, shards):
    trainer = train.Trainer(RunDir(make_run(tmp_path / "run", shards, images=32)), Comm())
    try:
        for name in ("loss", "norm"):
            with pytest.raises(UserError, match="use another name"):
                trainer.task.report(name, torch.ones(()))
    finally:
        trainer.close()
