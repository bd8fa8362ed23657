"""CycleGAN: its losses by hand, gradients and pool at any number of ranks, ZeRO, refusals, what it shows."""

import functools
import re
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from torch import nn

from data_shards.batch import Batch
from data_shards.errors import UserError
from hpc.config.check import check
from hpc.config.plan import plan_of
from hpc.distributed.comm import Comm
from hpc.inference import embedder
from hpc.inference.embedder import Embedder
from hpc.task import build_task
from launch.options.compose import composed
from tests.hpc.engines.test_engine import difference
from tests.support import zero_equality
from tests.support.counts import kept_bytes, parameters
from tests.support.cyclegan_ranks import SIDE, batch_of, config_of, updates
from tests.support.host_reads import HostReads
from tests.support.ranks import launch
from tests.support.walk import Job

POOLED = ["batch=4", "task.pool=4", "optim.name=sgd", "engine=flat"]
CLOCKS = [0, 4, 8]  # the first fills the pool, then half of what is judged comes from it


class Person(nn.Module):
    """Stands for an identity network: the mean colours of the quarters of an image."""

    def forward(self, images):
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


def job_of(*words):
    config = config_of(*words)
    check(config)
    task = build_task(config)
    torch.manual_seed(config.seed)
    return task, task.players()


def whole(n=4, clock=0):
    return batch_of(clock, slice(None), n)


@pytest.mark.parametrize("words", [(), ("task.identity=0", "task.width=4", "task.blocks=3", "data.size=64")])
def test_the_plan_knows_parameters_and_what_an_image_keeps(words):
    task, nets = job_of(*words)
    numbers, kept = task.plan.counts(task.config)
    assert numbers == sum(map(parameters, nets.values()))
    nets["D"].requires_grad_(False)
    make, two = task.phases(0)[0], batch_of(0, slice(None), 2, task.config.data.size)
    held = kept_bytes(lambda: task.loss(make, nets, two, 0), without=tuple(nets.values()))
    assert kept == pytest.approx(held / 2, rel=0.2)
    full = composed(["task=cyclegan"])
    assert plan_of(full.task).counts(full)[0] == 2 * (11_378_179 + 2_764_737)


def test_the_real_job_has_the_settings_of_the_paper():
    config = composed(["task=cyclegan"])
    check(config)
    assert (config.batch, config.data.size, config.data.order) == (1, 256, "unpaired")
    assert config.data.augment.crop_area == pytest.approx([(256 / 286) ** 2] * 2, abs=1e-4)
    optim = config.optim
    assert (optim.name, optim.lr, optim.betas) == ("adam", 2e-4, [0.5, 0.999])
    assert (optim.schedule, optim.hold, optim.final) == ("linear", 0.5, 0.0)
    task = build_task(config)
    counts = {
        name: sum(p.numel() for p in net.parameters())
        for player in task.players().values()
        for name, net in player.items()
    }
    assert counts == {"ab": 11_378_179, "ba": 11_378_179, "a": 2_764_737, "b": 2_764_737}


@pytest.mark.parametrize("identity", [0.5, 0.0])
@pytest.mark.parametrize("person", [True, False])
def test_the_generators_minimise_what_the_paper_says(identity, person):
    task, nets = job_of(f"task.identity={identity}", "task.identity_weight=3")
    nets |= {"identity": Person()} if person else {}
    said = {}
    task.report = lambda name, value: said.__setitem__(name, float(value))
    batch = whole()
    a, b = batch.images["a"], batch.images["b"]
    ab, ba, judge_a, judge_b = (nets[k][n] for k, n in (("G", "ab"), ("G", "ba"), ("D", "a"), ("D", "b")))
    with torch.no_grad():
        fake_b, fake_a = ab(a), ba(b)
        adversarial = (judge_b(fake_b) - 1).square().mean() + (judge_a(fake_a) - 1).square().mean()
        cycle = (ba(fake_b) - a).abs().mean() + (ab(fake_a) - b).abs().mean()
        same = (ab(b) - b).abs().mean() + (ba(a) - a).abs().mean()
        who = Person()
        cosines = [
            nn.functional.cosine_similarity(who(x), who(y)).mean() for x, y in ((a, fake_b), (b, fake_a))
        ]
    loss = task.loss(task.phases(0)[0], nets, batch, 0)
    expected = adversarial + 10 * cycle + 10 * identity * same + 3 * person * (2 - sum(cosines))
    torch.testing.assert_close(loss, expected)
    assert said["cycle"] == pytest.approx(float(cycle) / 2, rel=1e-5)
    extra = {"same": identity > 0, "person": person}
    assert set(said) == {"adversarial", "cycle", *(name for name, there in extra.items() if there)}


