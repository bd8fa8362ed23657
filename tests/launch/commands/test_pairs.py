"""`rostro pairs`: a deterministic list that `evaluate` reads, in every format; contradictions are refused."""

import json
from pathlib import Path

import pytest

from data_shards.shard_format.shard_set import ShardSet
from hpc.evaluation.pair_protocol import trial
from launch.cli import main
from tests.support.judged import judged_run
from tests.support.sets import pack_set


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return pack_set(tmp_path_factory.mktemp("set"), identities=16, each=4, holdout=0.5)


@pytest.mark.parametrize("kind", ["lfw", "paths"])
def test_a_drawn_list_is_evaluated(shards, tmp_path, kind, capsys):
    lists = [tmp_path / name for name in ("one.txt", "two.txt", "three.txt")]
    for path, seed in zip(lists, (0, 0, 1), strict=True):
        words = [str(shards / "eval"), f"out={path}", "n=30", f"seed={seed}", f"format={kind}"]
        assert main(["pairs", *words]) == 0
    assert lists[0].read_bytes() == lists[1].read_bytes() != lists[2].read_bytes()
    run = judged_run(tmp_path / "run", shards)
    assert main(["evaluate", str(run), f"pairs={lists[0]}", "bootstrap=0"]) == 0
    found = json.loads((run / "evaluations" / "pictures-eval-one" / "report.json").read_text())["trial"]
    assert (found["genuine"], found["impostors"]) == (30, 30)
    assert found["format"] == ("LFW, no folds" if kind == "lfw" else "paths")
    assert found["format"] in capsys.readouterr().out


def test_all_formats_name_the_same_pairs(shards, tmp_path):
    held = ShardSet.open(shards / "eval")
    found = []
    for kind in ("lfw", "paths"):
        path = tmp_path / kind
        assert main(["pairs", str(shards / "eval"), f"out={path}", "n=20", f"format={kind}"]) == 0
        found.append(trial(held, pairs=path, skip=False))
    text = (tmp_path / "paths").read_text()
    (tmp_path / "list.csv").write_text("a,b,same\r\n" + text.replace(" ", ",").replace("\n", "\r\n"))
    found.append(trial(held, pairs=tmp_path / "list.csv", skip=False))
    for other in found[1:]:
        for column in ("first", "second", "same", "fold"):
            assert getattr(found[0].pairs, column).tolist() == getattr(other.pairs, column).tolist()
        assert found[0].ids.tolist() == other.ids.tolist()


def test_a_label_that_the_set_contradicts_is_refused(shards, tmp_path, capsys):
    path, run = tmp_path / "list", judged_run(tmp_path / "run", shards)
    assert main(["pairs", str(shards / "eval"), f"out={path}", "n=5", "format=paths"]) == 0
    lines = path.read_text().splitlines()
    lines[6] = lines[6][:-1] + "1"
    path.write_text("\n".join(lines))
    capsys.readouterr()
    assert main(["evaluate", str(run), f"pairs={path}"]) == 2
    assert "line 7 says one person, the set says two" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["n=0"], "n=0 is not 1 to 1_000_000: type n=500"),
        (["n=5000"], "gave only 48 pairs of one person: type a smaller n="),
        (["format=csv"], "format=csv is not known"),
        (["out=/nowhere/at/all", "n=5"], "cannot be written"),
    ],
)
def test_bad_words_are_refused(shards, tmp_path, words, message, capsys):
    out = [] if words[0].startswith("out=") else [f"out={tmp_path / 'x'}"]
    assert main(["pairs", str(shards / "eval"), *out, *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_old_list_is_not_replaced(shards, tmp_path, capsys):
    (tmp_path / "mine").write_text("precious")
    assert main(["pairs", str(shards / "eval"), f"out={tmp_path / 'mine'}"]) == 2
    assert "exists: remove it" in capsys.readouterr().err
