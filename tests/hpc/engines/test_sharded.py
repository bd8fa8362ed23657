"""Parameters cut over the ranks: the same numbers at any world size, and what is refused."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from data_shards.errors import UserError
from hpc.checkpoints import store
from hpc.config.schema import DeepSpeed, Engine, Init, Optim
from hpc.distributed.comm import Comm
from hpc.engines import sharded
from hpc.engines.flat import Flat
from tests.hpc.engines.test_engine import difference
from tests.support import centres
from tests.support.centres import BATCH, CLASSES, centres_run, fresh_player
from tests.support.ranks import launch
from tests.support.sets import pack_set

LIMIT = 1e-5


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_set(tmp_path_factory.mktemp("set"))


@pytest.mark.parametrize("world", [1, 2, 3, 5, 15])
@pytest.mark.parametrize("columns", [1, 7, 64])
def test_any_world_draws_the_same_rows(world: int, columns: int) -> None:
    whole = sharded.normal(sharded.rows_of(CLASSES, Comm()), columns, seed=3, purpose="centres")
    parts = [
        sharded.normal(
            sharded.rows_of(CLASSES, Comm(rank=rank, world=world)), columns, seed=3, purpose="centres"
        )
        for rank in range(world)
    ]
    assert torch.equal(torch.cat(parts), whole)


def test_the_rows_are_standard_normal() -> None:
    drawn = sharded.normal(sharded.rows_of(3000, Comm()), 101, seed=0, purpose="x")
    assert abs(float(drawn.mean())) < 0.01
    assert float(drawn.std()) == pytest.approx(1.0, abs=0.01)
    assert float((drawn.abs() < 1).float().mean()) == pytest.approx(0.6827, abs=0.005)
    assert len(drawn.unique()) > 0.99 * drawn.numel()
    other = sharded.normal(sharded.rows_of(3000, Comm()), 101, seed=0, purpose="y")
    assert abs(float((drawn * other).mean())) < 0.01


@pytest.mark.parametrize("world", [1, 2, 4])
def test_gradients_and_norm_equal_plain_torch(world: int) -> None:
    wanted = centres.gradients_by_plain_torch()
    ranks = [centres.loss_and_gradients(Comm())] if world == 1 else launch(centres.loss_and_gradients, world)
    for name in wanted:
        if name == "centres.weight":
            found = [torch.cat([rank[name] for rank in ranks])]
        else:
            found = [rank[name] for rank in ranks]
        for tensor in found:
            assert difference([tensor], [wanted[name]]) < LIMIT, name


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Everything of the newest checkpoint, read by one process."""
    path = store.latest(run)
    assert path is not None
    saved = store.read(path)
    parts = {"player": saved.players, "optim": saved.optim, "ema": saved.ema}
    return {f"{part} {name}": t for part, by in parts.items() for name, t in by["net"].items()}


def assert_near(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert {name for name in one if "centres" in name} == {
        "player centres.weight",
        "optim centres.weight/momentum_buffer",
        "ema centres.weight",
    }
    for part in ("player", "optim", "ema"):
        names = [name for name in one if name.startswith(part)]
        assert difference([one[n] for n in names], [other[n] for n in names]) < LIMIT


def test_training_equals_one_process_at_any_world_size(tmp_path: Path, shards: Path) -> None:
    """Without micro batches and with cached ones; and a run that changes from 4 ranks to 3 to 1."""
    straight = centres_run(tmp_path / "straight", shards)
    assert centres.advance(Comm(), str(straight), 6 * BATCH) == 0
    wanted = weights(straight)
    for world in (2, 4):
        runs = [
            centres_run(tmp_path / f"{world}-{micro}", shards, procs=world, micro_batch=micro)
            for micro in (0, 3)
        ]
        assert launch(centres.advance_each, world, list(map(str, runs)), 6 * BATCH) == [[0, 0]] * world
        for run in runs:
            assert_near(weights(run), wanted)
    elastic = centres_run(tmp_path / "elastic", shards, procs=4)
    assert launch(centres.advance, 4, str(elastic), 2 * BATCH) == [0] * 4
    assert launch(centres.advance, 3, str(elastic), 4 * BATCH) == [2 * BATCH] * 3
    assert centres.advance(Comm(), str(elastic), 6 * BATCH) == 4 * BATCH
    assert_near(weights(elastic), wanted)


def test_a_run_may_begin_with_the_rows_of_another(tmp_path: Path, shards: Path) -> None:
    source = centres_run(tmp_path / "source", shards)
    centres.advance(Comm(), str(source), BATCH)
    run = centres_run(tmp_path / "run", shards, procs=2, seed=7, init=Init(run=str(source)))
    assert launch(centres.advance, 2, str(run), 0) == [0, 0]
    given, found = weights(source), weights(run)
    for name in ("centres.weight", "head.weight"):
        assert torch.equal(found[f"player {name}"], given[f"ema {name}"])


def test_ranks_are_compared_by_what_is_whole() -> None:
    assert launch(centres.compared, 2, False) == ["", ""]
    found = launch(centres.compared, 2, True)
    assert found[0] == found[1]
    assert "net.head.bias of rank 1 differs from rank 0's" in found[0]


def test_without_shards_the_norm_is_not_communicated() -> None:
    """There is no process group here, so any collective would raise."""
    engine = Flat(nn.Linear(2, 1), Comm(rank=0, world=2))
    engine.module(torch.ones(1, 2)).sum().backward()
    assert float(engine.norm()) == pytest.approx(3**0.5)


def test_a_declaration_survives_a_copy_and_counts_all_rows() -> None:
    comm = Comm(rank=1, world=4)
    player = fresh_player(comm)
    assert player.engine.rows == {"centres.weight": (3, 7, CLASSES)}
    assert sharded.declared(copy.deepcopy(player.module), comm) == player.engine.rows
    assert player.size == fresh_player(Comm()).size


@pytest.mark.parametrize(
    ("engine", "optim", "words"),
    [
        (Engine(name="ddp"), "sgd", "engine=ddp: centres.weight is cut over the ranks"),
        (
            Engine(name="deepspeed", deepspeed=DeepSpeed(stage=1)),
            "sgd",
            "engine=deepspeed: centres.weight is cut",
        ),
        (Engine(name="flat"), "lamb", "optim.name=lamb takes one norm of a whole tensor, and centres.weight"),
        (Engine(name="flat"), "novograd", "optim.name=novograd takes one norm of a whole tensor"),
    ],
)
def test_what_cannot_keep_rows_apart_is_refused(engine: Engine, optim: str, words: str) -> None:
    with pytest.raises(UserError) as refused:
        fresh_player(Comm(), engine=engine, optim=Optim(name=optim))
    assert str(refused.value).startswith(words)
    assert "\n" not in str(refused.value)
    assert ("use engine=flat" if optim == "sgd" else "use optim.name=adamw or sgd") in str(refused.value)


def test_wrong_declarations_are_refused() -> None:
    net = nn.Linear(3, 4)
    net.sharded = {"weights": 8}
    with pytest.raises(UserError, match=r"Linear.sharded names weights, which is not a tensor with rows"):
        sharded.declared(net, Comm(world=2))
    net.sharded = {"weight": 10}
    with pytest.raises(UserError, match=r"weight has 4 rows, but rank 0 of 2 holds 5 of 10"):
        sharded.declared(net, Comm(world=2))
    with pytest.raises(UserError, match=r"3 rows cannot be cut over 4 ranks: use procs=3 or fewer"):
        sharded.rows_of(3, Comm(world=4))
