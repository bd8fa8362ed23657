"""`rostro evaluate`: figures, files, baselines, pair lists and every refusal, by the real command."""

import json
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from data_shards.loading.reader import Reader
from data_shards.shard_format.shard_set import ShardSet
from hpc.evaluation.pair_protocol import trial
from hpc.evaluation.verification_run import PIXELS, pixels
from hpc.inference.predictor import ImageBlocks, load_run, untrained
from launch.cli import main
from tests.support.judged import judged_run
from tests.support.sets import pack_set, write_folders

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return pack_set(tmp_path_factory.mktemp("set"), identities=24, each=4, holdout=0.5)


@pytest.fixture(scope="module")
def run(tmp_path_factory, shards) -> Path:
    return judged_run(tmp_path_factory.mktemp("runs") / "faces", shards)


def report_of(run: Path, name: str) -> dict:
    return json.loads((run / "evaluations" / name / "report.json").read_text())


def test_it_judges_the_held_out_people_beside_two_baselines(run, shards, capsys):
    assert main(["evaluate", str(run), "bootstrap=50"]) == 0
    shown = capsys.readouterr().out
    assert "48 images of 12 people, 72 genuine and 1,056 impostor pairs" in shown
    report = report_of(run, "pictures-eval")
    assert [row["name"] for row in report["rows"]] == ["faces at 160 (ema)", "untrained network", PIXELS]
    assert all(row["name"] in shown for row in report["rows"])
    for row in report["rows"]:
        low, high = row["intervals_95"]["eer"]
        assert 0 <= low <= row["eer"] <= high <= 1
        assert row["accuracy"]["folds"] == 6
        assert row["tar"]["far=1e-4"] is None
    folder = run / "evaluations" / "pictures-eval"
    for image in ("roc.png", "scores.png"):
        assert (folder / image).read_bytes()[:4] == PNG
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert PIXELS in page
    assert not re.search(r"(src|href)=.?(http|/|file)", page)
    kept = json.loads((run / "threshold.json").read_text())
    assert (kept["checkpoint"], kept["weights"], kept["score"]) == (160, "ema", "cosine")
    assert kept["manifest_sha256"] == ShardSet.open(shards / "eval").digest
    assert kept["threshold"] == report["rows"][0]["thresholds"]["eer"]


def test_figures_equal_scikit_learn_on_the_same_embeddings(run, shards):
    main(["evaluate", str(run), "bootstrap=0", "weights=raw", "checkpoint=last"])
    report = report_of(run, "pictures-eval")
    assert (report["checkpoint"], report["weights"]) == (320, "raw")
    held_out = ShardSet.open(shards / "eval", fields=("identity",))
    images = np.concatenate(list(ImageBlocks(held_out, np.arange(len(held_out)), 32)))
    model = load_run(run, checkpoint="last", weights="raw")
    first, second = np.triu_indices(len(images), 1)
    identity = np.asarray(held_out.labels["identity"])
    for row, found in zip(
        report["rows"], (model.embed(images), untrained(model).embed(images), pixels(images)), strict=True
    ):
        found = found.astype(np.float64) / np.linalg.norm(found, axis=1, keepdims=True)
        cosine = (found @ found.T)[first, second]
        assert row["auc"] == pytest.approx(
            roc_auc_score(identity[first] == identity[second], cosine), abs=1e-5
        )
        assert row["intervals_95"] == {}


def test_a_pair_list_counts_what_it_can_use(run, shards, tmp_path, capsys):
    held_out = ShardSet.open(shards / "eval")
    one, two = held_out.identity_names()[:2]
    lines = ["2", f"{one} 0 1", f"{two} 2 3", f"{one} 0 {two} 0", f"{one} 1 Nobody 7"]
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("\n".join(lines))
    before = sorted(run.rglob("*"))
    assert main(["evaluate", str(run), f"pairs={pairs}"]) == 2
    error = capsys.readouterr().err
    assert "first Nobody/Nobody_0007; only 3 of 4 pairs are usable: type missing=skip" in error
    assert error.count("\n") == 1
    assert sorted(run.rglob("*")) == before
    assert main(["evaluate", str(run), f"pairs={pairs}", "missing=skip", "bootstrap=0"]) == 0
    assert "3 of 4 pairs of pairs.txt (LFW, no folds) are usable" in capsys.readouterr().out
    trial = report_of(run, "pictures-eval-pairs")["trial"]
    assert (trial["listed"], trial["usable"], trial["genuine"], trial["impostors"]) == (4, 3, 2, 1)


