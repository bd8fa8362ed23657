"""Directions of imports between packages and between rooms, no circles, and what must not move.

An import below `if __name__ == "__main__"` or `if TYPE_CHECKING` is not one that a module makes.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"data_shards": 0, "models": 0, "hpc": 1, "launch": 2}  # one may import those of a lower level
# Rooms and files of a package, lowest level first; those of a level may import each other without a circle.
LEVELS = {
    "data_shards": (
        ("errors", "files", "counter_rng", "counter_noise", "workers", "ragged", "images"),
        ("shard_format", "sampling", "batch", "ops", "faces"),
        ("sources", "loading", "inspect"),
        ("pack",),
    ),
    "models": (
        ("names", "resolution", "grid", "googlenet", "equalised", "yolo_maps", "costs"),
        (
            "small",
            "resnet",
            "mesonet",
            "vgg",
            "cnn",
            "dcgan",
            "vae",
            "efficientnet_lite",
            "inception",
            "yolov5",
            "unet",
        ),
        ("pix2pix", "progan"),
        ("cyclegan", "stylegan"),
        ("backbones",),
        ("siamese",),
    ),
    "hpc": (
        ("config", "cluster"),
        ("runs", "distributed", "optim"),
        ("generator",),
        ("engines", "task"),
        ("training", "data", "metrics"),
        ("checkpoints", "plots", "losses"),
        ("evaluation",),
        ("monitor", "inference", "tasks"),
        ("train",),
        ("rank",),
    ),
    "launch": (
        ("options", "doctor", "terminal"),
        ("job",),
        ("watch",),
        ("start",),
        ("audit", "submit", "batch"),
        ("commands",),
        ("cli",),
    ),
}
# A run keeps a copy of its code: pickles, job.sh and older launchers name these.
IN_PLACE = ("hpc/train.py", "hpc/rank.py", "launch/submit.py", "launch/job.py", "launch/batch.py")


def _guarded(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and (
        "__main__" in ast.unparse(node.test) or "TYPE_CHECKING" in ast.unparse(node.test)
    )


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(tree):
        if not _guarded(child):
            yield child
            yield from _nodes(child)


def _modules() -> dict[str, Path]:
    paths = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in paths
        if path.stem != "__init__"
    }


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """Module -> the modules of ours that it imports, at its top or inside of functions."""
    modules = _modules()
    found: dict[str, set[str]] = {}
    for name, path in modules.items():
        named = set()
        for node in _nodes(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                named |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        found[name] = named & modules.keys()
    return found


def _code_strings(tree: ast.AST) -> Iterator[ast.Constant]:
    """The string constants of a module except docstrings, in the order of its lines."""
    prose = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    strings = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in prose
    ]
    return iter(sorted(strings, key=lambda node: (node.lineno, node.col_offset)))


def _level(module: str) -> int:
    package, room = module.split(".")[:2]
    places = [place for place, rooms in enumerate(LEVELS[package]) if room in rooms]
    assert places, f"{module}: no level is stated for {room}"
    return places[0]


def test_none_goes_upward(imports: dict[str, set[str]]) -> None:
    upward = []
    for module, named in imports.items():
        for other in named:
            here, there = module.split(".")[0], other.split(".")[0]
            other_level, level = (
                (PACKAGES[there] + 1, PACKAGES[here]) if here != there else (_level(other), _level(module))
            )
            upward += [f"{module} -> {other}"] if other_level > level else []
    assert upward == []


def test_packing_and_loading_do_not_know_each_other(imports: dict[str, set[str]]) -> None:
    rooms = ("data_shards.pack.", "data_shards.loading.")
    both = [
        (module, other)
        for module, named in imports.items()
        for other in named
        if {room for room in rooms for name in (module, other) if name.startswith(room)} == set(rooms)
    ]
    assert both == []


def test_no_command_imports_another_command(imports: dict[str, set[str]]) -> None:
    commands = {name: named for name, named in imports.items() if name.startswith("launch.commands.")}
    assert commands
    assert [(name, other) for name, named in commands.items() for other in named if other in commands] == []


def test_there_is_no_circle(imports: dict[str, set[str]]) -> None:
    left = {module: set(named) for module, named in imports.items()}
    while leaves := [module for module, named in left.items() if not named & left.keys()]:
        for module in leaves:
            del left[module]
    assert left == {}, "modules that import each other, or lead to such"


def test_hpc_names_no_path_of_launch() -> None:
    """A path is made of strings: `ROOT / "launch" / "conf"`, `"launch/conf/task"`, `"launch.batch"`."""
    named = [
        f"{name}:{node.lineno}"
        for name, path in _modules().items()
        if name.split(".")[0] == "hpc"
        for node in _code_strings(ast.parse(path.read_text()))
        if re.match(r"launch\b", node.value)
    ]
    assert named == []


def test_a_path_of_launch_is_found_and_prose_is_not() -> None:
    code = '''"""launch/conf is prose."""
CONF = Path(__file__).parents[2] / "launch" / "conf"
def f():
    """launch/conf too."""
    return Path("launch/conf"), import_module("launch.job"), "launched", f"launch/{name}"
'''
    assert [node.value for node in _code_strings(ast.parse(code)) if re.match(r"launch\b", node.value)] == [
        "launch",
        "launch/conf",
        "launch.job",
        "launch/",
    ]


def test_what_runs_name_stays_in_place() -> None:
    assert all((ROOT / name).is_file() for name in IN_PLACE)
    assert [
        path for package in PACKAGES for path in (ROOT / package).rglob("__init__.py") if path.read_text()
    ] == []


def test_every_file_is_short_enough_to_be_read() -> None:
    long = {
        name: count
        for name, path in _modules().items()
        if (count := len(path.read_text().splitlines())) > 300
    }
    assert long == {}
