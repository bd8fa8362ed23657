"""Random words of the command line, random damage of site files and configs, shell text in every key.

The answer is one line of refusal, or values of the declared types; nothing is executed.
"""

import dataclasses
import os
import random
import shutil
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpc.config.check import check
from hpc.config.parse import load_config, save_config
from hpc.config.schema import Config
from hpc.config.types import ITEMS, flatten
from launch.options import compose
from launch.options.compose import known_keys, task_keys
from launch.options.other_words import OURS
from tests.launch.start.test_shell import HOSTILE, PATHS, WORDS, Shell, resolved, shell, with_value
from tests.support.fuzz import HARMLESS, REFUSED, Silent, campaign, damage, damage_json

__all__ = ["shell"]  # the fixture
KEYS = known_keys("siamese")
EXAMPLES = task_keys("siamese")
NAMES = [
    *KEYS,
    "task",
    "engine",
    "cluster",
    "smoke",
    *OURS,
    "hydra.run.dir",
    "data",
    "",
    "a b",
    "+batch",
    "~seed",
]
PIECES = [
    *(
        "0",
        "1",
        "-1",
        "1e9",
        "1_000",
        "64",
        "0.5",
        "nan",
        "inf",
        "9" * 5000,
        "²",
        "٣",
        "true",
        "yes",
        "null",
        "fast",
    ),
    *(
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "=",
        "'",
        '"',
        "\\",
        "$",
        "${",
        "${seed}",
        "${oc.env:HOME}",
        "$(x)",
        "`x`",
        ";",
    ),
    *(
        "\n",
        "\r",
        "\0",
        "\x1b",
        "\udcff",
        "\u202e",
        " ",
        "\t",
        "range(1,3)",
        "choice(1,2)",
        "int(1.5)",
        "glob(*)",
    ),
    *(
        "[" * 300,
        "{a:" * 200,
        "a" * 12_000,
        "siamese",
        "flat",
        "slurm",
        "/x",
        "../x",
        "a,b",
        "[1,2]",
        "{a: 1}",
        "x@y",
    ),
    *("json_str({})", "extend_list(1)", "sort(2,1)", "???"),
]


def like_default(config: Config) -> str:
    """What of a config has another type than its key; empty where nothing has."""
    task = {f"task.{key}": value for key, value in config.task.items()}  # a table in place of a value too
    for key, value in (flatten(dataclasses.asdict(config)) | task).items():
        like = KEYS.get(key)
        if key.startswith("cluster.sbatch.") or (key.startswith("task.") and like is None):
            continue  # unknown keys of a task belong to other code: a run keeps its own
        if like is None or type(value) is not type(like):
            return f"{key}={value!r}"
        item = (like or [ITEMS.get(key)])[0] if isinstance(like, list) else None
        if isinstance(value, list) and any(type(entry) is not type(item) for entry in value):
            return f"{key}={value!r}"
    return ""


def composed(words: Sequence[str]) -> Config:
    """The config of a siamese run, unless the words name another task."""
    return compose.composed(["task=siamese", *words])


def judged(config: Config) -> str:
    check(config, EXAMPLES)
    if wrong := like_default(config):
        raise Silent(wrong)
    return HARMLESS


def word(rng: random.Random) -> str:
    if rng.random() < 0.05:
        return "".join(rng.choices([*PIECES, *string.printable], k=rng.randrange(6)))
    value = "".join(rng.choices(PIECES, k=rng.choice((1, 1, 1, 2, 3, 5))))
    return f"{rng.choice(NAMES)}={value}"


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("SLURM_", "ROSTRO_"))]:
        if not name.startswith("ROSTRO_FUZZ"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_random_words(tmp_path: Path) -> None:
    def one(rng: random.Random) -> str:
        return judged(composed([word(rng) for _ in range(rng.choice((1, 1, 2, 4)))]))

    counts = campaign("words", one)
    assert counts[HARMLESS]
    assert counts[REFUSED]
    assert not list(tmp_path.iterdir())


def test_random_site_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "site.yaml"
    monkeypatch.setenv("ROSTRO_SITE", str(path))
    good = {
        "cluster": {
            "partition": "gpu",
            "modules": ["cuda"],
            "setup": ["ulimit -c 0"],
            "sbatch": {"exclusive": True},
        },
        "hours": 8.0,
        "gpus": 2,
        "runs": "/scratch/runs",
        "data": {"stage": "$TMPDIR/x"},
    }
    text = yaml.safe_dump(good).encode()

    def one(rng: random.Random) -> str:
        if rng.random() < 0.5:
            path.write_text(yaml.safe_dump(damage_json(good, rng)))
        else:
            path.write_bytes(damage(text, rng))
        return judged(composed([]))

    assert campaign("site files", one, names=(str(path), *KEYS))[REFUSED]


def test_random_configs_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "code").symlink_to(Path(__file__).parents[3])
    path = tmp_path / "config.yaml"
    save_config(composed([]), path)
    text = path.read_bytes()
    good = dataclasses.asdict(composed([]))

    def one(rng: random.Random) -> str:
        if rng.random() < 0.5:
            path.write_text(yaml.safe_dump(damage_json(good, rng), sort_keys=False))
        else:
            path.write_bytes(damage(text, rng))
        return judged(load_config(path))

    assert campaign("configs", one)[REFUSED]


def test_random_shell_text(shell: Shell) -> None:
    """Values that the checks let through stand in the scripts of both ways into SLURM, which bash runs."""
    base = resolved()
    marks = [
        *HOSTILE,
        "$(fired)",
        "`fired`",
        ";",
        "'",
        '"',
        "\\",
        "\n",
        "&",
        "|",
        "(",
        ")",
        "{",
        "}",
        "#",
        "fired",
        " ",
        "!",
    ]
    keys = [*PATHS, *WORDS, "cluster.modules", "cluster.sbatch", "data.stage"]

    def one(rng: random.Random) -> str:
        config = base
        for key in rng.sample(keys, 5):
            value: Any = "".join(rng.choices(marks, k=rng.randrange(1, 5)))
            value = rng.choice(("", "/", "/x/", "$TMPDIR/")) + value if key in PATHS else value
            if key == "cluster.modules":
                value = [value, value[::-1]]
            elif key == "cluster.sbatch":
                value = rng.choice(({value: 1}, {"comment": value}))
            config = with_value(config, key, value)
        errors = shell.start(config)
        shutil.rmtree(shell.folder / "runs", ignore_errors=True)
        if "syntax error" in errors or "unexpected EOF" in errors or "command not found" in errors:
            raise Silent(errors)
        return HARMLESS if config is not base else REFUSED

    assert campaign("shell text", one)[HARMLESS]
