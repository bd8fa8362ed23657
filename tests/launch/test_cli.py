"""The `rostro` command itself: version, help pages, completion, and readers that leave early."""

import json
import os
import re
import subprocess
import sys

import pytest

from launch import cli
from launch.commands.completion import candidates
from launch.options.command_table import COMMANDS, load
from launch.options.conf import choices
from launch.start import snapshot
from tests.support.command import ROOT, environment

WITHOUT_TORCH = """
import sys
from launch.options.command_table import COMMANDS, load
from launch.commands.completion import candidates
for name in COMMANDS:
    list(candidates([name], ""))
list(candidates(["submit", "task=siamese"], "task.loss="))
assert not {"torch", "hydra"} & set(sys.modules), "slow"
"""


def printed(capsys, *words: str) -> str:
    assert cli.main(words) == 0
    return capsys.readouterr().out


def test_the_version_is_that_of_the_project_and_in_every_run(capsys):
    version = re.search(r'version = "(.+)"', (ROOT / "pyproject.toml").read_text())[1]
    assert printed(capsys, "--version") == f"rostro {version}\n"
    assert printed(capsys, "submit", "--version") == f"rostro {version}\n"  # not Hydra's
    assert snapshot.git_state()["version"] == version


def test_an_installed_package_has_its_version_and_no_commit(monkeypatch, tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    place = tmp_path / "venv" / "launch"
    place.mkdir(parents=True)
    monkeypatch.setattr(snapshot, "ROOT", place.parent)  # packages inside of another repository
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"7 of {name}")
    assert snapshot.git_state() == {
        "version": "7 of rostro",
        "commit": None,
        "dirty": None,
        "diff_sha256": None,
    }


def test_the_help_of_submit_says_what_every_key_may_be(capsys):
    page = printed(capsys, "submit", "task=siamese", "--help")
    assert re.search(
        r"^  optim\.schedule=cosine +constant \| cosine \| step \| linear; how the rate", page, re.M
    )
    assert re.search(r"^  task\.loss=contrastive +contrastive \| triplet \| supcon \| bce; what", page, re.M)
    assert re.search(r"^  optim\.final=0\.0 +number, \[0, 1\]; ", page, re.M)
    assert re.search(r"^  save\.last=2 +whole number, 1 or more; ", page, re.M)
    assert max(map(len, page.splitlines())) <= 130
    shared = printed(capsys, "submit", "--help")
    assert re.search(r"^  optim\.lr=0\.001 +number, above 0; ", shared, re.M)
    assert "task.loss=" not in shared.partition("every key with its default")[2]


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"submit", "completion"}))
def test_the_help_of_a_command_shows_each_declared_option_once(command, capsys):
    page = printed(capsys, command, "--help")
    names = re.findall(r"^  ([a-z0-9_.]+)=", page, re.M)
    assert names == list(load(command).OPTIONS)
    assert max(map(len, page.splitlines())) <= 120


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("st", {"status", "stop"}),
        ("submit task=", {f"task={task}" for task in choices("task")}),
        ("submit task=siamese task.lo", {"task.loss="}),
        (
            "submit task=siamese task.loss=",
            {f"task.loss={x}" for x in ("bce", "contrastive", "supcon", "triplet")},
        ),
        ("submit optim.schedule=co", {"optim.schedule=constant", "optim.schedule=cosine"}),
        ("submit engine.deepspeed.stage=", {f"engine.deepspeed.stage={x}" for x in range(4)}),
        ("submit data.stream=t", {"data.stream=true"}),
        ("submit -m task=siamese task.loss=bce,co", {"task.loss=bce,contrastive"}),
        ("submit -m engine=ddp,f", {"engine=ddp,flat"}),
        ("submit after=fa", {"after=faces"}),
        ("status fa", {"faces"}),
        ("status runs=elsewhere ot", {"other"}),
        ("resume faces save.l", {"save.last="}),
        ("resume faces optim.l", set()),
        ("pack source=l", {"source=lfw"}),
        ("export faces onnx=", {"onnx=true", "onnx=false"}),
        ("predict fa", {"faces"}),
        ("compare other fa", {"faces"}),
        ("compare faces fa", set()),
        ("score values mi", {"missing="}),
        ("evaluate faces missing=", {"missing=error", "missing=skip"}),
        ("evaluate faces featu", {"features=", "features_sha256="}),
        ("evaluate faces yardsticks=", {"yardsticks=true", "yardsticks=false"}),
        ("logs faces li", {"lines="}),
        ("nothing x", set()),
    ],
)
def test_what_completion_offers(line, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("runs/faces", "elsewhere/other", "runs/a b;c"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").touch()
    *before, word = line.split(" ")
    assert set(candidates(before, word)) == expected


def test_completion_in_bash(capsys):
    script = printed(capsys, "completion", "bash")
    line = "rostro submit task=siamese task.loss=t"
    ask = f'COMP_LINE="{line}"; COMP_POINT=${{#COMP_LINE}}; _rostro; echo "${{COMPREPLY[@]}}"'
    rostro = f'rostro() {{ {sys.executable} -m launch.cli "$@"; }}'
    found = subprocess.run(
        ["bash", "-c", f"{rostro}\n{script}\n{ask}"],
        env=environment(),
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert (found.stdout, found.stderr) == ("triplet\n", "")
    assert "compdef _rostro rostro" in printed(capsys, "completion", "zsh")


def test_another_shell_is_refused(capsys):
    assert cli.main(["completion", "fish"]) == 2
    assert "fish is not a shell: type rostro completion bash, or zsh" in capsys.readouterr().err


def test_completion_loads_nothing_slow():
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH], env=environment(), check=True, cwd=ROOT)


@pytest.mark.parametrize("words", [["--help"], ["submit", "--help"], ["status"], ["status", "json=true"]])
def test_a_reader_that_leaves_early_hears_no_complaint(words, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "launch.cli", *words],
        stdout=writing,
        stderr=subprocess.PIPE,
        env=environment(PYTHONUNBUFFERED=None),
        cwd=tmp_path,
    )
    os.close(writing)
    assert done.stderr == b""
    assert done.returncode in (0, cli.CUT_SHORT)
    assert done.returncode == 0 or words[0] == "submit"  # its page does not fit into a buffer


def test_git_state_is_json():
    assert json.loads(json.dumps(snapshot.git_state()))
