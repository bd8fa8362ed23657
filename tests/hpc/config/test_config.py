"""The schema: strict reading, identity, derived sizes, refusals. No torch is involved."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_shards.errors import UserError
from hpc.config.check import check
from hpc.config.identity import changed, identity, is_free, numbers
from hpc.config.parse import from_dict, load_config, save_config
from hpc.config.plan import Plan
from hpc.config.schema import Cluster, Config, Data, Optim
from hpc.config.sizes import sizes
from hpc.config.stages import check_stages
from hpc.config.types import as_type
from tests.support import runs

TASK = runs.TASK | {"mirror": True}


def config(**changes) -> Config:
    data = changes.pop("data", Data(order="groups"))
    return Config(task=dict(TASK), data=data, **changes)


def test_a_config_survives_the_file(tmp_path):
    wanted = config(optim=Optim(lr=1e-5, eps=1e-8, betas=[0.5, 0.99]), name="x: y", seed=7)
    save_config(wanted, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == wanted


@pytest.mark.parametrize("text", ["", "- 1\n", "a: [", "bach: 3\n", "batch: three\n", "data: 5\n"])
def test_a_damaged_file_is_a_line(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        load_config(tmp_path / "config.yaml")
    assert "\n" not in str(error.value)


def test_types():
    assert as_type("lr", 1, 0.5) == 1.0
    assert isinstance(as_type("lr", 1, 0.5), float)
    for value, like in ((True, 1), (1, True), ("x", 1.0), (1.5, 1), (3, "word"), (1, [1.0])):
        with pytest.raises(UserError, match="key="):
            as_type("key", value, like)


def test_unknown_keys_name_the_near_one():
    with pytest.raises(UserError, match=r"unknown key optim\.momentun=0\.9: did you mean momentum"):
        from_dict({"optim": {"momentun": 0.9}})


def test_identity_sees_numbers_and_nothing_else():
    base = config()
    same = config(procs=4, nodes=2, name="other", wait=True, hang_timeout=5)
    same.log.every, same.data.threads, same.data.train = 1, 9, "/elsewhere"
    assert identity(same) == identity(base)
    assert changed(base, same) == []
    for change in ({"batch": 128}, {"seed": 1}, {"images": 5}, {"precision": "bf16"}, {"norm_stats": "sync"}):
        assert identity(config(**change)) != identity(base)
    other = config()
    other.task["margin"] = 0.5
    assert changed(base, other) == ["task.margin=0.5 (was 1.0)"]
    assert all(not is_free(key, base) for key in numbers(base))


def test_the_batch_of_evaluations_is_refused_by_name_and_in_no_hash():
    """Figures depend on it; runs that were made before it counted hold any value of it."""
    base, other = config(), config()
    other.eval.batch = 32
    assert identity(base) == identity(other)
    assert changed(base, other) == ["eval.batch=32 (was 64)"]


@pytest.mark.parametrize("stats", ["local", "sync", "group"])
def test_micro_batch_may_change_where_it_changes_no_numbers(stats):
    base, other = config(norm_stats=stats, micro_batch=16), config(norm_stats=stats, micro_batch=8)
    free = stats == "group"
    assert is_free("micro_batch", base) is free
    assert (identity(base) == identity(other)) is free
    assert changed(base, other) == ([] if free else ["micro_batch=8 (was 16)"])


@given(
    world=st.integers(1, 16), share=st.integers(1, 64), micro=st.integers(0, 64), images=st.integers(1, 10**6)
)
def test_micro_batches_cover_the_share(world, share, micro, images):
    run = config(procs=world, batch=world * share, micro_batch=min(micro, share), images=images)
    found = sizes(run)
    assert sum(found.micro) == found.share == share
    assert max(found.micro) <= (run.micro_batch or share)
    assert max(found.micro[:-1], default=found.micro[0]) == found.micro[0]
    assert (found.updates - 1) * run.batch < images <= found.updates * run.batch


@given(world=st.integers(2, 16), batch=st.integers(1, 512), group=st.sampled_from([1, 2, 4]))
def test_a_suggested_batch_is_accepted(world, batch, group):
    order = "groups" if group > 1 else "plain"
    run = Config(
        batch=batch, procs=world, data=Data(order=order, group=group), task={"name": "siamese", **TASK}
    )
    run.task["name"] = "plainly"
    unit = world * (group if order == "groups" else 1)
    try:
        _check_batch(run)
    except UserError as error:
        text = str(error)
        suggestions = [int(word) for word in text.rsplit("use ", 1)[1].split() if word.isdigit()]
        assert batch % unit
        assert suggestions
        assert all(number % unit == 0 and abs(number - batch) < unit for number in suggestions)
    else:
        assert batch % unit == 0


def _check_batch(run: Config) -> None:
    check_stages(run, Plan("plainly"))


def test_the_message_of_a_batch_that_does_not_divide():
    run = config(batch=100, procs=8, data=Data(order="plain"))
    with pytest.raises(UserError, match=r"^batch=100 is not divisible by 8 ranks: use 96 or 104$"):
        check(run)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"norm_stats": "group", "procs": 2, "batch": 24},
            "batch=24 is not divisible by 2 ranks x norm_group=8",
        ),
        (
            {"norm_stats": "group", "micro_batch": 12},
            "micro_batch=12 is not divisible by norm_group=8: use 8 or 16",
        ),
        ({"micro_batch": 128}, "micro_batch=128 is more than a rank's share, 64 / 1 = 64"),
        ({"norm_stats": "batch"}, "norm_stats=batch is not known: use local or group or sync"),
        ({"images": 0}, "images=0 is not positive"),
        ({"optim": Optim(name="adamax")}, "optim.name=adamax is not known: use sgd or adam"),
        ({"optim": Optim(schedule="plateau")}, "optim.schedule=plateau is not known: use constant or cosine"),
        ({"optim": Optim(lr=float("inf"))}, "optim.lr=inf is not a finite number"),
        ({"optim": Optim(final=5.0)}, "optim.final=5.0 is not in [0, 1]"),
        ({"optim": Optim(gamma=-1.0)}, "optim.gamma=-1.0 is not in (0, 1]"),
        ({"data": Data(order="groups", size=4)}, "data.size=4 is too small for the trunk"),
        ({"seed": -1}, "seed=-1 is negative"),
        (
            {"hours": 0.03, "cluster": Cluster(name="slurm")},
            "hours=0.03 is no longer than cluster.warning=120",
        ),
        ({"nodes": 2, "cluster": Cluster(name="local")}, "nodes=2: cluster=local is one machine"),
        (
            {"after": "faces", "cluster": Cluster(name="local")},
            "after=faces: nothing waits for a run without",
        ),
        ({"optim": Optim(schedule="step")}, "optim.steps=[] are not rising shares"),
        ({"optim": Optim(warmup=10**9)}, "optim.warmup=1000000000 is not below images"),
        (
            {"optim": Optim(schedule="constant", hold=0.5)},
            "optim.hold=0.5 belongs to optim.schedule=cosine or linear",
        ),
        ({"optim": Optim(hold=0.9, warmup=200_000)}, "optim.hold=0.9 and optim.warmup=200000 leave nothing"),
        ({"optim": Optim(warmup_momentum=0.5)}, "optim.warmup_momentum=0.5 needs a warm-up"),
        ({"optim": Optim(warmup_bias=0.1)}, "optim.warmup_bias=0.1 needs a warm-up"),
        (
            {"optim": Optim(name="sgd", momentum=0.0, warmup=64, warmup_momentum=0.5)},
            "optim.warmup_momentum=0.5 is above optim.momentum, to whose 0.0 it would fall",
        ),
        (
            {"optim": Optim(betas=[0.5, 0.9], warmup=64, warmup_momentum=0.6)},
            "optim.warmup_momentum=0.6 is above optim.betas, to whose 0.5 it would fall",
        ),
        ({"optim": Optim(nesterov=True, momentum=0.0)}, "optim.nesterov=true needs optim.momentum"),
        ({"data": Data(order="plain")}, "data.order=plain gives hardly a genuine pair"),
        ({"data": Data(order="groups", group=1)}, "data.group=1 gives no genuine pair"),
        ({"name": "a/b"}, "name=a/b is not a folder's name"),
        ({"task": {**TASK, "loss": "arcface"}}, "task.loss=arcface is not known"),
        ({"task": {**TASK, "margin": 2.5}}, "task.margin=2.5 is never reached"),
        (
            {"task": {**TASK, "name": "siames"}},
            "task.name=siames is no file in hpc/tasks: did you mean siamese?",
        ),
    ],
)
def test_refusals(changes, message):
    with pytest.raises(UserError) as error:
        check(dataclasses.replace(config(), **changes))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_default_config_has_sane_sizes():
    found = sizes(config(images=1000, batch=64))
    assert found.updates == math.ceil(1000 / 64)
    assert (found.world, found.micro) == (1, (64,))
