"""DeepSpeed's ZeRO 0-3: equal to a single process, and its state moves between engines and world sizes."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from data_shards.errors import UserError
from hpc.checkpoints.store import Checkpoint
from hpc.config import deepspeed
from hpc.config.plan import Plan, check_engine, check_players
from hpc.config.schema import Config, DeepSpeed, Engine, Optim
from hpc.distributed.comm import Comm
from hpc.engines.zero import ZeRO
from tests.hpc.engines.test_engine import LIMIT, difference, kind, reference
from tests.support import zero
from tests.support.ranks import launch


@pytest.mark.parametrize("world", [1, 2, 4])
def test_every_stage_equals_a_plain_process(world: int) -> None:
    chosen = zero.cases(world)
    wrong = []
    for number, found in enumerate(launch(zero.every_way, world, chosen)):
        for case, got in zip(chosen, found, strict=True):
            wanted = reference(case[0], case[1])
            assert got.keys() == wanted.keys()
            for what in {kind(name) for name in got}:
                names = [name for name in got if kind(name) == what]
                distance = difference([got[name] for name in names], [wanted[name] for name in names])
                if distance > LIMIT:
                    wrong.append((number, case, what, distance))
            for name in got:  # as in test_engine.py: a tensor that holds little but rounding
                if (distance := difference([got[name]], [wanted[name]])) > 10 * LIMIT:
                    wrong.append((number, case, name, distance))
    assert not wrong, f"{len(wrong)} of {len(chosen)} cases x 5: {wrong[:10]}"


def distance(one: Checkpoint, other: Checkpoint) -> float:
    """The largest relative distance of weights, optimizer states and averages; the names must agree."""
    far = []
    for part in ("players", "optim", "ema"):
        mine, theirs = getattr(one, part)["net"], getattr(other, part)["net"]
        assert mine.keys() == theirs.keys()
        for key in {name.rpartition("/")[2] if "/" in name else "" for name in mine}:
            names = [name for name in mine if ("/" in name and name.rpartition("/")[2] == key) or not key]
            far.append(difference([mine[name] for name in names], [theirs[name] for name in names]))
    return max(far)


def test_ddp_zero2_ddp_equals_ddp() -> None:
    saved: Checkpoint | None = None
    for engine, updates in (("ddp", range(2)), ("deepspeed", range(2, 4)), ("ddp", range(4, 6))):
        keys = {"stage": 2} if engine == "deepspeed" else {}
        saved = launch(zero.go_on, 2, engine, keys, saved, updates, True)[0]
    assert saved is not None
    assert distance(saved, launch(zero.go_on, 2, "ddp", {}, None, range(6), True)[0]) < LIMIT


def test_the_number_of_ranks_may_change() -> None:
    """And parameters without gradient are skipped, as without ZeRO, until they have one."""
    ways: list[dict[str, Any]] = [{"stage": 1}, {"stage": 3, "config": zero.SPLIT}]
    saved: list[Any] = [None] * len(ways)
    for world, updates in ((4, range(2)), (2, range(2, 4)), (3, range(4, 6))):
        ranks = launch(zero.go_on_each, world, ways, saved, updates)
        saved = ranks[0]
        for state in saved:
            assert len({value for (value,) in state.meta["seen"]}) == 1  # the whole average on every rank
    wanted = launch(zero.go_on, 2, "flat", {}, None, range(6))[0]
    late, never = wanted.optim["net"]["late.weight/step"], {"never.weight/unstepped", "never.bias/unstepped"}
    assert late == 4  # a state for each parameter, not for a flat buffer
    assert {name for name in wanted.optim["net"] if name.endswith("unstepped")} == never
    for state in saved:
        assert distance(state, wanted) < LIMIT


def test_a_state_goes_in_and_out_unchanged() -> None:
    made = launch(zero.go_on, 2, "flat", {}, None, range(4))[0]
    ways = [{"stage": 0}, {"stage": 2, "offload": True}, {"stage": 3}, {"stage": 3, "config": zero.SPLIT}]
    for keys, again in zip(ways, launch(zero.go_on_each, 2, ways, [made] * 4, range(4, 4))[0], strict=True):
        for part in ("players", "optim", "ema"):
            mine, theirs = getattr(again, part)["net"], getattr(made, part)["net"]
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[name], theirs[name]) for name in mine), (keys, part)


def test_a_frozen_parameter_is_what_was_loaded() -> None:
    wanted = 2 * (63 * 0.01 * math.tanh(65 * 0.01 + 0.01) + 0.01)
    for rank in launch(zero.frozen, 2):
        for stage, trained, copied in rank:
            assert (trained, copied) == pytest.approx((wanted, wanted), rel=1e-5), f"stage {stage}"


def test_several_players_and_what_ranks_refuse() -> None:
    (wanted, *found), two_passes, build = launch(zero.games_and_refusals, 2)[0]
    for weights in found:
        assert difference(list(weights.values()), [wanted[name] for name in weights]) < LIMIT
    assert "head." in two_passes
    assert "use micro_batch=0 or engine.deepspeed.stage=2" in two_passes
    assert "compile cpu_adam" in build
    assert "DS_BUILD_CPU_ADAM=1" in build


def test_a_parameter_without_a_shape_is_refused_by_name() -> None:
    net = torch.nn.Module()
    net.scale = torch.nn.Parameter(torch.tensor(1.5))
    with pytest.raises(UserError, match=r"scale is a number without a shape.* give it the shape .1."):
        ZeRO(net, Comm(), config_of())


def test_several_players_need_stage_1() -> None:
    config = Config(engine=Engine(name="deepspeed", deepspeed=DeepSpeed(stage=2)))
    with pytest.raises(
        UserError, match=r"stage=2 takes one network, this task has 2 players: use engine.deepspeed"
    ):
        check_players(config, {"make": 1, "judge": 2})
    with pytest.raises(UserError, match="stage=2 takes one network"):  # before the queue, by the plan alone
        check_engine(config, Plan("any", players=("make", "judge")))
    check_engine(config, Plan("any"))


def test_deepspeed_is_imported_for_its_engine_only() -> None:
    code = "import sys, hpc.train; sys.exit('deepspeed' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3]).returncode == 0


def config_of(optim: dict[str, Any] | None = None, compiled: bool = False, **keys: Any) -> Config:
    if isinstance(keys.get("config"), dict):
        keys["config"] = json.dumps(keys["config"])
    return Config(
        compile=compiled,
        optim=Optim(**(optim or {})),
        engine=Engine(name="deepspeed", deepspeed=DeepSpeed(**keys)),
    )


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"optim": {"name": "lamb"}}, "optim.name=lamb takes norms of whole tensors"),
        ({"stage": 0, "offload": True}, "offload=true needs ZeRO"),
        ({"compiled": True}, "use compile=false"),
        ({"config": {"train_batch_size": 8}}, "train_batch_size=8 contradicts .* set batch"),
        ({"config": {"gradient_clipping": 1.0}}, "set optim.clip"),
        ({"config": {"bf16": {"enabled": True}}}, "bf16=.* set precision"),
        ({"config": {"optimizer": {"type": "Adam"}}}, r"set optim\.\*"),
        ({"config": {"zero_optimization": {"stage": 3}}}, "zero_optimization.stage=3 contradicts"),
        (
            {"config": {"zero_optimization": {"offload_optimizer": {"device": "nvme"}}}},
            "set engine.deepspeed.offload",
        ),
        ({"config": {"autotuning": {"enabled": True}}}, "autotuning=.* is not supported: .* leave it out"),
        ({"config": {"zero_optimisation": {}}}, "leave it out. did you mean zero_optimization?"),
        ({"config": {"zero_optimization": {"overlap_com": True}}}, "did you mean overlap_comm?"),
        ({"config": {"zero_optimization": 3}}, "zero_optimization=3 is not an object: write {"),
        (
            {"config": {"zero_optimization": {"zero_quantized_weights": True}}},
            "it changes what a run computes",
        ),
        ({"config": "/nowhere.json"}, "cannot be read"),
        ({"config": "{no json"}, "cannot be read"),
    ],
)
def test_refusals(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        deepspeed.check(config_of(**keys))


def test_a_file_is_merged_and_kept_in_the_config(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    theirs = {
        "zero_optimization": {"stage": 2, "overlap_comm": True},
        "fp16": {"enabled": False, "loss_scale": 0},
        "bf16": {"enabled": "auto"},
        "train_batch_size": 64,
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_clipping": 1.0,
        "wall_clock_breakdown": True,
        "autotuning": {"enabled": False},
    }
    theirs["zero_optimization"] |= {"reduce_bucket_size": "auto", "offload_param": {"device": "none"}}
    path.write_text(json.dumps(theirs))
    kept = deepspeed.inlined(config_of(stage=2, config=str(path), optim={"clip": 1.0}))
    path.unlink()
    made = deepspeed.settings(kept)
    assert made["zero_optimization"]["overlap_comm"] is True
    assert made["zero_optimization"]["stage"] == 2
    assert made["wall_clock_breakdown"] is True
    ours = deepspeed.settings(config_of(stage=2))
    assert made["zero_optimization"]["reduce_bucket_size"] == ours["zero_optimization"]["reduce_bucket_size"]
    assert made.keys() == ours.keys() | {"wall_clock_breakdown"}
    assert (made["gradient_clipping"], made["train_micro_batch_size_per_gpu"]) == (0.0, 1)


def test_keys_of_deepspeed_need_its_engine() -> None:
    config = dataclasses.replace(
        config_of(offload=True), engine=Engine(name="ddp", deepspeed=DeepSpeed(offload=True))
    )
    with pytest.raises(UserError, match="offload=True has no effect on engine=ddp: use engine=deepspeed"):
        deepspeed.check(config)
    forgotten = dataclasses.replace(config, engine=Engine(name="ddp", deepspeed=DeepSpeed(stage=3)))
    with pytest.raises(UserError, match="stage=3 has no effect on engine=ddp"):
        deepspeed.check(forgotten)
    assert deepspeed.inlined(config) is config


def test_an_update_that_is_not_finite_moves_nothing() -> None:
    assert launch(zero.moved_by_nan, 2) == [[], []]