def test_the_judges_minimise_half_of_the_squares_of_what_was_made():
    task, nets = job_of("task.pool=0")
    batch = whole()
    a, b = batch.images["a"], batch.images["b"]
    make, judge = task.phases(0)
    task.loss(make, nets, batch, 0)
    with torch.no_grad():
        expected = 0.0
        for name, real, fake in (("a", a, nets["G"]["ba"](b)), ("b", b, nets["G"]["ab"](a))):
            of_real, of_fake = nets["D"][name](real), nets["D"][name](fake)
            expected += 0.5 * ((of_real - 1).square().mean() + of_fake.square().mean())
        for p in nets["G"].parameters():  # the judges see what was made before the generators moved
            p.zero_()
    loss = task.loss(judge, nets, batch, 0)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(p.grad is None for p in nets["G"].parameters())
    assert not task._made


def test_an_update_reads_nothing_from_the_device():
    task, nets = job_of(*POOLED)
    embeds = SimpleNamespace(predict=lambda nets, batch: {"embedding": nets["net"](batch.images["image"])})
    sizes = SimpleNamespace(data=SimpleNamespace(size=SIDE // 2))  # others than those of the translations
    nets["identity"] = Embedder(SimpleNamespace(nets={"net": Person()}, task=embeds, config=sizes))
    embedder._weights.cache_clear()
    with HostReads() as reads:
        for clock in CLOCKS:
            for phase in task.phases(clock):
                task.loss(phase, nets, whole(clock=clock), clock).backward()
    assert reads.found == []
    assert embedder._weights.cache_info().misses == 1  # a copy to the device is a wait too


@functools.cache
def alone():
    return updates(Comm(), POOLED, CLOCKS)


@pytest.mark.parametrize(
    ("world", "words"), [(2, []), (2, ["micro_batch=1"]), (4, []), (2, ["engine=ddp"])], ids=str
)
def test_ranks_and_micro_batches_change_no_gradient_and_no_pool(world, words):
    gradients, state = alone()
    for found, pools in launch(updates, world, [*POOLED, *words], CLOCKS):
        assert found.keys() == gradients.keys()
        for phase in {name.rpartition(" ")[0] for name in gradients}:
            names = [n for n in gradients if n.startswith(f"{phase} ") and not n.endswith(" loss")]
            assert difference([found[n] for n in names], [gradients[n] for n in names]) < 1e-5
        torch.testing.assert_close(pools, state, rtol=0, atol=1e-6)


def test_the_pool_is_a_part_of_the_state():
    gradients, state = alone()
    _, middle = updates(Comm(), POOLED, CLOCKS[:2])
    resumed, end = updates(Comm(), POOLED, CLOCKS[2:], middle)
    assert all(torch.equal(value, gradients[name]) for name, value in resumed.items())
    torch.testing.assert_close(end, state, rtol=0, atol=0)
    forgetful, _ = updates(Comm(), POOLED, CLOCKS[2:])
    assert not torch.equal(forgetful["8 judge loss"], gradients["8 judge loss"])
    with pytest.raises(UserError, match="the pool of a has 8 images, that of the checkpoint 4: give 4"):
        job_of("batch=4", "task.pool=8")[0].load_state(state)


@pytest.mark.parametrize("precision", zero_equality.TOLERANCE)
def test_zero_1_trains_to_the_losses_of_flat(precision, tmp_path_factory):
    job = Job("cyclegan", "", ("images=96", "task.width=8", "optim.warmup=0"))
    found = zero_equality.trained(job, tmp_path_factory.mktemp(precision), precision=precision)
    far = zero_equality.distance(found["flat"], found["zero"])
    assert far <= zero_equality.TOLERANCE[precision]
    first, *_, last = (each["make"] for each in found["flat"])
    assert first - last > 3 * far * first  # there was something to follow


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.size=30"], r"data.size=30: the networks take multiples of 4 .* use data.size=32"),
        (["data.size=20"], "use data.size=24"),
        (["batch=64"], r"batch=64 is more than the task.pool=24 .* batch=24 or less, or task.pool=64"),
        (["data.halves=true", "data.order=plain", "data.a=''", "data.b=''"], "without partners"),
        (["data.order=plain", "data.a=''", "data.b=''"], "task=cyclegan takes pairs of images"),
        (["data.b=domain==0"], "draws A and B from the same samples"),
        (["data.train_b=elsewhere", "task.features=lite0"], "hold A alone where data.train_b is given"),
        (["engine=deepspeed", "engine.deepspeed.stage=2"], r"use .*engine.deepspeed.stage=1"),
        (["task.pool=-1"], "task.pool=-1 is negative"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_submit(words, said):
    with pytest.raises(UserError) as refused:
        check(config_of(*words))
    assert re.search(said, str(refused.value)), refused.value
    assert "\n" not in str(refused.value)


def test_sets_of_smaller_images_are_refused():
    config = config_of("data.size=256")
    shards = MagicMock(folder="shards/x", width=np.array([112, 128]), height=np.array([128, 112]))
    shards.__len__.return_value = 2
    said = "data.train=shards/x holds images of 112 pixels: use data.size=64 or less"
    with pytest.raises(UserError, match=said):
        plan_of(config.task).check(config, {"train": shards})
    shards.width = np.array([11, 128])
    with pytest.raises(UserError, match="images of 11 pixels: pack larger ones"):
        plan_of(config.task).check(config_of("data.size=24"), {"train": shards})


def test_what_is_translated_shown_and_written():
    task, nets = job_of()
    batch = whole(6)
    a, b = batch.images["a"], batch.images["b"]
    with torch.no_grad():
        ways = {way: task.translator(nets, direction=way) for way in ("", "ab", "ba")}
        torch.testing.assert_close(ways[""](a), nets["G"](a, "ab"))
        torch.testing.assert_close(ways["ba"](b), nets["G"](b, "ba"))
        assert ways["ab"].multiple == 4
        assert ways["ab"](torch.zeros(1, 3, 28, 40)).shape == (1, 3, 28, 40)
        rows = task.images(nets, batch, 0)
        assert {name: tuple(row.shape) for name, row in rows.items()} == (
            dict.fromkeys(("ab", "ba"), (4, 3, SIDE, 4 * SIDE))
        )
        given, made, again, same = rows["ba"].split(SIDE, 3)
        torch.testing.assert_close(given, b[:4])
        torch.testing.assert_close(made, ways["ba"](b[:4]))
        torch.testing.assert_close(again, ways["ab"](ways["ba"](b[:4])))
        torch.testing.assert_close(same, ways["ab"](b[:4]))
        found = task.predict(nets, Batch.of_images(a))["image"]
    torch.testing.assert_close(found, ways["ab"](a))
    image = np.full((SIDE, SIDE, 3), 100, np.uint8)
    drawn = task.render(image, {"image": np.full((3, SIDE, SIDE), 151 / 127.5 - 1, np.float32)})
    assert drawn.record == {"change": pytest.approx(51 / 255)}
    assert drawn.image is not None
    assert (drawn.image == 151).all()
    with pytest.raises(UserError, match="direction=up is not known: use ab or ba"):
        task.translator(nets, direction="up")


def test_only_with_features_a_training_judges_translations():
    task, _ = job_of()
    assert (list(task.evaluators), list(task.later)) == (["cycles"], ["ab", "ba"])
    assert [make().asked for make in task.judged_by.values()] == [False, False, True]
    task, _ = job_of("task.features=lite0")
    assert (list(task.evaluators), list(task.later)) == (["cycles", "ab", "ba"], [])
    assert task.metric[0].split("/")[0] in task.evaluators
    assert [task.evaluators[way]().block for way in ("ab", "ba")] == [task.config.eval.batch] * 2
    assert plan_of(task.config.task).runs == {"identity_run": "siamese"}
