"""pix2pix: what it refuses, losses and dropout, both directions, own statistics, what it shows and says."""

import functools
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data_shards.batch import Batch
from data_shards.errors import UserError
from data_shards.loading.loader import EvalLoader, TrainLoader
from data_shards.shard_format.shard_set import ShardSet
from hpc.config.check import check
from hpc.config.plan import Stage, plan_of
from hpc.data import orders, views
from hpc.distributed.comm import Comm
from hpc.evaluation.base import JudgedSet
from hpc.evaluation.run import evaluate
from hpc.losses import adversarial
from hpc.task import build_task
from hpc.tasks.pix2pix_plan import Palette, direction_of, palette_of
from launch.options.compose import composed
from launch.options.conf import CONF
from tests.support.counts import kept_bytes
from tests.support.sets import pack_faces

LABELS = "task.palette=dark:000000; light:ffffff"


@functools.cache
def config_of(*words):
    return composed(["task=pix2pix", "smoke=true", *words])


def job_of(*words, direction="BtoA"):
    config = config_of(*words)
    check(config)
    task = build_task(config)
    task.begin({"train": SimpleNamespace(manifest={"options": {"direction": direction}})})
    torch.manual_seed(config.seed)
    return task, task.players()


def batch_of(n=4, side=32, first=0):
    drawn = torch.Generator().manual_seed(1)
    images = {name: torch.rand(n, 3, side, side, generator=drawn) * 2 - 1 for name in "ab"}
    positions = torch.arange(first, first + n)
    return Batch(images, {}, positions[:, None], positions)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return pack_faces(tmp_path_factory.mktemp("pairs"), "pix2pix", size=32)


