"""Pieces of checkpoints: cut anew bit for bit, damaged, missing, and written by ranks that die or fail."""

import json
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor

from data_shards import files
from data_shards.errors import UserError
from hpc.checkpoints import committing, manifest, pieces, store
from hpc.checkpoints.store import Checkpoint, Damaged
from hpc.config.schema import Save
from hpc.distributed.comm import Comm
from hpc.engines.sharded import Rows, rows_of
from hpc.inference import predictor
from hpc.training.player import PlayerState
from tests.support import centres
from tests.support.centres import BATCH, CLASSES, WIDTH, Centres, centres_run
from tests.support.ranks import launch
from tests.support.sets import pack_set


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that four ranks wrote."""
    run = tmp_path_factory.mktemp("four")
    launch(centres.write_trained, 4, str(run))
    return run


def newest(run: Path) -> Path:
    path = store.latest(run)
    assert path is not None
    return path


def state(run: Path, comm: Comm = Comm()) -> dict[str, Tensor]:  # noqa: B008
    saved = store.read(newest(run), comm=comm)
    parts = {"player": saved.players, "optim": saved.optim, "ema": saved.ema}
    return {f"{part} {name}": t for part, by in parts.items() for name, t in by["net"].items()}


def test_every_rank_writes_its_rows_and_no_other(four: Path) -> None:
    path = newest(four)
    assert pieces.files_of(file.name for file in path.iterdir()) == [pieces.file_name(r) for r in range(4)]
    found = pieces.read_index(path, manifest.read(path)["files"])
    assert found.keys() == {
        ("player-net", "centres.weight"),
        ("optim-net", "centres.weight/exp_avg"),
        ("optim-net", "centres.weight/exp_avg_sq"),
        ("ema-net", "centres.weight"),
    }
    for parts in found.values():
        assert [(part.rows, part.file) for part in parts] == [
            (rows_of(CLASSES, Comm(rank=rank, world=4)), pieces.file_name(rank)) for rank in range(4)
        ]
    whole = state(four)
    assert whole["player centres.weight"].shape == (CLASSES, WIDTH)
    assert "optim centres.weight/step" in whole  # a number: rank 0's
    assert manifest.read(path)["format"] == manifest.RANGED


def test_a_state_is_cut_anew_bit_for_bit(four: Path, tmp_path: Path) -> None:
    wanted, source = state(four), four
    for number, world in enumerate((3, 1, 4)):
        target = tmp_path / f"{number}"
        if world == 1:
            centres.recut(Comm(), str(source), str(target))
        else:
            launch(centres.recut, world, str(source), str(target))
        found = state(target)
        assert found.keys() == wanted.keys()
        for name, tensor in wanted.items():
            assert torch.equal(found[name], tensor), (world, name)
        source = target
    facts = [manifest.read(newest(run))["files"] for run in (four, source)]
    assert facts[0] == facts[1]  # the files too are those of four ranks


@pytest.mark.parametrize("world", [1, 2, 3, 7, 15])
def test_any_number_of_ranks_reads_its_own_rows(four: Path, world: int) -> None:
    whole = state(four)
    parts = [state(four, Comm(rank=rank, world=world)) for rank in range(world)]
    for name, tensor in whole.items():
        if "centres" in name and tensor.dim():
            assert torch.equal(torch.cat([part[name] for part in parts]), tensor)
        else:
            assert all(torch.equal(part[name], tensor) for part in parts)


def two_checkpoints(run: Path) -> tuple[Path, Path]:
    """Two checkpoints of one process, whose centres are in pieces."""
    paths = []
    for clock in (64, 128):
        saved = Checkpoint(clock, 1)
        weights = {"a": torch.full((3,), float(clock)), "w": torch.arange(20.0).view(10, 2) + clock}
        saved.put("net", PlayerState(weights, {}, None, {"w": Rows(0, 10, 10)}))
        paths.append(store.save(run, saved))
    return paths[0], paths[1]


@pytest.mark.parametrize("damage", ["flip", "truncate", "missing"])
def test_a_damaged_piece_is_named_and_the_older_checkpoint_taken(tmp_path: Path, damage: str) -> None:
    older, newer = two_checkpoints(tmp_path)
    file = newer / pieces.file_name(0)
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(data if damage == "flip" else data[:-1])
    with pytest.raises(Damaged, match=r"000000000128.*pieces-00000\.safetensors"):
        store.read(newer)
    warnings: list[str] = []
    assert store.latest(tmp_path, warnings.append) == older
    assert "pieces-00000.safetensors" in warnings[0]
    assert torch.equal(store.read(older).players["net"]["w"], torch.arange(20.0).view(10, 2) + 64)


def test_a_range_that_no_file_has_is_damage_though_all_hashes_match(four: Path, tmp_path: Path) -> None:
    older, newer = two_checkpoints(tmp_path)
    content = manifest.read(newest(four))
    lacking = tmp_path / "lacking" / "checkpoints" / newest(four).name
    lacking.mkdir(parents=True)
    for file in newest(four).iterdir():
        (lacking / file.name).write_bytes(file.read_bytes())
    (lacking / pieces.file_name(2)).unlink()
    del content["files"][pieces.file_name(2)]
    (lacking / manifest.NAME).write_text(json.dumps(files.seal(content)))
    for verified in (False, True):
        with pytest.raises(Damaged, match=r"centres\.weight.*: rows 7 to 11 are missing"):
            store.read(lacking, verified=verified)
    assert store.latest(tmp_path / "lacking", lambda text: None) is None
    assert older.exists()
    assert newer.exists()


KEY = "player-net/w@"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["0:5:10"], "player-net/w: rows 5 to 10 are missing"),
        (["5:10:10"], "player-net/w: rows 0 to 5 are missing"),
        (["0:4:10", "6:10:10"], "rows 4 to 6 are missing"),
        (["0:6:10", "4:10:10"], "rows 4 to 6 are there twice"),
        (["0:5:10", "0:5:10", "5:10:10"], "rows 0 to 5 are there twice"),
        (["0:5:10", "5:10:11"], "rows 5 to 10 of 11 of player-net/w do not exist"),
        (["0:12:10"], "rows 0 to 12 of 10 of player-net/w do not exist"),
        (["0:5"], "names no rows"),
        (["0:5:-1"], "names no rows"),
    ],
)
def test_ranges_that_do_not_make_a_tensor_are_refused(keys: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pieces.index([(pieces.file_name(place), KEY + key) for place, key in enumerate(keys)])


def test_what_lacks_a_range_is_not_saved(tmp_path: Path) -> None:
    two_checkpoints(tmp_path)
    saved = Checkpoint(192, 1)
    saved.put("net", PlayerState({"w": torch.zeros(5, 2)}, {}, None, {"w": Rows(0, 5, 10)}))
    with pytest.raises(UserError, match="was not saved, player-net/w: rows 5 to 10 are missing: a sharded"):
        store.save(tmp_path, saved)
    assert [int(path.name) for path in store.listing(tmp_path)] == [64, 128]
    assert not list(store.folder_of(tmp_path).glob(".*"))


def test_a_name_of_any_kind_comes_back(tmp_path: Path) -> None:
    saved = Checkpoint(64, 1)
    name = "odd@0:5:10/\N{SNOWMAN}"
    saved.put("net", PlayerState({name: torch.arange(10)}, {}, None, {name: Rows(0, 10, 10)}))
    loaded = store.read(store.save(tmp_path, saved), comm=Comm(rank=1, world=2))
    assert torch.equal(loaded.players["net"][name], torch.arange(5, 10))
    assert loaded.of == {f"player-net/{name}": 10}


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("fault", ["piece2@48/1", "piece2@48/0", "savecommit@48"])
def test_a_rank_killed_while_it_writes_loses_nothing_older(
    tmp_path: Path, shards: Path, mode: str, fault: str
) -> None:
    runs = [
        centres_run(tmp_path / name, shards, procs=2, save=Save(every=1000, mode=mode))
        for name in ("killed", "straight")
    ]
    codes = centres.codes_of_death(runs[0], 2, 2 * BATCH, fault)
    killed = int(fault[-1]) if "/" in fault else 0
    assert codes[killed] == -signal.SIGKILL
    assert codes[1 - killed] not in (0, -signal.SIGKILL)  # it noticed
    assert [int(path.name) for path in store.listing(runs[0])] == [BATCH]
    assert launch(centres.advance, 2, str(runs[0]), 2 * BATCH) == [BATCH] * 2
    assert launch(centres.advance, 2, str(runs[1]), 2 * BATCH) == [0] * 2
    one, other = (manifest.read(newest(run))["files"] for run in runs)
    assert one == other
    assert not list(store.folder_of(runs[0]).glob(".*"))


def full_disk(comm: Comm, run: str) -> str:
    """What the ranks say where rank 1 cannot write its piece."""

    def refuse(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    if comm.rank == 1:
        committing.pieces.write = refuse  # type: ignore[assignment]
    try:
        centres.write_trained(comm, run)
    except UserError as error:
        return str(error)
    return ""


def test_a_full_disk_of_one_rank_is_the_same_line_on_all(tmp_path: Path) -> None:
    found = launch(full_disk, 2, str(tmp_path))
    assert found[0] == found[1]
    assert "was not saved by rank 1, the disk is full: free space there" in found[0]
    assert list(store.folder_of(tmp_path).iterdir()) == []


def test_a_checkpoint_of_other_rows_is_refused_on_all_ranks(tmp_path: Path, shards: Path) -> None:
    run = centres_run(tmp_path / "run", shards)
    centres.advance(Comm(), str(run), BATCH)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(centres, "CLASSES", CLASSES + 1)
        with pytest.raises(UserError, match=r"has 15 rows of net\.centres\.weight in pieces, the network 16"):
            centres.advance(Comm(), str(run), 2 * BATCH)


def test_one_process_predicts_from_the_pieces_of_many(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = centres_run(tmp_path / "run", shards, procs=2)
    launch(centres.advance, 2, str(run), BATCH)
    monkeypatch.setattr(predictor, "build_task", Centres)
    for weights, part in (("raw", "player"), ("ema", "ema")):
        loaded = predictor.load_run(run, checkpoint="last", weights=weights)
        centre = loaded.nets["net"].centres.weight
        assert torch.equal(centre, state(run)[f"{part} centres.weight"])
