"""Names of a sweep's runs: folder names that differ, say what differs, and need no quotes."""

import re
import shlex

import pytest

from data_shards.errors import UserError
from launch.options.key_value import parse
from launch.options.option import Option
from launch.options.sweep import LONGEST, endings, points, unnamed

OPTIONS = {"runs": Option("runs", "folder of the run directories")}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("task.loss=bce,supcon seed=0,1", [f"-loss={x}-seed={n}" for x in ("bce", "supcon") for n in (0, 1)]),
        ("batch=64 seed=range(1,4)", ["-seed=1", "-seed=2", "-seed=3"]),
        ("engine.name=ddp,flat optim.name=adam", ["-name=ddp", "-name=flat"]),
        (
            "engine.name=ddp,flat optim.name=adam,sgd",
            [f"-engine.name={e}-optim.name={o}" for e in ("ddp", "flat") for o in ("adam", "sgd")],
        ),
        ("data.train=a/b,a/c", ["-train=a_b", "-train=a_c"]),
        ("data.train=a/b,a_b", ["-train=a_b-0", "-train=a_b-1"]),
        ("optim.betas=[0.5,0.9],[0.9,0.99]", ["-betas=0.5_0.9", "-betas=0.9_0.99"]),
        ("optim.lr=1e-3,3e-4", ["-lr=0.001", "-lr=0.0003"]),
        ("name=one,other seed=1", ["", ""]),
        ("task=age,race seed=1,2", [f"-task={task}-seed={n}" for task in ("age", "race") for n in (1, 2)]),
        ("data.set='$(touch x)','`y`'", ["-set=touch_x", "-set=y"]),
        ("seed=0", ["-0"]),
    ],
)
def test_runs_are_told_apart_by_their_words(words, expected):
    found = endings(points(words.split() if "'" not in words else [words]))
    if expected == ["-0"]:
        assert found == [""]  # one point: nothing to tell apart
    else:
        assert found == expected
    for end in found:
        assert shlex.quote(f"a{end}") == f"a{end}" or re.fullmatch(r"[\w.+=-]*", end)


def test_a_run_without_a_name_has_its_task_in_it_once():
    ends = endings(points(["task=age,race"]))
    found = [unnamed(task, end) for task, end in zip(("age", "race"), ends, strict=True)]
    assert found == ["age", "race"]
    assert unnamed("race", "-task=race-seed=1") == "race-seed=1"
    assert unnamed("race", "-seed=1") == "race-seed=1"


def test_names_that_would_be_too_long_are_numbers():
    keys = [f"data.{key}={'a' * 40},{'b' * 40}" for key in ("set", "train", "eval", "stage")]
    found = endings(points(keys))
    assert found == [f"-{number}" for number in range(16)]
    assert all(len(end) <= LONGEST for end in found)


def test_the_last_word_varies_fastest_and_a_key_typed_twice_keeps_its_place():
    assert points(["seed=1,2", "batch=8,16"]) == [
        ["seed=1", "batch=8"],
        ["seed=1", "batch=16"],
        ["seed=2", "batch=8"],
        ["seed=2", "batch=16"],
    ]
    assert points(["seed=1,2", "data.set='a b'", "seed=range(3,5)"]) == [
        ["seed=3", "data.set='a b'"],
        ["seed=4", "data.set='a b'"],
    ]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("seed=range(1,", r"^seed=range\(1,: no viable alternative"),
        (
            "optim.lr=interval(1,2)",
            r"^optim.lr=interval\(1,2\): BasicSweeper does not support sweep type : INTERVAL_SWEEP$",
        ),
        ("task=glob(*)", r"^task=glob\(\*\): ConfigLoader is not set$"),
    ],
)
def test_a_sweep_that_cannot_be_read_is_one_line(word, message):
    with pytest.raises(UserError, match=message):
        points([word])


@pytest.mark.parametrize("name", ["siamese-loss=bce-seed=1", "runs/a=b", "./a=b", "/x/a=b", "~/a=b"])
def test_commands_take_such_a_name_as_their_run(name):
    assert parse([name, "runs=there"], OPTIONS, positional=("run",)).run == name


def test_a_mistyped_key_is_still_one():
    for words in (["rnus=there"], ["a", "siamese-loss=bce"]):
        with pytest.raises(UserError, match="unknown key"):
            parse(words, OPTIONS, positional=("run",))
