"""`rostro submit` on the real command: refusals before anything is made, the plan, sweeps, completion."""

import itertools
import json
import re
import shutil
from pathlib import Path

import pytest

from hpc.config.parse import load_config
from launch.options.conf import choices, smoke_overrides
from tests.support.command import refused, rostro, script
from tests.support.sets import pack_faces, pack_set


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return pack_set(tmp_path_factory.mktemp("set"))


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


BAD = [
    (["task=siames"], "task=siames is not known: did you mean siamese?"),
    (["engine=dpp"], "engine=dpp is not known: use engine=ddp, engine=deepspeed or engine=flat"),
    (["cluster=slrm"], "cluster=slrm is not known: use cluster=auto, cluster=slurm or cluster=local"),
    (["batchs=3"], "unknown key batchs in batchs=3: did you mean batch?"),
    (["task.margn=0.5"], "unknown key task.margn in task.margn=0.5: did you mean task.margin?"),
    (["+task.more=1"], "+task.more=1: keys are neither added nor removed here"),
    (["batch=many"], "batch=many is not a whole number: type for example batch=64"),
    (["task.margin=wide"], "task.margin=wide is not a number: type for example task.margin=1.0"),
    (["task.embedding=1.5"], "task.embedding=1.5 is not a whole number"),
    (
        ["data.augment.crop_area=1"],
        "data.augment.crop_area=1 is not a list: write data.augment.crop_area=[0.8,1.0]",
    ),
    (["data=5"], "data=5: data is a group of keys: write data.KEY=VALUE"),
    (["data.order=plain", "batch=100", "procs=8"], "batch=100 is not divisible by 8 ranks: use 96 or 104"),
    (["batch=100", "procs=8"], "batch=100 is not divisible by 8 ranks: use 96 or 128"),
    (["procs"], "procs is not key=value"),
    (["data.train=nowhere"], "nowhere does not exist: `rostro pack` makes it"),
    (["data.train=empty"], "empty is empty: `rostro pack` fills it"),
    (["data.train="], "needs ROSTRO_SHARDS"),
    (["data.train=", "data.set="], "data.train is empty: type data.train=FOLDER"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_words_are_one_line_and_leave_nothing(tmp_path, words, message):
    (tmp_path / "empty").mkdir()
    assert message in refused(rostro("submit", "task=siamese", *words, cwd=tmp_path))
    assert left(tmp_path) == ["empty"]


@pytest.mark.parametrize("words", [[], ["--cfg", "job"], ["-m", "seed=0,1"]])
def test_a_run_has_no_task_unless_it_is_named(tmp_path, words):
    known = choices("task")
    line = f"error: task= is missing: write task={known[0]} (known: {', '.join(known)})"
    assert refused(rostro("submit", *words, cwd=tmp_path)) == line
    assert left(tmp_path) == []


def test_damaged_shards_are_refused(tmp_path, shards):
    def answer(damage):
        shutil.rmtree(tmp_path / "set", ignore_errors=True)
        shutil.copytree(shards, tmp_path / "set")
        damage(tmp_path / "set" / "train")
        line = refused(rostro("submit", "task=siamese", "data.train=set/train", cwd=tmp_path))
        assert left(tmp_path) == ["set"]
        return line

    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-1])

    tar = sorted((shards / "train").glob("*.tar"))[0].name
    assert f"{tar}: " in answer(lambda train: cut(train / tar))
    assert "offset.npy" in answer(lambda train: cut(train / "index" / "offset.npy"))
    assert "manifest.json: was changed" in answer(
        lambda train: (train / "manifest.json").write_text(
            (train / "manifest.json").read_text().replace('"samples": 75', '"samples": 74')
        )
    )
    assert "manifest.json" in answer(lambda train: (train / "manifest.json").unlink())


def test_more_ranks_than_samples(tmp_path, shards):
    line = refused(
        rostro(
            "submit", "task=siamese", "procs=128", "batch=512", f"data.train={shards / 'train'}", cwd=tmp_path
        )
    )
    assert "procs=128 x nodes=1 = 128 ranks" in line
    assert "holds 75 samples: use at most 75 ranks" in line


