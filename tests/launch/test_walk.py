"""Every kind of job walks the same way: trained, killed, resumed, audited, evaluated, exported, predicted."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data_shards.batch import Batch
from hpc.config.plan import kind_of
from hpc.inference.predictor import load_run
from launch.cli import main
from launch.commands.audit_resume import Case
from launch.options.compose import task_yaml
from launch.options.conf import choices, plan_of_task
from tests.support import tiny
from tests.support.ranks import launch
from tests.support.small_set import jpeg, photo
from tests.support.walk import JOBS, SETS, Job, audited, forked, judged, walker_of

REAL = choices("task")  # before the tiny ones are known


@pytest.fixture(scope="module", autouse=True)
def _tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with tiny.submittable(tmp_path_factory.mktemp("conf") / "conf"), forked():
        yield


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a set by its name, packed once."""
    made: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name) / "shards"
            SETS[name](made[name])
        return made[name]

    return of


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loose")
    (folder / "a.jpg").write_bytes(jpeg(photo(1, 60, 40)))
    cv2.imwrite(str(folder / "b.png"), photo(2, 33, 50))
    return folder


@pytest.mark.parametrize("job", JOBS, ids=[job.label for job in JOBS])
def test_a_job_walks(
    job: Job,
    packed: Callable[[str], Path],
    loose: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    walker = walker_of(job, tmp_path, packed(job.data) if job.data else None)
    passed = audited(walker, "1,2")
    said = capsys.readouterr().out
    assert passed, said
    assert said.count("equal bit for bit") == 2
    assert said.count("noticed:") >= 2
    run = tmp_path / "runs" / "straight1"  # of two ranks

    copies = [shutil.copytree(run, tmp_path / f"by{world}", symlinks=True) for world in (1, 2, 3)]
    scalars = [launch(judged, world, str(copy)) for world, copy in enumerate(copies, 1)]
    figures, task = scalars[0][0], load_run(run).task
    assert bool(figures) == bool(task.evaluators)
    assert all(np.isfinite(list(figures.values())))
    assert all(found == figures for by_world in scalars for found in by_world)
    if task.evaluators:
        assert main(["evaluate", str(run), "checkpoint=last", "bootstrap=0"]) == 0
    assert main(["export", str(run), f"out={tmp_path / 'net'}", "onnx=false"]) == 0
    generates(run, tmp_path / "made")
    translates(run, loose, tmp_path / "translated")
    if "images" not in task.takes:
        return
    out = tmp_path / "out"
    assert main(["predict", str(run), f"in={loose}", f"out={out}", "format=json", "draw=true"]) == 0
    records = json.loads((out / "predictions.json").read_text())
    assert [record["image"] for record in records] == ["a.jpg", "b.png"]
    assert all(np.isfinite(list(numbers(record))).all() and len(record) > 1 for record in records)
    assert len(list((out / "drawn").iterdir())) == 2


@pytest.mark.parametrize("task", sorted(set(REAL) - {job.task for job in JOBS}))
def test_a_job_of_a_kind_that_walks_is_as_exact(
    task: str, loose: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its yaml trains, is killed, resumed and audited on 2 ranks, judged on 1 and 2, and predicts."""
    engines = plan_of_task(task).engines
    walker = walker_of(Job(task, "", engine="ddp" if "ddp" in engines else engines[0]), tmp_path, None)
    assert audited(walker, "2", short=True), capsys.readouterr().out
    run = tmp_path / "runs" / "straight0"
    copy = shutil.copytree(run, tmp_path / "copy", symlinks=True)
    alone, both = (launch(judged, world, str(folder)) for world, folder in ((1, copy), (2, run)))
    job = load_run(run).task
    assert alone[0] == both[0] == both[1]
    assert bool(alone[0]) == bool(job.evaluators)
    assert all(np.isfinite(list(alone[0].values())))
    if job.evaluators:
        assert main(["evaluate", str(run), "checkpoint=last", "bootstrap=0"]) == 0
    generates(run, tmp_path / "made")
    translates(run, loose, tmp_path / "translated")
    if "images" not in job.takes:
        return
    out = tmp_path / "out"
    assert main(["predict", str(run), f"in={loose}", f"out={out}", "format=json"]) == 0
    for record in json.loads((out / "predictions.json").read_text()):
        assert np.isfinite(list(numbers(record))).all()


def test_every_kind_of_job_walks_whole() -> None:
    walked = {job.task for job in JOBS}
    kinds = {task: kind_of({"name": task} | task_yaml(task)["task"]) for task in REAL}
    assert set(kinds.values()) == {kind for task, kind in kinds.items() if task in walked}


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS, ids=[job.label for job in JOBS])
def test_an_exported_graph_predicts_as_the_run_does(
    job: Job, packed: Callable[[str], Path], tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    walker = walker_of(job, tmp_path, packed(job.data) if job.data else None)
    run = walker.straight("run", Case(1, job.engine, "host"))
    assert main(["export", str(run), f"out={tmp_path / 'net'}", "checkpoint=last"]) == 0
    model = load_run(run, checkpoint="last")
    size = model.config.data.size
    images = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(tmp_path / "net" / "model.onnx")
    pixels = (images.astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2)
    names = [output.name for output in session.get_outputs()]
    given, wanted = {"images": pixels}, {}
    if "images" in model.task.takes:
        with torch.no_grad():
            answered = model.task.graph(model.nets, Batch.of_images(torch.from_numpy(pixels)))
        wanted = {name: value.numpy() for name, value in answered.items()}
    elif (generator := model.task.generator(model.nets)) is not None:
        latents = torch.randn(3, generator.latents, generator=torch.Generator().manual_seed(0))
        given = {"latents": latents.numpy()}
        with torch.no_grad():
            wanted = {"image": generator(latents).clamp(-1, 1).numpy()}
    found = dict(zip(names, session.run(None, given), strict=True))
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-4)


def generates(run: Path, out: Path) -> None:
    """A task that makes images of latents makes different ones of different latents."""
    model = load_run(run, checkpoint="last")
    if model.task.generator(model.nets) is None:
        return
    assert main(["generate", str(run), "n=3", f"out={out}", "checkpoint=last"]) == 0
    made = [cv2.imread(str(path)) for path in sorted(out.iterdir())]
    assert [image.shape for image in made] == [(model.config.data.size, model.config.data.size, 3)] * 3
    assert all((made[0] != other).any() for other in made[1:])


def translates(run: Path, loose: Path, out: Path) -> None:
    """A task that makes an image of an image does so for files of any size."""
    model = load_run(run, checkpoint="last")
    if model.task.translator(model.nets) is None:
        return
    assert main(["generate", str(run), f"translate={loose}", f"out={out}", "checkpoint=last"]) == 0
    for path in loose.iterdir():
        given, made = (cv2.imread(str(folder / path.name)) for folder in (loose, out))
        assert given.shape == made.shape
        assert (given != made).any()


def numbers(value: object) -> Iterator[float]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers(item)
    elif isinstance(value, float | int):
        yield float(value)
