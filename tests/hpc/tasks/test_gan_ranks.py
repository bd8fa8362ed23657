"""Adversarial jobs on several ranks: the gradients of penalties, what is random, engines, host reads."""

from pathlib import Path

import numpy as np
import pytest

from data_shards.errors import UserError
from hpc.config.check import check
from hpc.task import build_task
from launch.options.compose import composed
from tests.hpc.training.test_host_reads import ONE, reads_of_updates
from tests.support.adversarial import adversarial_run, drawn, gradients, losses
from tests.support.ranks import launch
from tests.support.sets import pack_faces, pack_set

# Of a gradient's difference at another number of ranks: relative to its largest number, besides what rounding
# leaves of scores, whose gradients are of size 1 and cancel out.
LIMIT, ROUNDING = 1e-5, 2.5e-7
PLAIN = ("optim.name=sgd", "optim.lr=0.01", "precision=fp32", "images=128")
PENALTIES = {"progan": (), "stylegan": ("task.lazy=1",), "dcgan": ("task.penalty=r1", "engine=flat")}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_set(tmp_path_factory.mktemp("set"), identities=8, each=4)


@pytest.mark.parametrize("job", ["progan", "stylegan"])
def test_gradients_of_penalties_are_equal_on_1_and_2_ranks(tmp_path: Path, shards: Path, job: str) -> None:
    """WGAN-GP and R1 through the trainer, at each level, in a fade and at its beginning."""
    one, two = (
        launch(
            gradients,
            world,
            adversarial_run(tmp_path / str(world), job, shards, f"procs={world}", *PLAIN, *PENALTIES[job]),
        )
        for world in (1, 2)
    )
    (wanted,), (found, other) = one, two
    players = ["G", "D"] if job == "progan" else ["G", "D", "D"]
    clocks = range(0, 128, 16)
    assert list(wanted) == [(clock, at, player) for clock in clocks for at, player in enumerate(players)]
    assert found.keys() == wanted.keys()
    for place, parts in wanted.items():
        assert found[place].keys() == parts.keys(), place
        assert max(np.abs(gradient).max() for gradient in parts.values()) > 1e-3
        for name, gradient in parts.items():
            np.testing.assert_array_equal(found[place][name], other[place][name])
            far = np.abs(found[place][name] - gradient).max()
            assert far <= LIMIT * np.abs(gradient).max() + ROUNDING, (place, name)


def test_a_penalty_reaches_the_gradients(tmp_path: Path, shards: Path) -> None:
    """What the ranks agree on is not the gradient of the judgement alone."""
    runs = [
        adversarial_run(tmp_path / gamma, "progan", shards, *PLAIN, f"task.gamma={gamma}")
        for gamma in ("10.0", "0.0")
    ]
    (with_it,), (without,) = (launch(gradients, 1, run) for run in runs)
    one, other = (found[0, 1, "D"]["conv.weight"] for found in (with_it, without))
    assert np.abs(one - other).max() > 0.01 * np.abs(other).max()


@pytest.mark.parametrize("job", PENALTIES)
def test_all_that_is_random_is_equal_on_1_2_and_4_ranks(tmp_path: Path, shards: Path, job: str) -> None:
    whole = {}
    for world in (1, 2, 4):
        run = adversarial_run(tmp_path / str(world), job, shards, f"procs={world}", "images=128")
        parts = launch(drawn, world, run)
        whole[world] = {place: np.concatenate([part[place] for part in parts]) for place in parts[0]}
    names = {"make", "judge"} | ({"points"} if job == "progan" else set())
    if job == "stylegan":
        names |= {f"{name} {kind}" for name in ("make", "judge") for kind in ("other", "mixing", "noise")}
    assert {name for _, name in whole[1]} == names
    assert {clock for clock, _ in whole[1]} == set(range(0, 128, 16))
    for world in (2, 4):
        assert whole[world].keys() == whole[1].keys()
        for place, rows in whole[1].items():
            np.testing.assert_array_equal(whole[world][place], rows)


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-6), ("bf16", 2e-3)])
def test_zero_1_trains_dcgan_to_the_losses_of_flat(
    tmp_path: Path, shards: Path, precision: str, limit: float
) -> None:
    """Six updates of Adam on 2 ranks. `limit`: of differences, relative to 1 or to the figure."""
    found = {}
    for engine in ("flat", "deepspeed"):
        words = (f"engine={engine}", "procs=2", f"precision={precision}", "images=96")
        found[engine] = launch(losses, 2, adversarial_run(tmp_path / engine, "dcgan", shards, *words))
    assert found["flat"][0] == found["flat"][1]
    for flat, zero in zip(found["flat"][0], found["deepspeed"][0], strict=True):
        assert flat.keys() == zero.keys()
        for name in ("make", "judge", "score_real", "score_fake"):
            assert zero[name] == pytest.approx(flat[name], rel=limit, abs=limit), name
    first, *_, last = found["flat"][0]
    assert abs(first["judge"] - last["judge"]) > 10 * limit  # what is compared has moved


@pytest.mark.parametrize(
    ("job", "stage", "said"),
    [
        ("dcgan", 2, "task=dcgan does not run under it: use .*engine.deepspeed.stage=1"),
        ("dcgan", 3, "task=dcgan does not run under it: use .*engine.deepspeed.stage=1"),
        ("progan", 1, "task=progan does not run under it: use engine=flat"),
        ("stylegan", 1, "task=stylegan does not run under it: use engine=flat"),
    ],
)
def test_other_stages_of_zero_are_refused(job: str, stage: int, said: str) -> None:
    words = [f"task={job}", "smoke=true", "engine=deepspeed", f"engine.deepspeed.stage={stage}"]
    with pytest.raises(UserError, match=said):
        check(composed(words))


@pytest.mark.parametrize("job", PENALTIES)
def test_the_host_waits_once_an_update(tmp_path: Path, shards: Path, job: str) -> None:
    words = ("procs=2", "images=160", *PENALTIES[job])
    run = adversarial_run(tmp_path / "run", job, shards, *words)
    assert launch(reads_of_updates, 2, run, build_task, 5) == [[ONE] * 5] * 2


@pytest.mark.parametrize("job", ["vae", "pix2pix", "cyclegan"])
def test_jobs_of_images_wait_once_an_update(tmp_path: Path, job: str) -> None:
    faces = pack_faces(tmp_path / "faces", job, size=32)
    run = adversarial_run(tmp_path / "run", job, faces, "procs=2", "images=96", "engine=flat")
    assert launch(reads_of_updates, 2, run, build_task) == [[ONE] * 3] * 2
