"""What a training may judge by: refused at submit in one line, and named as its report names it."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from data_shards.errors import UserError
from hpc.config.check import check
from hpc.evaluation.features import open_features
from hpc.evaluation.generated_report import Judged, compose
from hpc.task import build_task
from launch.options.compose import composed
from models.inception import InceptionV3

JOBS = ("dcgan", "progan", "stylegan", "vae", "cyclegan")
LATER = "judge later by `rostro evaluate features=`"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict of Inception-v3, its numbers drawn."""
    path = tmp_path_factory.mktemp("weights") / "drawn.pth"
    torch.save(InceptionV3(8).state_dict(), path)
    return path


def refusal(job: str, word: str) -> str:
    with pytest.raises(UserError) as refused:
        check(composed([f"task={job}", "smoke=true", f"task.features={word}"]))
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("bogus", "task.features=bogus is not known: type lite0, inception:FILE or run:RUN"),
        ("lite0:9", "task.features=lite0:9: type lite0, or lite0:128"),
        (
            "inception:/no/file.pth",
            "/no/file.pth is no file: give one of weights, or leave task.features out",
        ),
        ("run:faces", f"a training opens no other run to judge by: .*{LATER}"),
    ],
)
def test_features_of_no_use_are_refused_at_submit(job: str, word: str, said: str) -> None:
    assert re.search(said, refusal(job, word))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_program_and_a_relative_file_are_refused(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.jit.script(nn.Flatten()).save(str(tmp_path / "script.pt"))
    assert re.search(f"is a TorchScript file.*{LATER}", refusal("vae", f"inception:{tmp_path}/script.pt"))
    monkeypatch.chdir(weights.parent)
    assert f"type task.features=inception:{weights}" in refusal("vae", "inception:drawn.pth")


@pytest.mark.parametrize(("job", "name"), [("dcgan", "generated"), ("cyclegan", "ab")])
def test_the_best_checkpoint_is_named_by_the_figure_of_the_report(job: str, name: str, weights: Path) -> None:
    rng = np.random.default_rng(0)
    for word, figure in ((f"inception:{weights}", "fid"), ("lite0", "frechet")):
        config = composed([f"task={job}", "smoke=true", f"task.features={word}"])
        check(config)
        assert build_task(config).metric == (f"{name}/{figure}", "min")
        features = rng.normal(size=(2, 12, 3))
        real = {"real": {"ids": np.arange(12), "features": features[1]}}
        judged = Judged(open_features(word), 16, features[0], None, real, [], None)
        assert figure in compose(judged).scalars


@pytest.mark.parametrize("job", JOBS)
def test_plans_load_no_torch(job: str) -> None:
    code = (
        "import sys; from hpc.config.check import check; from launch.options.compose import composed; "
        f"check(composed(['task={job}', 'smoke=true', 'task.features=lite0'])); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
