"""Plans and their stages: every stage is checked at submit, and sizes sum over all of them."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_shards.errors import UserError
from hpc.config.check import check
from hpc.config.plan import Plan, Stage, check_engine, plan_of
from hpc.config.schema import Config, DeepSpeed, Engine
from hpc.config.sizes import sizes
from hpc.config.stages import check_stages, lengths, num_updates, stage_at
from tests.support import tiny  # noqa: F401 - makes `growing` a task

GROWING = Config(task={"name": "growing"}, images=288, batch=16, engine=Engine(name="flat"))


def test_a_plan_has_defaults_for_what_it_omits():
    plan = plan_of({"name": "siamese"})
    assert plan.roles == {"train": ("identity",), "val": ("identity",), "eval": ("identity",)}
    assert plan.engines == ("ddp", "flat", "deepspeed")
    assert plan.players == ("net",)
    assert plan.elastic
    assert plan.unit(Config()) == 1
    assert plan.stages(Config(batch=8)) == [Stage(0, 8, 112)]
    assert plan_of({"name": "growing"}).controls == ("optim", "ema")


def test_updates_are_summed_over_the_stages():
    found = sizes(GROWING)
    assert found.updates == 3 + 6 + 6
    assert (found.share, found.micro) == (32, (32,))


@given(
    starts=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 64)), min_size=1, max_size=5),
    rest=st.integers(1, 500),
)
def test_each_update_belongs_to_one_stage(starts, rest):
    stages, clock = [], 0
    for count, batch in starts:
        stages.append(Stage(clock, batch, 8))
        clock += count * batch
    images = stages[-1].clock + rest
    check_stages(Config(images=images), Plan("any", stages=lambda config: stages))
    seen = updates = 0
    while seen < images:
        seen, updates = seen + stage_at(stages, seen).batch, updates + 1
    assert updates == num_updates(stages, images)
    assert sum(lengths(stages, images)) == images


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "there is no stage: let `stages` of any_plan.py begin with Stage(0, ...)"),
        ([Stage(8, 8, 8)], "the first stage is at clock 8"),
        (
            [Stage(0, 8, 8), Stage(20, 8, 8)],
            "stage at clock 0 is 20 images long, which are no whole batches",
        ),
        (
            [Stage(0, 8, 8), Stage(16, 9, 8)],
            "at clock 16: batch=9 is not divisible by 2 ranks: use 8 or 12",
        ),
        (
            [Stage(0, 8, 8), Stage(80, 8, 8)],
            "clock 80 is not below images=64: use images=88 or more",
        ),
        ([Stage(0, 8, 8), Stage(16, 8, 8), Stage(16, 8, 8)], "stage at clock 16 ends at 16"),
        ([Stage(0, 8, 8, micro_batch=3)], "micro_batch=3 is not divisible by 2 images that stay together"),
        ([Stage(0, 8, 8, micro_batch=6)], "micro_batch=6 is more than a rank's share, 8 / 2 = 4"),
        (
            [Stage(0, 10, 8)],
            "batch=10 is not divisible by 2 ranks x 2 images that stay together",
        ),
        ([Stage(0, 8, 8), Stage(16, 8, 8, fade=64)], "stage at clock 16: fade=64 is not in [0, 48]"),
        ([Stage(0, 8, 8), Stage(16, 8, 0)], "stage at clock 16: size=0 is too small: use 1 or more"),
        ([Stage(0, 8, 8), Stage(16, 0, 8)], "stage at clock 16: batch=0 is not positive"),
    ],
)
def test_a_stage_that_cannot_be_trained_is_refused(stages, message):
    plan = Plan("any", stages=lambda config: stages, unit=lambda config: 2)
    with pytest.raises(UserError) as error:
        check_stages(Config(images=64, batch=8, procs=2), plan)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_engine_that_the_task_does_not_allow_is_refused():
    plan = Plan("any", engines=("flat", "deepspeed:1"))
    for name, stage, allowed in (
        ("flat", 1, True),
        ("deepspeed", 1, True),
        ("ddp", 1, False),
        ("deepspeed", 2, False),
    ):
        settings = DeepSpeed(stage=stage) if name == "deepspeed" else DeepSpeed()
        run = dataclasses.replace(GROWING, engine=Engine(name=name, deepspeed=settings))
        if allowed:
            check_engine(run, plan)
            continue
        with pytest.raises(UserError) as error:
            check_engine(run, plan)
        assert str(error.value).startswith(f"engine={name}")
        assert str(error.value).endswith("use engine=flat or engine=deepspeed engine.deepspeed.stage=1")
    with pytest.raises(UserError, match=r"^engine=ddp: task=growing does not run under it: use engine=flat$"):
        check(dataclasses.replace(GROWING, engine=Engine(name="ddp")))


def test_a_growing_run_is_checked_stage_by_stage():
    with pytest.raises(
        UserError, match=r"^stage at clock 0: batch=32 is not divisible by 3 ranks: use 30 or 33$"
    ):
        check(dataclasses.replace(GROWING, procs=3))
