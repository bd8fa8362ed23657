"""Grids of a run that generates: of the average and of the raw network, the same after a resume."""

import contextlib
import shutil
from pathlib import Path

import cv2
import pytest
import torch

from hpc import train
from hpc.checkpoints import store
from hpc.config.parse import save_config
from hpc.distributed.comm import Comm
from hpc.runs.run_dir import RunDir
from hpc.training.validation import monitor_images
from launch.options.compose import composed
from tests.support.ranks import launch
from tests.support.sets import pack_set
from tests.support.tiny import train_until

CLOCKS = (32, 64, 96, 112)


def run_of(path: Path, job: str, shards: Path, *words: str) -> str:
    small = ["smoke=true", "images=112", "save.every=32", "eval.every=32", "save.last=9", "data.backend=host"]
    small += ["task.fade=16"] if job == "stylegan" else []  # 16 pixels are there before the run ends
    config = composed([f"task={job}", *small, f"data.train={shards / 'train'}", *words])
    path.mkdir()
    save_config(config, path / "config.yaml")
    return str(path)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_set(tmp_path_factory.mktemp("set"), identities=8, each=4)


def grids(run: str) -> dict[str, bytes]:
    folder = Path(run) / "samples"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


@pytest.mark.parametrize("job", ["dcgan", "stylegan"])
def test_grids_of_average_and_raw_network_survive_a_kill(tmp_path: Path, shards: Path, job: str) -> None:
    whole = run_of(tmp_path / "whole", job, shards, "procs=2")
    launch(train_until, 2, whole, [])
    wanted = grids(whole)
    names = [f"{kind}/{clock:012}.png" for kind in ("generated", "generated_raw") for clock in CLOCKS]
    assert list(wanted) == names
    assert len(set(wanted.values())) == len(names)  # the average is not the raw network, nor a level another
    killed = Path(shutil.copytree(whole, tmp_path / "killed"))
    for path in store.listing(killed)[2:]:
        shutil.rmtree(path)
    (killed / "samples" / "generated" / "000000000080.png").write_bytes(b"of a start that was killed")
    assert launch(train_until, 2, str(killed), []) == [[64]] * 2
    assert grids(str(killed)) == wanted


def test_a_run_without_average_shows_its_network_once(tmp_path: Path, shards: Path) -> None:
    run = run_of(tmp_path / "run", "dcgan", shards, "ema.half_life=0", "images=32")
    train_until(Comm(), run, [])
    assert list(grids(run)) == ["generated/000000000032.png"]


def test_the_same_latents_are_shown_at_every_level_and_nothing_moves(tmp_path: Path, shards: Path) -> None:
    run = run_of(tmp_path / "run", "stylegan", shards)
    with contextlib.closing(train.Trainer(RunDir(Path(run)), Comm())) as trainer:
        trainer.step()
        before = [t.clone() for p in trainer.players.values() for t in p.module.state_dict().values()]
        found = monitor_images(trainer.task, trainer.players, trainer.helpers, trainer.batch, trainer.clock)
        after = [t for p in trainer.players.values() for t in p.module.state_dict().values()]
        assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
        assert all(player.module.training for player in trainer.players.values())
    assert [(shown.name, shown.keep, len(shown.images)) for shown in found] == [
        ("generated", True, 32),
        ("batch", False, 16),
        ("generated_raw", True, 32),
    ]
    train_until(Comm(), run, [])
    sheets = [cv2.imread(str(Path(run) / "samples" / "generated" / f"{clock:012}.png")) for clock in CLOCKS]
    assert [sheet.shape[0] for sheet in sheets] == [6 * (side + 2) + 2 for side in (8, 8, 16, 16)]
