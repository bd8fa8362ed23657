"""Typed text never becomes a command.

The scripts of both ways into SLURM are run by bash, with commands of a SLURM that only record how they were
called, and with values that would call the command `fired`.
"""

import copy
import os
import shlex
import subprocess
import sys
from collections import Counter
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_shards.errors import UserError
from hpc.config.check import check
from hpc.config.schema import Config
from hpc.config.text import check_stage
from hpc.runs.run_dir import RunDir
from launch import batch, cli
from launch.start import create, data, slurm
from launch.start.shell import Variable, plan_lines
from tests.support.command import ROOT, environment
from tests.support.fuzz import check_refusal
from tests.support.sets import pack_set

HOSTILE = [
    "$(fired)",
    "`fired`",
    "a;fired;",
    "a && fired",
    "a|fired",
    "a\n\n\nfired #",
    "a\rfired",
    "'$(fired)'",
    "';fired;'",
    '";fired;"',
    "\\$(fired)",
    "${x:-$(fired)}",
    "x[$(fired)]",
    "$IFS;fired",
    "a\x1b]0;fired\x07",
]
PATHS = ("runs", "data.train", "data.val", "data.eval", "data.stage", "cluster.container")
WORDS = (
    "name",
    "data.set",
    "after",
    *(f"cluster.{key}" for key in ("partition", "account", "qos", "constraint")),
)
FAKES = ("srun", "apptainer", "scontrol", "sbatch", "torchrun", "sleep", "squeue", "scancel")


