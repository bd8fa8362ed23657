"""The documents against the program: each command that they show is parsed by the command itself, links and
the tree lead to files, and the task of docs/new_task.md is added to a copy of the checkout, packed, trained.
"""

import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / name for name in ("README.md", "bench/README.md")] + sorted((ROOT / "docs").rglob("*.md"))
NEW_TASK = ROOT / "docs" / "new_task.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DOTTED = re.compile(r"[a-z_]+(\.[a-z_]+)+=")
STARTS = ("rostro", "python launch/submit.py")


def shell_lines(page: Path) -> list[str]:
    """Lines of the page's shell blocks, comments left out."""
    blocks = [text for language, text in BLOCK.findall(page.read_text()) if language == "sh"]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in (re.sub(r"(^|\s+)# .*", "", line).strip() for line in lines) if line]


def commands(page: Path) -> list[list[str]]:
    """The words behind `rostro` of each command of the page; `python launch/submit.py` is `rostro submit`."""
    found = []
    for line in shell_lines(page):
        if line.startswith(STARTS):
            words = shlex.split(line)
            found.append(words[1:] if words[0] == "rostro" else ["submit", *words[2:]])
    return found


ADDED = {"task=age_gender", "source=named_faces"}  # by docs/new_task.md: run in a copy, below
CASES = [
    pytest.param(words, id=f"{page.name}-{' '.join(words)[:60]}")
    for page in PAGES
    for words in commands(page)
    if not ADDED & set(words)
]


class Parsed(Exception):
    """The words were understood: the command goes no further."""


def understand(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command itself read the words, up to where it would act; UserError if it refuses them."""
    import importlib

    from launch import submit
    from launch.options import command_table, key_value, sweep

    if words[0] == "--help":
        return
    module = importlib.import_module(command_table.COMMANDS[words[0]][0])
    if words[1:] == ["--help"]:
        assert module.HELP
    elif words[0] == "submit":
        plain = [word for word in words[1:] if word not in (*submit.SWEEP_FLAGS, "--cfg", "job", "--help")]
        for point in sweep.points(plain) if set(submit.SWEEP_FLAGS) & set(words) else [plain]:
            understand_run(point)
    elif words[0] == "resume":
        understand_resume(words[1:])
    else:
        parse = key_value.parse

        def stop(*arguments: object, **keys: object) -> None:
            parse(*arguments, **keys)  # type: ignore[arg-type]
            raise Parsed

        monkeypatch.setattr(key_value, "parse", stop)
        if hasattr(module, "parse"):
            monkeypatch.setattr(module, "parse", stop)
        with pytest.raises(Parsed):
            module.main(words[1:])


def understand_run(words: list[str]) -> None:
    from hpc.config.check import check
    from hpc.config.types import flatten
    from launch.options import key_value
    from launch.options.compose import composed

    config = composed(words)
    check(config)
    flat = flatten(dataclasses.asdict(config))
    for word in words:  # what was typed is what the run will have
        key, _, text = word.partition("=")
        if isinstance(flat.get(key), str | bool | int | float):
            assert flat[key] == key_value.convert(key, text, flat[key]), word


def understand_resume(words: list[str]) -> None:
    from hpc.config.check import check
    from launch.commands.resume import changed_config
    from launch.options.compose import composed

    run = SimpleNamespace(name=words[0])
    keys = [word for word in words[1:] if not word.startswith("runs=")]
    check(changed_config(run, composed(["task=siamese"]), keys))  # type: ignore[arg-type]


@pytest.mark.parametrize("words", CASES)
def test_commands_are_understood(words: list[str], monkeypatch):
    from launch.options import command_table

    assert words[0] == "--help" or words[0] in command_table.COMMANDS
    understand(words, monkeypatch)


def test_there_are_commands_to_check():
    assert {words[0] for case in CASES for words in case.values} >= {"pack", "submit", "evaluate", "resume"}


def test_a_wrong_key_in_a_document_would_be_noticed(monkeypatch):
    from data_shards.errors import UserError

    for words in (
        "submit procz=2",
        "evaluate runs/a pears=x",
        "resume a optim.lr=1",
        "pack source=lfw src=a out=b sise=1",
    ):
        with pytest.raises(UserError):
            understand(words.split(), monkeypatch)


@cache
def all_keys() -> set[str]:
    from launch.commands import evaluate, pack
    from launch.options.compose import GROUPS, known_keys
    from launch.options.conf import choices

    tasks = {key for task in choices("task") for key in known_keys(task)}
    of_one = {f"age.{name}" for name in evaluate.OPTIONS}  # words of an evaluator
    return {*tasks, *GROUPS, *pack.OPTIONS, *evaluate.OPTIONS, *of_one}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_dotted_keys_in_the_text_exist(page: Path):
    text = BLOCK.sub("", page.read_text())
    named = [match[0][:-1] for match in DOTTED.finditer(" ".join(re.findall(r"`([^`\n]+)`", text)))]
    assert [key for key in named if key not in all_keys()] == []


def slug(heading: str) -> str:
    """The anchor of a heading, as git hosts make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", page.read_text())):
        if link.startswith("https://"):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        is_page = target.suffix == ".md" and target.is_file()
        headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE) if is_page else []
        if not target.is_file() or (anchor and anchor not in map(slug, headings)):
            wrong.append(link)
    assert wrong == []


