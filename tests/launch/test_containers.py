"""The image recipes under slurm/: they hold what pyproject.toml installs, and their commands parse."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from tests.test_docs import understand

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = [word.rstrip("*") for word in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]]
NEEDED = [*PACKAGES, "pyproject.toml", "LICENSE", "slurm"]
RECIPES = [ROOT / "slurm" / "Dockerfile", ROOT / "slurm" / "rostro.def"]


def shown(recipe: Path) -> list[str]:
    """The commands of the recipe's comments."""
    text = "\n".join(re.findall(r"^ *# {2,}(\S.*)$", recipe.read_text(), re.MULTILINE)).replace("\\\n", " ")
    return text.splitlines()


def test_the_images_hold_all_that_a_run_copies() -> None:
    kept = (ROOT / "slurm" / "Dockerfile.dockerignore").read_text().splitlines()
    files = re.search(r"%files\n(.*?)\n\n", RECIPES[1].read_text(), re.DOTALL)
    assert files
    copied = dict(line.split() for line in files[1].splitlines())
    for name in NEEDED:
        assert f"!{name}" in kept
        assert copied[name] == f"/opt/rostro/{name}"
        assert (ROOT / name).exists()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_the_images_install_from_pyproject_with_a_python_that_it_allows(recipe: Path) -> None:
    text = recipe.read_text()
    assert "[deepspeed]'" in text
    assert "deepspeed" in PROJECT["project"]["optional-dependencies"]
    version = re.search(r"(?:PYTHON=|python:)(\d+)\.(\d+)", text)
    lowest = re.search(r">=(\d+)\.(\d+)", PROJECT["project"]["requires-python"])
    assert version
    assert lowest
    assert tuple(map(int, version.groups())) >= tuple(map(int, lowest.groups()))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_the_lines_that_a_recipe_shows(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(recipe)
    assert any(f"slurm/{recipe.name}" in line for line in lines)
    typed = [line.rpartition("rostro ")[2] for line in lines if "slurm/" not in line]
    assert len(typed) == 2
    for words in typed:
        understand(shlex.split(words), monkeypatch)