@pytest.mark.parametrize("disk", ["NFC", "NFD"])
def test_a_pair_list_finds_people_with_accents_in_their_names(tmp_path, disk):
    """As some disks store the accent in one letter and some in two, and the shards hold neither."""
    source = write_folders(tmp_path / "pictures", identities=3, each=3)
    for old, new in (("person000", "José_Núñez"), ("person001", "李明"), ("person002", "J.R._Smith")):
        name = unicodedata.normalize(disk, new)
        (source / old).rename(source / name)
        for path in (source / name).iterdir():
            path.rename(path.with_name(path.name.replace(old, name)))
    words = ["source=folder", f"src={source}", f"out={tmp_path / 'shards'}", "workers=1"]
    assert main(["pack", *words]) == 0
    shards = ShardSet.open(tmp_path / "shards" / "train")
    pairs = tmp_path / "pairs.txt"
    wanted = [(("José_Núñez", 0), ("José_Núñez", 2)), (("J.R._Smith", 1), ("J.R._Smith", 2))]
    wanted += [(("李明", 1), ("José_Núñez", 1)), (("J.R._Smith", 0), ("李明", 2))]
    lines = [f"{a[0]} {a[1]} {b[1]}" if a[0] == b[0] else f"{a[0]} {a[1]} {b[0]} {b[1]}" for a, b in wanted]
    pairs.write_text("\n".join(("1 2", *lines)), encoding="utf-8")
    on = trial(shards, pairs=pairs, skip=False)
    reader = Reader(shards)
    for pair, rows in zip(wanted, zip(on.pairs.first, on.pairs.second, strict=True), strict=True):
        for (person, number), row in zip(pair, rows, strict=True):
            folder = source / unicodedata.normalize(disk, person)
            data = (folder / f"{folder.name}_{number:04d}.jpg").read_bytes()
            assert bytes(reader.read([int(on.ids[row])])[0]) == data


@pytest.mark.parametrize("loss", ["contrastive", "bce"])
def test_training_and_evaluate_give_the_same_figures(tmp_path, shards, loss):
    """The evaluator of the trainer, on the same weights, through the loader that it uses."""
    from hpc.data import loaders
    from hpc.distributed.comm import Comm
    from hpc.evaluation.base import JudgedSet
    from hpc.evaluation.run import evaluate

    run = judged_run(tmp_path / "run", shards, loss=loss, averaged=False)
    assert main(["evaluate", str(run), "bootstrap=0"]) == 0
    report = report_of(run, "pictures-eval")
    model, here = load_run(run), Comm()
    sets = loaders.shard_sets(model.config, model.task, here)
    loader = loaders.eval_loader(model.config, model.task, sets, here)
    assert loader is not None
    judged = JudgedSet(lambda comm: loader, sets["eval"])
    found, _ = evaluate(model.task, model.nets, judged, here, channels_last=False)
    assert report["score"] == ("probability" if loss == "bce" else "cosine")
    for name in ("eer", "auc", "d_prime"):
        figure = found["verification"].scalars[name]
        assert report["rows"][0][name] == pytest.approx(figure, abs=1e-4)
        assert report["evaluators"]["verification"]["scalars"][name] == report["rows"][0][name]


def test_a_damaged_best_checkpoint_is_passed_over(tmp_path, shards, capsys):
    run = judged_run(tmp_path / "run", shards)
    file = run / "checkpoints" / "000000000160" / "player-net.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert main(["evaluate", str(run), "bootstrap=0"]) == 0
    assert "warning" in capsys.readouterr().err
    assert report_of(run, "pictures-eval")["checkpoint"] == 320
    (file.parent / "manifest.json").write_text("{")
    assert main(["evaluate", str(run), "bootstrap=0"]) == 0
    assert "its manifest is damaged" in capsys.readouterr().err
    assert report_of(run, "pictures-eval")["checkpoint"] == 320
    assert main(["evaluate", str(run), "checkpoint=160"]) == 2
    assert "damaged" in capsys.readouterr().err


def test_people_of_the_training_are_refused_and_their_threshold_is_not_kept(tmp_path, shards, capsys):
    run = judged_run(tmp_path / "run", shards)
    train = f"data={shards / 'train'}"
    assert main(["evaluate", str(run), train, "bootstrap=0"]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(
        r"error: data=.*: 12 of the 12 people to be judged are of the training, such as person0"
        r".*overlap=allow\n",
        error,
    )
    assert not (run / "threshold.json").exists()
    assert main(["evaluate", str(run), train, "bootstrap=0", "overlap=allow"]) == 0
    assert "chosen on pictures eval" in capsys.readouterr().out
    assert json.loads((run / "threshold.json").read_text())["split"] == "eval"
    assert main(["evaluate", str(run), train, "bootstrap=0", "overlap=allow", "keep=true"]) == 2
    assert "keep=true: a threshold of people of the training" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["overlap=yes"], "overlap=yes is not known: use refuse or allow"),
        (["checkpoint=77"], "checkpoint=77 is not in .*use best, last or one of 160, 320"),
        (["weights=mean"], "weights=mean is not known: use ema, raw or auto"),
        (["missing=maybe"], "missing=maybe is not known: use error or skip"),
        (["bootstrap=-1"], "bootstrap=-1 is not 0 or more: type bootstrap=1000"),
        (["data=/nowhere"], "/nowhere: has no manifest.json"),
        (["pairs=/nowhere.txt"], "/nowhere.txt does not exist"),
        (["chekpoint=best"], "unknown key chekpoint .*checkpoint"),
    ],
)
def test_bad_words_are_refused_on_one_line(run, words, message, capsys):
    assert main(["evaluate", str(run), *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error), error


def test_a_run_without_average_or_checkpoint_says_so(tmp_path, shards, capsys):
    run = judged_run(tmp_path / "run", shards, averaged=False)
    assert main(["evaluate", str(run), "weights=ema"]) == 2
    assert "kept no average (ema.half_life=0): use weights=raw" in capsys.readouterr().err
    for path in (run / "checkpoints").iterdir():
        path.rename(tmp_path / path.name)
    assert main(["evaluate", str(run)]) == 2
    assert "has no checkpoint yet" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "nothing")]) == 2
    assert "is not a run directory" in capsys.readouterr().err