def test_the_rooms_of_the_readme_are_those_that_exist():
    lines = BLOCK.search((ROOT / "README.md").read_text().partition("## The rooms")[2])[2].splitlines()
    named, top = set(), ""
    for line in lines:
        name = line.split()[0]
        top = top if line.startswith(" ") else name
        named.add(name if line == line.lstrip() else f"{top}{name}")
    assert [path for path in named if not (ROOT / path).is_dir()] == []
    rooms = {
        f"{path.parent.relative_to(ROOT)}/"
        for top in ("hpc", "data_shards", "launch")
        for path in (ROOT / top).glob("*/*.py")
    }
    assert rooms <= named


def test_the_six_files_to_read_first_exist():
    text = (ROOT / "README.md").read_text().partition("Six files to read first: ")[2].partition("\n\n")[0]
    files = re.findall(r"`([\w/]+\.py)`", text)
    assert len(files) == 6
    assert all((ROOT / name).is_file() for name in files)


def test_the_python_of_the_readme_embeds_a_folder(tmp_path, monkeypatch, capsys):
    from tests.support.judged import judged_run
    from tests.support.sets import pack_set

    (code,) = (
        text for language, text in BLOCK.findall((ROOT / "README.md").read_text()) if language == "python"
    )
    shards = pack_set(tmp_path / "set", identities=6, each=2, holdout=0.5)
    judged_run(tmp_path / "runs" / "faces", shards)
    shutil.copytree(shards.parent / "pictures" / "person000", tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    values: dict[str, Any] = {}
    exec(code, values)
    np.testing.assert_allclose(np.linalg.norm(values["embeddings"], axis=1), 1.0, rtol=1e-5)
    assert len(values["files"]) == len(values["embeddings"]) == 2
    assert capsys.readouterr().out.startswith("[[")


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_no_line_of_a_page_is_too_long_to_read(page: Path):
    """Rows of tables and commands have no other way."""
    prose = re.sub(r"^(\|| *```).*$", "", BLOCK.sub("", page.read_text()), flags=re.MULTILINE)
    assert [line for line in prose.splitlines() if len(line) > 120] == []


def test_make_targets_exist():
    wanted = {
        name
        for page in PAGES
        for name in re.findall(r"\bmake (?:[A-Z]+=\S+ )?([a-z]+)$", "\n".join(shell_lines(page)), re.M)
    }
    rules = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert wanted
    assert wanted <= rules


def test_benches_in_the_table_exist():
    text = (ROOT / "bench" / "README.md").read_text()
    named = set(re.findall(r"python (bench/\w+\.py)", text))
    assert named == {f"bench/{path.name}" for path in (ROOT / "bench").glob("*.py")}


def test_both_guides_show_the_same_commands():
    assert shell_lines(ROOT / "docs" / "es" / "guia.md") == shell_lines(ROOT / "docs" / "guide.md")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages with the files of docs/new_task.md in it, and its data set, packed."""
    root = tmp_path_factory.mktemp("new_task")
    for part in ("hpc", "models", "data_shards", "launch"):
        shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "pyproject.toml", root / "pyproject.toml")
    files = re.findall(
        r"^`([\w/]+\.\w+)`:\n\n```\w+\n(.*?)^```$", NEW_TASK.read_text(), re.MULTILINE | re.DOTALL
    )
    stems = [Path(name).stem for name, _ in files]
    assert stems == ["named_faces", "age_gender", "age_gender", "age_gender_plan"]
    for name, text in files:
        assert not (root / name).exists()
        (root / name).write_text(text)
    make_images(root / "data" / "faces")
    out = rostro(root, *smaller("pack", "size=32", "workers=1"))
    assert "rejected 1" in out
    return root


def make_images(folder: Path, *, count: int = 64) -> None:
    import simplejpeg

    (folder / "part1").mkdir(parents=True)
    draw = np.random.default_rng(0)
    for number in range(count):
        image = draw.integers(0, 255, (40, 40, 3), np.uint8)
        image = simplejpeg.encode_jpeg(image)
        (folder / "part1" / f"{1 + number}_{number % 2}_{number % 5}_2017{number:04d}.jpg").write_bytes(image)
    (folder / "part1" / "unnamed.jpg").write_bytes(image)


def rostro(root: Path, *words: str) -> str:
    """Run a command of the copy; its output. Asserts that it succeeds."""
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "launch.cli", *words]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def smaller(command: str, *changes: str, nth: int = 0) -> list[str]:
    """The `nth` command of that name on the page, with these words in place of its own or behind them."""
    typed = [words for words in commands(NEW_TASK) if words[0] == command][nth]
    keys = {word.partition("=")[0] for word in changes}
    return [*(word for word in typed if word.partition("=")[0] not in keys), *changes]


def smoke_words(root: Path) -> list[str]:
    import yaml

    block = yaml.safe_load((root / "launch" / "conf" / "task" / "age_gender.yaml").read_text())["smoke"]
    return [f"{key}={value}" for key, value in block.items()]


def test_the_new_task_has_a_plan_and_refuses(checkout: Path):
    words = smaller("submit")
    plan = rostro(checkout, *words)
    assert re.search(r"task age_gender\s+trunk=small", plan)
    samples = json.loads((checkout / "shards" / "faces" / "train" / "manifest.json").read_text())["samples"]
    assert f"{samples} images" in plan
    with pytest.raises(AssertionError, match=r"error: task.trunk=large is not known: use googlenet or small"):
        rostro(checkout, *words, "task.trunk=large")


def test_the_new_task_trains(checkout: Path):
    small = (*smoke_words(checkout), "name=age_gender", "data.backend=host")
    rostro(checkout, *smaller("submit", *small, nth=1))
    run = checkout / "runs" / "age_gender"
    status = json.loads((run / "status.json").read_text())
    assert (status["state"], status["clock"]) == ("finished", 256)
    assert 0 < status["metrics"]["age/mae"] < 200
    assert 0 <= status["metrics"]["gender/accuracy"] <= 1
    best = min(
        json.loads(path.read_text())["metrics"].get("age/mae", np.inf)
        for path in (run / "checkpoints").glob("*/manifest.json")
    )
    assert best <= status["metrics"]["age/mae"]
    out = rostro(checkout, *smaller("evaluate", "bootstrap=20"))
    report = json.loads((run / "evaluations" / "faces-eval" / "report.json").read_text())
    assert {"by age", "by gender", "by race"} <= report["evaluators"]["age"]["tables"].keys()
    assert "mae_gap_race" in report["evaluators"]["age"]["scalars"] or "no gap" in out
    rostro(checkout, *smaller("predict", f"in={checkout / 'data' / 'faces' / 'part1'}"))
    header = "image,age,gender,gender_confidence\n"
    assert (checkout / "predicted" / "predictions.csv").read_text().startswith(header)


@pytest.mark.slow
def test_the_new_task_passes_the_audit_of_its_page(checkout: Path):
    small = ("procs=1", "engine=flat", "backend=host", "kills=1", "elastic=false")
    out = rostro(checkout, *smaller("audit-resume", *small))
    assert "equal bit for bit" in out
    assert "control, optim state left out: noticed" in out
    assert "control, ema state left out: noticed" in out
    assert "control, task state left out: skipped, the task has none: its state() is empty" in out
    assert out.endswith("audit passed\n")


def test_all_commands_of_the_new_task_s_page_are_typed_here():
    names = ["pack", "submit", "submit", "evaluate", "predict", "audit-resume"]
    assert [words[0] for words in commands(NEW_TASK)] == names
