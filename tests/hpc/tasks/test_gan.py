"""The adversarial jobs: their stages, what they refuse, losses at each level, latents, what is shown."""

import functools
import re
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

from data_shards.batch import Batch
from data_shards.errors import UserError
from hpc.config.check import check
from hpc.config.plan import Stage, plan_of
from hpc.config.sizes import sizes
from hpc.config.stages import lengths, num_updates
from hpc.inference.generate import write_matrix
from hpc.task import build_task
from launch.options.compose import composed
from models.equalised import double, halve

JOBS = ("dcgan", "progan", "stylegan")
GROWS = ("progan", "stylegan")
SMALL = ("smoke=true", "data.size=16", "task.stable=64", "task.fade=32", "task.width=8", "task.latents=8")
CLOCKS = {"level 0": 0, "mid-fade": 80, "level 1": 96, "last": 240}  # of SMALL


@functools.cache
def config_of(job, *words):
    return composed([f"task={job}", *SMALL, *words])


def job_of(job, *words, clock=0):
    config = config_of(job, *words)
    check(config)
    task = build_task(config)
    task.clock = clock
    torch.manual_seed(config.seed)
    return task, task.players()


def batch_of(task, clock, n=8):
    """Real images of the stage at `clock`, at the positions that the run has there."""
    side = task.stage(clock).size
    images = torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1
    positions = torch.arange(clock, clock + n)
    return Batch({"image": images}, {}, positions[:, None], positions, seed=task.config.seed)


@pytest.mark.parametrize(
    ("job", "pixels", "batches"),
    [
        ("progan", [4, 8, 16, 32, 64, 128, 256, 512, 1024], [64, 64, 64, 64, 64, 32, 32, 16, 16]),
        ("stylegan", [8, 16, 32, 64, 128, 256, 512, 1024], [256, 256, 128, 64, 32, 32, 32, 32]),
    ],
)
def test_the_real_jobs_grow_as_their_papers_do(job, pixels, batches):
    config = composed([f"task={job}"])
    check(config)
    stages = plan_of(config.task).stages(config)
    assert [stage.size for stage in stages] == pixels
    assert [stage.batch for stage in stages] == batches
    assert [4 << stage.level for stage in stages] == pixels
    each = {"progan": 800_000, "stylegan": 600_000}[job]  # images of a level, and over which it comes in
    assert [stage.fade for stage in stages] == [0] + [each] * (len(stages) - 1)
    assert [stage.reset_moments for stage in stages] == [False] + [True] * (len(stages) - 1)
    for stage, length in zip(stages[:-1], lengths(stages, config.images)[:-1], strict=True):
        assert length % stage.batch == 0
        assert 0 <= length - each - stage.fade < stage.batch
    assert stages[-1].clock + each < config.images  # the last level has come in long before the end
    rates = {"progan": [1.0] * 9, "stylegan": [1.0, 1.0, 1.0, 1.0, 1.5, 2.0, 3.0, 3.0]}[job]
    assert [stage.rate for stage in stages] == rates


def test_a_stage_is_whole_batches_long():
    config = config_of("progan", "images=400", "task.stable=50", "task.fade=30", "task.batches=[16,24,8]")
    stages = plan_of(config.task).stages(config)
    # 50 images are 4 batches of 16; 80 are 4 of 24; the rate of the third level is that of the yaml
    assert stages == [
        Stage(0, 16, 4),
        Stage(64, 24, 8, level=1, fade=30, reset_moments=True),
        Stage(160, 8, 16, level=2, fade=30, reset_moments=True, rate=1.5),
    ]
    assert num_updates(stages, 400) == 4 + 4 + 30
    task = build_task(config)
    assert [task.fade(clock) for clock in (0, 64, 88, 94, 112, 160, 175, 400)] == (
        [1, 0, 24 / 30, 1, 1, 0, 0.5, 1]
    )


def test_dcgan_has_one_stage():
    config = composed(["task=dcgan"])
    assert plan_of(config.task).stages(config) == [Stage(0, 128, 64)]
    assert [stage.size for stage in sizes(config).stages] == [64]


