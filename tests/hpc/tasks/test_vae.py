"""The variational autoencoder: what it costs and refuses, its loss, counted noise, predictions."""

import functools
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from torch import nn

from data_shards.batch import Batch, pixels_of
from data_shards.errors import UserError
from hpc.config.check import check
from hpc.config.plan import Stage, plan_of
from hpc.config.sizes import sizes
from hpc.generator import Autoencoder
from hpc.metrics import paired as metrics
from hpc.task import build_task
from launch.options.compose import composed
from models.vae import sample
from tests.support.counts import kept_bytes, parameters, with_statistics

SMALL = ("smoke=true", "task.latents=6", "task.width=4")


@functools.cache
def config_of(*words):
    return composed(["task=vae", *words])


def job_of(*words):
    config = config_of(*SMALL, *words)
    check(config)
    task = build_task(config)
    torch.manual_seed(config.seed)
    return task, task.players()


def batch_of(n=12, side=16, clock=48):
    images = torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1
    positions = torch.arange(clock, clock + n)
    return Batch({"image": images}, {}, positions[:, None], positions, seed=0)


def test_the_real_job_is_the_face_vae_of_the_book():
    config = config_of()
    check(config)
    assert [*sizes(config).stages] == [Stage(0, 128, 32)]
    with torch.device("meta"):
        net = build_task(config).players()["VAE"]
    assert (with_statistics(net.encoder), with_statistics(net.decoder)) == (653_584, 700_803)
    assert (config.task["reconstruction"], net.latents) == (2000, 200)
    assert (config.optim.name, config.optim.lr) == ("adam", 0.0005)


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("words", [(), ("task.width=24", "task.latents=7")])
def test_the_plan_states_what_the_networks_cost(size, words):
    """Parameters exactly, what the backward pass keeps within a tenth."""
    config = config_of(f"data.size={size}", *words)
    counts = plan_of(config.task).counts
    assert counts
    net = build_task(config).players()["VAE"]
    assert counts(config)[0] == parameters(net)
    if words:
        assert kept_by_a_step(net, size) == pytest.approx(counts(config)[1], rel=0.1)