def test_dry_run_plans_without_data_and_makes_nothing(tmp_path):
    answer = script(
        "task=siamese", "procs=2", "dry_run=true", "data.order=groups", "micro_batch=12", cwd=tmp_path
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr.startswith("warning: data.set=lfw_train_112 needs ROSTRO_SHARDS")
    assert "64 = 2 x 32; micro batches of a rank: 2 x 12 + 8" in answer.stdout
    assert "300,000 images = 4,688 updates" in answer.stdout
    assert re.search(
        r"memory\s+about [\d,]+ MB a rank \(weights 23, gradients 23, optimizer 46", answer.stdout
    )
    assert left(tmp_path) == []


def test_dry_run_reads_the_data_that_is_there(tmp_path, shards):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "tiny").symlink_to(shards)
    answer = script(
        "task=siamese", "data.set=tiny", "dry_run=true", cwd=tmp_path, ROSTRO_SHARDS=str(tmp_path / "shards")
    )
    assert answer.returncode == 0
    assert answer.stderr == ""
    assert "(75 images, 15 identities)" in answer.stdout
    assert "tiny/eval (25 images, 5 identities), 15 evaluations" in answer.stdout


def test_prepare_makes_a_whole_run_directory(tmp_path, shards):
    words = [
        "task=siamese",
        *smoke_overrides("siamese"),
        "name=p",
        "procs=2",
        f"data.train={shards / 'train'}",
        "prepare=true",
    ]
    answer = script(*words, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    run = tmp_path / "runs" / "p"
    assert f"torchrun --nproc-per-node=2 -m hpc.train {run}" in answer.stdout
    assert left(tmp_path / "runs") == ["p"]
    config = load_config(run / "config.yaml")
    assert (config.procs, config.task["trunk"], config.data.size, config.name) == (2, "small", 32, "p")
    assert config.data.eval == str(shards / "eval")
    assert {"hpc", "launch", "models", "data_shards", "pyproject.toml"} <= set(left(run / "code"))
    assert (run / "code" / "launch" / "conf" / "task" / "siamese.yaml").is_file()
    assert not list((run / "code").rglob("__pycache__"))
    assert json.loads((run / "git.json").read_text())["command"][:2] == ["rostro", "submit"]
    before = sorted(run.rglob("*"))
    line = refused(script(*words, cwd=tmp_path))
    assert "name=p: runs/p exists: type `rostro resume p`" in line
    assert sorted(run.rglob("*")) == before


def test_a_folder_that_cannot_be_made_is_a_line(tmp_path, shards):
    (tmp_path / "runs").write_text("a file")
    line = refused(script("task=siamese", f"data.train={shards / 'train'}", "prepare=true", cwd=tmp_path))
    assert "cannot be made (Not a directory): use runs=FOLDER" in line
    assert left(tmp_path) == ["runs"]


def test_a_sweep_makes_a_run_for_each_point(tmp_path, shards):
    words = [
        "-m",
        "task=siamese",
        f"data.train={shards / 'train'}",
        "task.loss=contrastive,supcon",
        "seed=0,1",
        "prepare=true",
        "name=s",
    ]
    answer = script(*words, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    for loss, seed in itertools.product(("contrastive", "supcon"), (0, 1)):
        config = load_config(tmp_path / "runs" / f"s-loss={loss}-seed={seed}" / "config.yaml")
        assert (config.task["loss"], config.seed) == (loss, seed)
    assert len(left(tmp_path / "runs")) == 4
    for more in ("", "+2"):  # without a name: the task's, and never that of a run which is there
        assert script(*words[:-1], "seed=3", cwd=tmp_path).returncode == 0
        assert (tmp_path / "runs" / f"siamese-loss=supcon{more}").is_dir()
    assert left(tmp_path) == ["runs"]


def test_a_sweep_may_go_over_jobs(tmp_path):
    faces = pack_faces(tmp_path / "faces", "gender", "age")
    words = ["-m", "seed=1,2", "smoke=true", "prepare=true", f"data.train={faces / 'train'}", "runs=runs"]
    answer = script(*words, "task=gender,age", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    for task, seed in itertools.product(("gender", "age"), (1, 2)):
        config = load_config(tmp_path / "runs" / f"{task}-seed={seed}" / "config.yaml")
        assert (config.task["name"], list(config.task["heads"]), config.seed) == (task, [task], seed)
    assert len(left(tmp_path / "runs")) == 4
    # The set was opened for the first job already; it lacks a label of the second one.
    line = refused(script(*words[:-1], "runs=others", "task=gender,race", cwd=tmp_path))
    assert "has no label `race`, only" in line
    assert left(tmp_path) == ["faces", "runs"]


def test_a_sweep_with_one_bad_point_makes_nothing(tmp_path, shards):
    words = [
        "-m",
        "task=siamese",
        f"data.train={shards / 'train'}",
        "task.loss=contrastive,arcface",
        "prepare=true",
    ]
    assert "task.loss=arcface is not known" in refused(script(*words, cwd=tmp_path))
    assert left(tmp_path) == []


def test_help_lists_groups_keys_and_examples(tmp_path):
    answer = rostro("submit", "task=siamese", "--help", cwd=tmp_path)
    assert answer.returncode == 0
    for text in (
        "task=siamese",
        "ddp | deepspeed | flat",
        "optim.lr=0.003",
        "task.margin=1.0",
        "examples:",
        "rostro completion bash",
    ):
        assert text in answer.stdout
    assert left(tmp_path) == []


def test_hydra_flags_work_and_leave_nothing(tmp_path):
    completion = script("-sc", "install=bash", cwd=tmp_path)
    assert completion.returncode == 0, completion.stderr
    assert "complete" in completion.stdout
    line = f"python {Path(__file__).parents[2] / 'launch' / 'submit.py'} task=si"
    asked = script("-sc", "query=bash", cwd=tmp_path, COMP_LINE=line, COMP_POINT=str(len(line)))
    assert "task=siamese" in asked.stdout.split()
    shown = script("--cfg", "job", "task=siamese", "engine=flat", "optim.lr=0.5", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "lr: 0.5" in shown.stdout
    assert "name: flat" in shown.stdout
    assert left(tmp_path) == []


def test_submitting_imports_no_torch(tmp_path, shards):
    code = (
        "import sys; from launch.start import create; from launch.options.compose import composed\n"
        f"create.prepare(['task=siamese', 'data.train={shards / 'train'}', 'name=n'])\n"
        "import launch.job, launch.watch.follow, launch.commands.status, launch.commands.stop, "
        "launch.commands.resume\nprint([name for name in sys.modules if name.split('.')[0] in ('torch', "
        "'nvidia')])"
    )
    import subprocess
    import sys

    from tests.support.command import environment

    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("split", ["train", "eval"])
def test_a_set_without_a_pair_is_refused_before_anything_is_made(tmp_path, split):
    shards = pack_set(tmp_path, identities=6, each=2, holdout=0.5)
    single = pack_set(tmp_path / "single", identities=6, each=1, holdout=0.5)
    sets = {"train": shards / "train", "eval": shards / "eval"} | {split: single / split}
    words = [f"data.{name}={folder}" for name, folder in sets.items()]
    error = refused(rostro("submit", "task=siamese", "batch=8", *words, cwd=tmp_path))
    assert f"data.{split}={sets[split]} holds 3 identities with at most 1 images each" in error
    assert not (tmp_path / "runs").exists()


def test_a_sweep_is_refused_whole_where_one_of_its_runs_exists(tmp_path, shards):
    (tmp_path / "runs" / "sw-seed=1").mkdir(parents=True)
    words = ["-m", "task=siamese", "batch=8", "name=sw", "seed=0,1", f"data.train={shards / 'train'}"]
    assert "sw-seed=1 exists: type `rostro resume sw-seed=1`" in refused(
        rostro("submit", *words, cwd=tmp_path)
    )
    assert left(tmp_path / "runs") == ["sw-seed=1"]