@pytest.mark.parametrize(
    ("job", "words", "said"),
    [
        ("dcgan", ["data.size=48"], "data.size=48: dcgan makes images of a power of two .* data.size=64"),
        ("dcgan", ["data.size=8"], "from 16 to 256 pixels: use data.size=16"),
        ("dcgan", ["data.size=512"], "use data.size=256"),
        ("stylegan", ["data.size=20"], "data.size=20: stylegan .* use data.size=32"),
        ("progan", ["data.size=2048"], "use data.size=1024"),
        ("progan", ["task.start=6"], "task.start=6 is not a power of two from 4 to data.size=16"),
        ("progan", ["task.start=32"], "task.start=32 .* use task.start=4"),
        ("progan", ["task.batches=[16,16]"], r"task.batches=.* has 2 of the 3 levels from 4 to 16 pixels"),
        ("stylegan", ["task.rates=[1.0]"], "task.rates=.* has 1 of the 3 levels"),
        ("progan", ["task.penalty=none"], "task.loss=wgan needs a bound on slopes: use task.penalty=wgan"),
        ("dcgan", ["task.loss=wgan", "engine=flat"], "use task.penalty=wgan"),
        ("progan", ["task.group=3"], "batch=16 is not divisible by 1 ranks x 3 images that stay together"),
        ("stylegan", ["task.batches=[16,12,16]", "procs=2"], "stage at clock 64: batch=12 .* use 8 or 16"),
        ("stylegan", ["engine=ddp"], "engine=ddp: task=stylegan does not run under it: use engine=flat"),
        ("progan", ["engine=deepspeed"], "use engine=flat"),
        ("dcgan", ["engine=ddp", "task.penalty=r1"], "use engine=flat"),
        ("progan", ["task.network=biggan"], "task.network=biggan"),
        ("stylegan", ["task.truncation=1.5"], "task.truncation"),
        (
            "stylegan",
            ["images=160"],
            "images=160 ends before the level of 16 pixels is there, at 192: use images=192 or more, or "
            "shorter levels, such as task.stable=26 task.fade=26",
        ),
        ("progan", ["images=80"], "is there, at 192: use images=192 or more$"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_submit(job, words, said):
    with pytest.raises(UserError) as refused:
        check(config_of(job, *words))
    assert re.search(said, str(refused.value)), refused.value


def test_a_short_run_is_accepted_as_the_refusal_says():
    words = ["task=stylegan", "data.size=32", "images=20_000", "procs=4"]
    with pytest.raises(UserError) as refused:
        check(composed(words))
    typed = re.findall(r"task\.\w+=[\d_]+", str(refused.value))
    assert len(typed) == 2
    check(composed([*words, *typed]))


def test_sets_of_smaller_images_are_refused():
    config = config_of("dcgan", "data.size=64")
    plan = plan_of(config.task)
    shards = MagicMock(folder="shards/x", width=np.array([80, 31]), height=np.array([90, 40]))
    shards.__len__.return_value = 2
    with pytest.raises(UserError, match=r"data.train=shards/x holds images of 31 pixels: use data.size=16"):
        plan.check(config, {"train": shards})
    shards.width = np.array([80, 32])
    plan.check(config, {"train": shards})


@pytest.mark.parametrize("clock", CLOCKS.values(), ids=CLOCKS)
@pytest.mark.parametrize("job", GROWS)
def test_each_phase_has_a_finite_loss_and_reaches_no_absent_parameter(job, clock):
    task, nets = job_of(job)
    batch = batch_of(task, clock, n=4)
    level, fade = task.level(clock)
    for phase in task.phases(clock):
        for net in nets.values():
            net.zero_grad()
            net.requires_grad_(net is nets[phase.player])
        loss = task.loss(phase, nets, batch, clock)
        assert loss.shape == ()
        assert torch.isfinite(loss)
        loss.backward()
        player = nets[phase.player]
        with_gradient = {name for name, p in player.named_parameters() if p.grad is not None}
        lowest = level - 1 if fade < 1 else level  # the image of the level below is still shown
        used = {int(name.split(".")[1]) for name in with_gradient if name.startswith("colours.")}
        assert used == set(range(max(lowest, 0), level + 1))
        blocks = {int(name.split(".")[1]) for name in with_gradient if name.startswith("blocks.")}
        assert blocks == set(range(level))


def test_dcgan_has_finite_losses():
    task, nets = job_of("dcgan")
    for phase in task.phases(0):
        loss = task.loss(phase, nets, batch_of(task, 0), 0)
        loss.backward()
        assert torch.isfinite(loss)
    assert all(p.grad is not None for net in nets.values() for p in net.parameters())


def test_what_is_due_is_what_the_penalty_asks_for():
    phases = {job: job_of(job)[0].phases(0) for job in JOBS}
    assert [phase.name for phase in phases["dcgan"]] == ["make", "judge"]
    assert [(phase.name, phase.second_order) for phase in phases["progan"]] == [
        ("make", False),
        ("judge", True),
    ]
    slopes = phases["stylegan"][-1]
    assert (slopes.name, slopes.player, slopes.every, slopes.second_order) == ("slopes", "D", 16, True)


def test_the_lazy_penalty_carries_its_interval():
    losses = []
    for lazy in (1, 8):
        task, nets = job_of("stylegan", f"task.lazy={lazy}")
        losses.append(task.loss(task.phases(0)[-1], nets, batch_of(task, 240), 240).item())
    assert losses[0] > 0
    assert losses[1] == pytest.approx(8 * losses[0], rel=1e-6)


def test_a_task_reports_scores_and_where_it_is():
    task, nets = job_of("progan")
    said: dict[str, float] = {}
    task.report = lambda name, value: said.__setitem__(name, float(value))
    task.loss(task.phases(80)[1], nets, batch_of(task, 80), 80)
    assert said.keys() == {
        "score_real",
        "score_fake",
        "sign_real",
        "slopes_between",
        "resolution",
        "fade",
    }
    assert (said["resolution"], said["fade"]) == (8.0, 0.5)
    assert -1 <= said["sign_real"] <= 1


@pytest.mark.parametrize("job", JOBS)
def test_all_that_is_random_is_equal_however_the_batch_is_split(job):
    task, _ = job_of(job)
    whole = batch_of(task, 240, n=16)

    def drawn(batch, name="make"):
        """What the generator is given, by its place or name: rows of the batch."""
        given = {}

        def record(z, *level, **words):
            given.update(words, z=z)
            return z

        task.make({"G": record}, batch, name, 240)
        return given

    wanted = drawn(whole)
    assert wanted.keys() == ({"z", "noise", "other", "crossover"} if job == "stylegan" else {"z"})
    assert not torch.equal(wanted["z"], drawn(whole, "judge")["z"])
    for world in (2, 4):
        share = 16 // world
        parts = [drawn(whole[rank * share : (rank + 1) * share]) for rank in range(world)]
        for name, rows in wanted.items():
            assert torch.equal(torch.cat([part[name] for part in parts]), rows)


def test_without_noise_no_layer_is_given_any(tmp_path):
    task, nets = job_of("stylegan", "task.noise=false", "task.mixing=0.0")
    batch = batch_of(task, 240, n=16)
    given = {}
    task.make({"G": lambda z, *level, **words: given.update(words) or z}, batch, "make", 240)
    assert given == {}
    task.make(nets, batch, "make", 240).square().mean().backward()
    strengths = [value for name, value in nets["G"].named_parameters() if name.endswith("strength")]
    assert strengths
    assert all(value.grad is None for value in strengths)
    images = task.generator(nets)
    assert images.noise_size == 0
    write_matrix(images, tmp_path / "mix.png", rows=2, columns=3, crossover=1, seed=0)
    assert (tmp_path / "mix.png").stat().st_size > 0


def test_real_images_come_in_with_the_level():
    task, _ = job_of("stylegan")
    for clock, share in ((64, 0.0), (80, 0.5), (96, 1.0), (0, 1.0)):
        batch = batch_of(task, clock)
        real, coarse = batch.images["image"], double(halve(batch.images["image"]))
        torch.testing.assert_close(task.real(batch, clock), torch.lerp(coarse, real, share))


@pytest.mark.parametrize("job", JOBS)
def test_what_is_shown_and_predicted_has_the_size_of_the_stage(job):
    for clock in (80, 240):
        task, nets = job_of(job, clock=clock)
        side = 16 if job == "dcgan" else task.stage(clock).size
        with torch.no_grad():
            shown = task.images(nets, batch_of(task, clock), clock)
            assert {name: tuple(images.shape) for name, images in shown.items()} == {
                "generated": (32, 3, side, side),
                "batch": (8, 3, side, side),
            }
            assert shown["generated"].abs().max() <= 1
            for net in nets.values():
                net.eval()
            found = task.predict(nets, Batch.of_positions(torch.arange(5), 3))
        assert found["image"].shape == (5, 3, side, side)
        assert found["image"].abs().max() <= 1
        assert found["image"][0].ne(found["image"][1]).any()


def test_truncation_0_is_one_face_and_1_is_as_trained():
    task, nets = job_of("stylegan", clock=240)
    latents = Batch.of_positions(torch.arange(4), 0).latents("shown", 8)
    with torch.no_grad():
        mean, full = (task.generator(nets, truncation=share)(latents) for share in (0.0, 1.0))
        torch.testing.assert_close(mean, mean[:1].expand_as(mean))
        torch.testing.assert_close(full, nets["G"](latents, 2))
        assert full[0].ne(full[1]).any()


def test_a_lower_level_is_the_network_of_that_level():
    task, nets = job_of("progan", clock=200)
    latents = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = task.generator(nets, level=1)
        assert (found.side, found.latents, found.layers) == (8, 8, 0)
        torch.testing.assert_close(found(latents), nets["G"](latents, 1, 1.0))


@pytest.mark.parametrize(
    ("job", "options", "said"),
    [
        ("dcgan", {"level": 1}, "level=1: dcgan does not grow"),
        ("progan", {"level": 2}, r"level=2: 80 images have trained the levels 0 to 1 \(4 to 8 pixels\)"),
        ("progan", {"truncation": 0.7}, "truncation=0.7: progan has no styles"),
    ],
)
def test_options_that_do_not_fit_a_network_are_refused(job, options, said):
    task, nets = job_of(job, clock=80)
    with pytest.raises(UserError, match=said):
        task.generator(nets, **options)


def test_without_features_a_training_judges_nothing_and_evaluate_does():
    task, _ = job_of("dcgan")
    assert (list(task.evaluators), list(task.judged_by)) == ([], ["generated"])
    task, _ = job_of("dcgan", "task.features=lite0")
    assert list(task.evaluators) == list(task.judged_by) == ["generated"]