def kept_by_a_step(net: nn.Module, size: int) -> float:
    """Bytes of an image that autograd keeps: 16 images, so that weights count for little."""
    images = torch.zeros(16, 3, size, size)
    return (
        kept_bytes(
            lambda: (net(images, torch.zeros(16, net.latents))[0] - images).square().mean(), without=(net,)
        )
        / 16
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.size=48"], "data.size=48 is not a power of two: use 32 or 64"),
        (["data.size=8"], "data.size=8 is out of range: use a power of two from 16 to 256"),
        (["data.size=512"], "use a power of two from 16 to 256"),
        (["task.reconstruction=0"], "task.reconstruction=0"),
        (["task.latents=0"], "task.latents=0"),
        (["batch=2", "procs=2"], "batch=2 over 2 ranks with micro_batch=0 has a micro batch of one image"),
        (["batch=5", "micro_batch=4"], "use batch=8 micro_batch=0"),
        (["batch=1", "norm_stats=sync"], "batch=1 over 1 ranks with micro_batch=0 has a micro batch of one"),
        (["norm_stats=group", "norm_group=1"], "use norm_group=8"),
        (["engine=deepspeed", "engine.deepspeed.stage=2"], "use engine=ddp or engine=flat"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_submit(words, said):
    with pytest.raises(UserError) as refused:
        check(config_of(*words))
    assert said in str(refused.value)


def test_sets_of_smaller_images_are_refused():
    config = config_of("data.size=64")
    shards = MagicMock(folder="shards/x", width=np.array([80, 31]), height=np.array([90, 40]))
    shards.__len__.return_value = 2
    with pytest.raises(UserError, match=r"data\.train=shards/x holds images of 31 pixels: use data.size=16"):
        plan_of(config.task).check(config, {"train": shards})


def test_the_loss_is_the_weighted_difference_and_the_divergence():
    task, nets = job_of()
    said: dict[str, float] = {}
    task.report = lambda name, value: said.__setitem__(name, float(value))
    batch, net = batch_of(), nets["VAE"]
    (phase,) = task.phases(0)
    loss = task.loss(phase, nets, batch, 0)
    loss.backward()
    loss = loss.detach()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []
    with torch.no_grad():
        mean, log_variance = net.encoder(batch.images["image"])
        made = net.decoder(sample(mean, log_variance, batch.latents("reconstruct", 6)))
    squared = (((made + 1) / 2 - (batch.images["image"] + 1) / 2) ** 2).mean()
    divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1).mean()
    assert float(loss) == pytest.approx(float(2000 * squared + divergence), rel=1e-5)
    assert said == pytest.approx({"squared_difference": float(squared), "divergence": float(divergence)})


def test_latents_of_the_training_are_equal_however_the_batch_is_split():
    task, nets = job_of()
    batch, net = batch_of(), nets["VAE"].eval()  # norms by statistics, so that rows do not meet
    (phase,) = task.phases(0)
    with torch.no_grad():
        whole = task.loss(phase, nets, batch, 0)
        for world in (2, 3, 4):
            share = len(batch) // world
            parts = [
                task.loss(phase, nets, batch[rank * share : (rank + 1) * share], 0) for rank in range(world)
            ]
            assert float(sum(parts) / world) == pytest.approx(float(whole), rel=1e-6)
        plain = net(batch.images["image"])[0]
    assert (task.predict(nets, batch)["image"] - plain).abs().max() < 1e-6  # noise is for the training alone


def test_it_answers_images_and_positions():
    task, nets = job_of()
    for net in nets.values():
        net.eval()
    batch = batch_of(5)
    with torch.no_grad():
        found = task.predict(nets, batch)
        mean, _ = nets["VAE"].encoder(batch.images["image"])
        torch.testing.assert_close(found["latent"], mean)
        torch.testing.assert_close(found["image"], nets["VAE"].decoder(mean))
        made = task.predict(nets, Batch.of_positions(torch.arange(4), 3))
        assert list(made) == ["image"]
        assert made["image"].shape == (4, 3, 16, 16)
        assert made["image"][0].ne(made["image"][1]).any()
        coder = task.generator(nets)
        assert isinstance(coder, Autoencoder)
        assert (coder.latents, coder.side, coder.noise_size) == (6, 16, 0)
        torch.testing.assert_close(coder(coder.encode(batch.images["image"])), found["image"])
        torch.testing.assert_close(coder.at(Batch.of_positions(torch.arange(4), 3)), made["image"])
    for options, text in (({"level": 1}, "level=1"), ({"truncation": 0.5}, "truncation=0.5")):
        with pytest.raises(UserError, match=text):
            task.generator(nets, **options)


def test_the_monitor_shows_originals_above_reconstructions_and_fixed_latents():
    task, nets = job_of()
    for net in nets.values():
        net.eval()
    batch = batch_of(7)
    with torch.no_grad():
        shown = task.images(nets, batch, 48)
        later = task.images(nets, batch_of(7, clock=96), 96)
        made = task.predict(nets, batch)["image"]
    assert {name: tuple(images.shape) for name, images in shown.items()} == {
        "reconstructed": (7, 3, 32, 16),
        "generated": (32, 3, 16, 16),
    }
    torch.testing.assert_close(shown["reconstructed"][:, :, :16], batch.images["image"])
    torch.testing.assert_close(shown["reconstructed"][:, :, 16:], made)
    assert torch.equal(shown["generated"], later["generated"])


def test_a_record_has_the_figures_and_the_latent():
    task, nets = job_of()
    nets["VAE"].eval()
    batch = batch_of(1)
    with torch.no_grad():
        found = {name: value[0].numpy() for name, value in task.predict(nets, batch).items()}
    image = pixels_of(batch.images["image"])[0]
    rendered = task.render(image, found)
    made = np.rint((found["image"].transpose(1, 2, 0) + 1) * 127.5)
    assert rendered.record["ssim"] == pytest.approx(float(metrics.ssim(made[None], image[None])[0]))
    assert rendered.record["l1"] == pytest.approx(np.abs(made - image).mean() / 255)
    assert rendered.record["latent"].shape == (6,)
    assert rendered.image is not None
    assert rendered.image.shape == (256, 512, 3)


def test_generated_images_are_judged_where_features_are_named():
    task, _ = job_of()
    assert list(task.evaluators) == ["reconstruction"]
    assert set(task.judged_by) == {"generated", "reconstruction"}
    task, _ = job_of("task.features=lite0")
    assert list(task.evaluators) == ["reconstruction", "generated"]