def test_the_real_job_is_that_of_the_paper():
    config = composed(["task=pix2pix"])
    check(config)
    assert plan_of(config.task).stages(config) == [Stage(0, 1, 256)]
    assert (config.optim.name, config.optim.lr, config.optim.betas) == ("adam", 2e-4, [0.5, 0.999])
    assert (config.norm_stats, config.norm_group) == ("group", 1)  # each image by itself, at any batch
    view = views.training(config, 256)
    for area, side in ((view.crop_area, 286), ((0.9262, 0.9262), 266)):
        assert round(256 * area[0] ** 0.5) == round(256 * 256 / side)
    assert "0.9262, 0.9262]: by way of 266" in (CONF / "task" / "pix2pix.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.size=48"], "data.size=48 is not a power of two: use 32 or 64"),
        (["data.size=16"], "data.size=16 is out of range: use a power of two from 32 to 512"),
        (["data.size=1024"], "data.size=1024 is out of range"),
        (["data.halves=false"], "takes pairs of images: use data.order=unpaired"),
        (["data.halves=false", "data.order=unpaired", "data.a=x==0", "data.b=x==1"], "use data.halves=true"),
        (["data.stream=true"], "data.stream=true: which half is the input stands in the manifest"),
        (
            ["data.augment.hue=10"],
            "hue=10 would recolour the targets too: use data.augment.hue=0",
        ),
        (
            ["engine=deepspeed", "engine.deepspeed.stage=2"],
            "use engine=flat or engine=ddp or engine=deepspeed",
        ),
        (["task.test_stats=own"], "task.test_stats=own is not known: use batch or running"),
        (["task.palette=red"], "task.palette=red: red is not name:RRGGBB: type for example"),
        (["task.palette=a:000000"], "one colour tells no labels apart"),
        (["task.palette=a:000000; a:ffffff"], "the name a stands there twice"),
        (["task.palette=a:00ff00; b:00FF00"], "the colour 00ff00 stands there twice"),
        (["batch=1", "procs=2"], "batch=1 is not divisible by 2 ranks: use 2"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_submit(words, said):
    with pytest.raises(UserError) as refused:
        check(config_of(*words))
    assert re.search(said, str(refused.value)), refused.value


def test_sets_that_hold_no_pairs_are_refused():
    config = config_of("data.size=64")

    def refused(**facts):
        given = {"manifest": {"name": "x", "options": {"direction": "AtoB"}}, "folder": "x/train"}
        sides = {"width": np.array([128, 130]), "height": np.array([64, 64])}
        shards = type("Shards", (), given | sides | facts | {"__len__": lambda self: 2})()
        try:
            plan_of(config.task).check(config, {"train": shards})
        except UserError as error:
            return str(error)
        return ""

    assert refused() == ""
    assert "x: does not state which half is the input: pack it by source=paired" in refused(
        manifest={"name": "x"}
    )
    assert "data.train=x/train: 1 of 2 images have an odd width" in refused(width=np.array([128, 131]))
    assert "holds halves of 30 pixels: use data.size=32" in refused(width=np.array([60, 130]))
    assert refused(width=np.array([64, 130])) == ""
    both = [SimpleNamespace(manifest={"options": {"direction": way}}) for way in ("AtoB", "BtoA")]
    with pytest.raises(UserError, match=r"data\.train has its input in half a, data\.eval in half b"):
        direction_of(dict(zip(("train", "eval"), both, strict=True)))
    assert direction_of({}) is None


def test_a_palette_names_colours():
    assert palette_of("back ground: 000000;person:FF8001 ;") == Palette(
        ("back ground", "person"), ((0, 0, 0), (255, 128, 1))
    )
    assert palette_of(" ") == Palette()
    assert job_of()[0].metric == ("paired/l1", "min")
    assert job_of(LABELS)[0].metric == ("paired/iou", "max")


@pytest.mark.parametrize(("direction", "names"), [("AtoB", ("a", "b")), ("BtoA", ("b", "a"))])
def test_the_losses_are_those_of_the_paper(direction, names):
    task, nets = job_of("task.l1=7.0", direction=direction)
    batch = batch_of()
    given, target = (batch.images[name] for name in names)
    judge, make = task.phases(0)
    assert (judge.player, make.player) == ("D", "G")
    said = {}
    task.report = said.__setitem__
    fake = task.make(nets["G"], given, batch)
    wanted = adversarial.vanilla_judge(nets["D"](given, target), nets["D"](given, fake))
    torch.testing.assert_close(task.loss(judge, nets, batch, 0), wanted)
    wanted = adversarial.vanilla_generator(nets["D"](given, fake)) + 7 * (fake - target).abs().mean()
    loss = task.loss(make, nets, batch, 0)
    torch.testing.assert_close(loss, wanted)
    assert said.keys() == {"l1", "score_real", "score_fake"}
    loss.backward()
    assert [name for name, p in nets["G"].named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("words", [(), ("data.size=128", "task.width=4")])
def test_the_plan_knows_parameters_and_what_an_image_keeps(words):
    task, nets = job_of(*words)
    numbers, kept = task.plan.counts(task.config)
    assert numbers == sum(p.numel() for net in nets.values() for p in net.parameters())
    batch = batch_of(2, side=task.config.data.size)
    judge = task.phases(0)[1]
    held = kept_bytes(lambda: task.loss(judge, nets, batch, 0), without=tuple(nets.values()))
    assert kept == pytest.approx(held / len(batch), rel=0.2)
    full = composed(["task=pix2pix"])
    assert plan_of(full.task).counts(full)[0] == 54_413_955 + 2_768_705


def test_a_judge_sends_nothing_to_the_generator():
    task, nets = job_of()
    task.loss(task.phases(0)[0], nets, batch_of(), 0).backward()
    assert all(p.grad is None for p in nets["G"].parameters())
    assert all(p.grad is not None for p in nets["D"].parameters())


def test_dropout_is_equal_however_the_batch_is_split():
    task, nets = job_of()
    whole = batch_of(8, first=16)

    def noise_of(given, noise=None):
        return noise

    wanted = task.make(noise_of, whole.images["b"], whole)
    assert wanted.shape == (8, nets["G"].noise_size)
    for world in (2, 4):
        share = 8 // world
        parts = [whole[rank * share : (rank + 1) * share] for rank in range(world)]
        found = torch.cat([task.make(noise_of, part.images["b"], part) for part in parts])
        assert torch.equal(found, wanted)
    none, _ = job_of("task.dropout=false")
    assert none.make(noise_of, whole.images["b"], whole) is None


def test_a_translation_does_not_depend_on_others_and_takes_other_sizes():
    task, nets = job_of()
    nets["G"].eval()
    images = batch_of().images["a"]
    with torch.no_grad():
        made = task.predict(nets, Batch.of_images(images))["image"]
        alone = task.predict(nets, Batch.of_images(images[2:3]))["image"]
        translator = task.translator(nets)
        assert translator.multiple == 32
        torch.testing.assert_close(translator(images), made, rtol=0, atol=0)
        wide = translator(torch.cat([images, images], 3))
    torch.testing.assert_close(alone, made[2:3], rtol=1e-5, atol=1e-6)
    assert wide.shape == (4, 3, 32, 64)
    assert made.abs().max() <= 1
    with pytest.raises(UserError, match="direction=ab: a run of pix2pix translates one way"):
        task.translator(nets, direction="ab")


def test_statistics_and_dropout_at_test_time_are_as_typed():
    images = batch_of().images["a"]
    made = {}
    for words in ((), ("task.test_stats=running",), ("task.test_dropout=false",), ("task.dropout=false",)):
        task, nets = job_of(*words)
        with torch.no_grad():
            made[words] = task.predict({"G": nets["G"].eval()}, Batch.of_images(images))["image"]
            if words == ("task.test_stats=running",):
                noise = task.test_noise(nets["G"], images)
                torch.testing.assert_close(made[words], nets["G"](images, noise))
    own, running, without, never = made.values()
    assert (own - running).abs().max() > 1e-3
    assert (own - without).abs().max() > 1e-3
    torch.testing.assert_close(without, never, rtol=0, atol=0)


def test_both_halves_are_cut_and_flipped_alike(faces):
    config = config_of("data.augment.crop_area=[0.8012,0.8012]")
    shards = ShardSet.open(faces / "train")
    loader = TrainLoader(
        orders.build(config, [shards]),
        [shards],
        seed=3,
        rank=0,
        world=1,
        batch=16,
        view=views.training(config, 32),
        threads=1,
        ahead=1,
        backend="host",
    )
    loader.start(0)
    batch = loader.next()
    loader.close()
    assert batch.images.keys() == {"a", "b"}
    placed = batch.placed
    left, right = placed[0::2], placed[1::2]
    np.testing.assert_array_equal(left.flip, right.flip)
    assert 0 < left.flip.sum() < 16
    np.testing.assert_array_equal(left.crop + np.array([32, 0, 0, 0]), right.crop)
    np.testing.assert_array_equal(left.crop[:, 2:], 29)  # 32 * 256 / 286
    assert len(np.unique(left.crop[:, :2], axis=0)) > 4


def test_a_held_out_set_is_judged_by_its_own_direction(faces):
    task, nets = job_of("task.palette=background:000000; skin:000080; hair:800000")
    shards = ShardSet.open(faces / "eval")
    view = views.evaluation(task.config, 32)

    def batches(comm):
        return EvalLoader(shards, rank=comm.rank, world=comm.world, batch=5, view=view)

    seen = []
    task.predict = lambda nets, batch: seen.append(batch) or {"image": batch.images["a"]}
    reports, _ = evaluate(task, nets, JudgedSet(batches, shards), Comm(), channels_last=False)
    assert reports["paired"].scalars["l1"] == 0.0  # `a`, the parts, is the target of these
    assert reports["paired"].scalars["iou"] == 1.0
    assert [row[0] for row in reports["paired"].tables["overlap"].rows] == ["background", "skin", "hair"]
    assert all(torch.equal(batch.images["image"], batch.images["b"]) for batch in seen)


def test_what_is_shown_and_what_is_said():
    task, nets = job_of()
    for net in nets.values():
        net.eval()
    batch = batch_of(10)
    with torch.no_grad():
        shown = task.images(nets, batch, 0)["input_output_target"]
    assert shown.shape == (8, 3, 32, 96)
    torch.testing.assert_close(shown[..., :32], batch.images["b"][:8])
    torch.testing.assert_close(shown[..., 64:], batch.images["a"][:8])
    grey = np.full((32, 32, 3), 100, np.uint8)
    said = task.render(grey, {"image": np.full((3, 32, 32), 151 / 127.5 - 1)})
    assert (said.image == 151).all()
    assert said.record == {"change": pytest.approx(0.2)}
    labels, _ = job_of(LABELS)
    half = np.concatenate([np.full((3, 8, 32), 0.9), np.full((3, 24, 32), -0.7)], 1)
    assert labels.render(grey, {"image": half}).record == {"dark": 0.75, "light": 0.25}
