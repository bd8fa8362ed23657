"""data.stage in a run: ranks read the copy, the numbers stay, a failure on one node ends all."""

import dataclasses
import fcntl
import os
import shutil
from pathlib import Path

import pytest

from data_shards.errors import UserError
from data_shards.loading import node_cache as copies
from hpc.checkpoints import store
from hpc.cluster.signals import StopReason
from hpc.config.check import check
from hpc.config.identity import is_free
from hpc.config.schema import Config, Data
from hpc.data import staging
from hpc.distributed.comm import Comm
from launch.audit.compare import differences
from tests.support.ranks import launch
from tests.support.runs import TASK, data_of, finish, make_run, start
from tests.support.sets import pack_set


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_set(tmp_path_factory.mktemp("set"))


def test_a_staged_run_reads_the_copy_and_equals_one_that_does_not(tmp_path: Path, shards: Path) -> None:
    plain = make_run(tmp_path / "plain", shards, procs=2)
    assert [code for code, *_ in finish(start(plain, 2))] == [0, 0]
    source = tmp_path / "source"
    shutil.copytree(shards, source)
    run = make_run(tmp_path / "run", source, procs=2, data=data_of(source, stage="$NODE_DISK/rostro"))
    node = {"NODE_DISK": str(tmp_path / "node")}
    found = finish(start(run, 2, variables=node | {"ROSTRO_FAULT": "step@112"}))
    assert [int(path.name) for path in store.listing(run)] == [96], found
    for shard in source.rglob("*.tar"):  # the requeued job finds its copy
        shard.unlink()
    found = finish(start(run, 2, variables=node))
    assert [code for code, *_ in found] == [0, 0], found
    assert "staged in $NODE_DISK/rostro" in found[0][1]
    assert differences(plain, run) == []
    digests = {path.name for path in (tmp_path / "node" / "rostro").iterdir() if path.is_dir()}
    assert digests == {copies.place(source / part, Path()).name for part in ("train", "eval")}


def _folders(comm: Comm, shards: str, root: str, bad: int) -> dict[str, str] | str:
    """Every rank is the first of a node of its own; `bad`: the one without the variable."""
    os.environ["NODE_DISK"] = f"{root}/node{comm.rank}"
    if comm.rank == bad:
        del os.environ["NODE_DISK"]
    node = dataclasses.replace(comm, local_rank=0)
    try:
        return staging.folders(Config(data=data_of(Path(shards), stage="$NODE_DISK")), node)
    except UserError as error:
        return str(error)


def test_every_node_has_its_copy(tmp_path: Path, shards: Path) -> None:
    found = launch(_folders, 2, str(shards), str(tmp_path), -1)
    for rank, places in enumerate(found):
        assert set(places) == {"train", "eval"}
        for name, place in places.items():
            assert Path(place).parent == tmp_path / f"node{rank}"
            assert (Path(place) / "manifest.json").read_bytes() == (
                shards / name / "manifest.json"
            ).read_bytes()


def test_a_node_that_cannot_ends_all(tmp_path: Path, shards: Path) -> None:
    found = launch(_folders, 2, str(shards), str(tmp_path), 1)
    assert len(set(found)) == 1
    assert "rank 1: data.stage=$NODE_DISK: NODE_DISK is not set on" in found[0]


def _stopped(comm: Comm, shards: str, root: str) -> StopReason:
    """Return why both ranks leave: rank 1 is asked to while another job has locked rank 0's disk."""
    (Path(root) / "node0").mkdir(exist_ok=True)
    os.environ["NODE_DISK"] = f"{root}/node{comm.rank}"
    with open(Path(root) / "node0" / copies.LOCK, "a") as other:
        if not comm.rank:
            fcntl.flock(other, fcntl.LOCK_EX)
        node = dataclasses.replace(comm, local_rank=0)
        try:
            reason = StopReason(2 * comm.rank)
            staging.folders(Config(data=data_of(Path(shards), stage="$NODE_DISK")), node, lambda: reason)
        except staging.StagingStopped as stopped:
            return stopped.reason
    return StopReason.NONE


def test_ranks_that_are_asked_to_leave_meanwhile_do(tmp_path: Path, shards: Path) -> None:
    assert launch(_stopped, 2, str(shards), str(tmp_path)) == [StopReason.TIME_LIMIT] * 2
    assert [path.name for path in (tmp_path / "node0").iterdir()] == [copies.LOCK]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Data(order="groups", stage="scratch"), r"data\.stage=scratch is not an absolute folder: use"),
        (Data(order="groups", stage="$TMPDIR", stream=True), r"data\.stream=true reads shards as they come"),
    ],
)
def test_what_cannot_work_is_refused_before_the_queue(data: Data, message: str) -> None:
    check(Config(task=dict(TASK), data=Data(order="groups", stage="$TMPDIR")))
    with pytest.raises(UserError, match=message):
        check(Config(task=dict(TASK), data=data))
    assert is_free("data.stage", Config())