class Shell:
    """A folder with the fake commands, in which scripts are run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir()
        for name in FAKES:
            self.says(name, f'printf "%s\\0" {name} "$@" >>{folder}/calls')
        self.says("fired", f"touch {folder}/FIRED")
        self.says("module", "exit 1")

    def says(self, name: str, line: str) -> Path:
        path = self.bin / name
        path.write_text(f"#!/bin/bash\n{line}\n")
        path.chmod(0o755)
        return path

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """The command in this shell; AssertionError where a value was executed."""
        given = environment() | {"PATH": f"{self.bin}:{os.environ['PATH']}"} | variables
        done = subprocess.run(command, cwd=self.folder, env=given, capture_output=True, text=True, timeout=60)
        assert not (self.folder / "FIRED").exists(), (command, done.stdout, done.stderr)
        return done

    def words(self) -> list[str]:
        """All words of all calls since the last question."""
        path = self.folder / "calls"
        text = path.read_text() if path.exists() else ""
        path.unlink(missing_ok=True)
        return text.split("\0")

    def start(self, config: Config) -> str:
        """Errors of the scripts of both ways into SLURM, for a run whose code is this checkout."""
        run = RunDir(Path(config.runs) / (config.name or "r"))
        run.code.mkdir(parents=True, exist_ok=True)
        (self.folder / "script").write_text(slurm.sbatch_text(run, config))
        (self.folder / "plan").write_text("\n".join(batch.shell_lines(run, config)) + "\n")
        python = self.says("python", f"[[ $* != *batch\\ start* ]] || cat {self.folder}/plan")
        place = {"ROSTRO_PYTHON": str(python), "SLURM_JOB_ID": "7", "TMPDIR": "/a b"}
        ways = (self.folder / "script", ROOT / "slurm" / "job.sh")
        return "".join(self.run("bash", str(way), **place).stderr for way in ways)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    for name in [name for name in os.environ if name.startswith(("SLURM_", "ROSTRO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(slurm, "chosen_cluster", lambda config: "slurm")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path)


BASE = ["task=siamese", "dry_run=true", "cluster.container=image.sif"]


def resolved(*words: str) -> Config:
    return create.resolve([*BASE, *words]).config


def with_value(config: Config, key: str, value: Any) -> Config:
    """A copy of the config with one more value, if that is not refused."""
    *path, last = key.split(".")
    changed = copy.deepcopy(config)
    setattr(reduce(getattr, path, changed), last, value)
    try:
        check(changed)
        changed = data.locate_data(changed)
        data.check_place(changed)
        slurm.preflight(changed)
    except UserError as error:
        check_refusal(error)
        return config
    return changed


def test_no_value_is_executed(shell: Shell) -> None:
    """Put each value in each key that reaches a shell; those not refused are in the scripts together."""
    base = resolved()
    accepted = Counter()
    for value in HOSTILE:
        config = base
        settings = [(key, value) for key in WORDS] + [(key, f"/{value}") for key in PATHS]
        settings += [("data.stage", value), ("cluster.modules", [value]), ("cluster.sbatch", {value: 1})]
        for key, text in [*settings, ("cluster.sbatch", {"comment": value})]:
            changed = with_value(config, key, text)
            accepted[key] += changed is not config
            config = changed
        assert config is not base or not value.isprintable()
        shell.start(config)
    assert not accepted["name"] + accepted["data.stage"] + accepted["after"]
    assert accepted["runs"] == accepted["data.train"] == sum(value.isprintable() for value in HOSTILE) - 1
    assert accepted["cluster.modules"] == accepted["cluster.partition"]


def test_a_site_file_holds_no_commands(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    site = shell.folder / "site.yaml"
    monkeypatch.setenv("ROSTRO_SITE", str(site))
    for value in HOSTILE:
        site.write_text(yaml.safe_dump({"cluster": {"partition": value, "modules": [value]}, "runs": "r"}))
        try:
            shell.start(resolved())
        except UserError as error:
            check_refusal(error, str(site))
            assert not value.isprintable()


def test_a_module_that_fails_is_named_as_it_was_typed(shell: Shell) -> None:
    errors = shell.start(resolved("cluster.modules=['$(fired)']"))
    assert errors.count("error: module load $(fired) failed: see cluster.modules\n") == 2
    assert "srun" not in shell.words()


def test_the_value_itself_reaches_srun(shell: Shell) -> None:
    """A path is not refused for what it holds: it arrives, word for word."""
    path = str(shell.folder / "$(fired) it's")
    assert not shell.start(
        resolved(f"runs={path}", "cluster.container=/images/a b.sif", f"data.train={path}/x")
    )
    called = shell.words()
    assert called.count(f"{path}/x") == 2
    assert called.count("/images/a b.sif") == 2
    assert called.count(f"{path}/r") >= 1


def test_variables_of_the_environment_are_not_commands(shell: Shell) -> None:
    for value in HOSTILE:
        names = ("ROSTRO_PYTHON", "ROSTRO_CHECKOUT", "XDG_STATE_HOME", "ROSTRO_SHARDS")
        done = shell.run(
            "bash", str(ROOT / "slurm" / "siamese.sh"), SLURM_JOB_ID="7", **dict.fromkeys(names, value)
        )
        assert done.returncode


def test_the_python_may_be_in_a_folder_of_any_name(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    config = with_value(resolved(), "cluster.container", "")
    for value in HOSTILE:
        monkeypatch.setattr(sys, "executable", f"/{value}/python")
        if value.isprintable():
            shell.start(config)
        else:
            with pytest.raises(UserError, match="cannot be printed"):
                shell.start(config)


@pytest.mark.parametrize(
    ("folder", "bound"),
    [("$TMPDIR/x", "/a b"), ("${TMPDIR}", "/a b"), ("/scratch/$USER/x", "/scratch"), ("/a b/c", "/a b")],
)
def test_the_node_expands_the_variable_with_which_a_stage_begins(
    shell: Shell, folder: str, bound: str
) -> None:
    assert not shell.start(resolved(f"data.stage={folder}"))
    called = shell.words()
    assert [called[at + 1] for at, word in enumerate(called) if word == "--bind"].count(bound) == 2


@pytest.mark.parametrize(
    "folder", ["$(x)", "`x`", "$TMPDIR$(x)", "${A:-x}", "$1/x", "x", "$A$B", "/a$A/b", "/a/$(x)"]
)
def test_a_stage_is_a_folder(folder: str) -> None:
    with pytest.raises(UserError, match=r"use data\.stage=/scratch/NAME or data\.stage='\$TMPDIR/NAME'$"):
        check_stage(folder)


def test_what_prepare_prints_can_be_typed(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(slurm, "chosen_cluster", lambda config: "local")
    shards = pack_set(tmp_path / "a set")
    capsys.readouterr()
    runs = str(tmp_path / "$(fired); 'x'")
    words = ["task=siamese", "smoke=true", f"data.train={shards}/train", f"runs={runs}", "name=a"]
    assert cli.main(["submit", *words, "prepare=true"]) == 0
    line = capsys.readouterr().out.partition("start it     ")[2].splitlines()[0]
    assert shlex.split(line)[1] == f"{runs}/a/code"
    assert shell.run("bash", "-c", line).returncode == 0
    assert shell.words()[-2] == f"{runs}/a"


def test_a_plan_holds_one_value_a_line() -> None:
    assert plan_lines(Path("/r"), ["-n"], ["p", Variable("A")], ["a\nb"]) == [
        *("run /r", "ranks -n", "program p", "variable A", "setup a", "setup b")
    ]
    for bad in ("a\nb", "a\0b"):
        with pytest.raises(UserError, match="cannot be printed"):
            plan_lines(Path(bad), [], [], [])
    with pytest.raises(UserError, match="is not the name of a variable"):
        Variable("a[$(fired)]")
