"""`val` chooses checkpoint and threshold, `eval` is reported; with one held-out set the figures say so."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data_shards.errors import UserError
from data_shards.shard_format.shard_set import ShardSet
from hpc.checkpoints import store
from hpc.config.held_out import CHOSEN
from hpc.config.parse import save_config
from hpc.config.schema import Config, Data
from hpc.data import known_people
from hpc.distributed.comm import Comm
from hpc.runs.run_dir import RunDir
from hpc.train import Trainer
from launch.cli import main
from launch.start import data as plan
from launch.start import set_digests
from tests.support.judged import judged_run
from tests.support.runs import make_run
from tests.support.sets import pack_set


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return pack_set(tmp_path_factory.mktemp("set"), identities=24, each=4, holdout=0.25, val=0.25)


@pytest.fixture
def run(tmp_path, shards) -> Path:
    return with_val(judged_run(tmp_path / "runs" / "faces", shards), shards)


def change_data(run: Path, **folders: str) -> None:
    config = RunDir(run).config()
    data = dataclasses.replace(config.data, **folders)
    save_config(dataclasses.replace(config, data=data), run / "config.yaml")


def with_val(run: Path, shards: Path) -> Path:
    change_data(run, val=str(shards / "val"))
    return run


def evaluated(run: Path, *words: str, name: str = "pictures-eval") -> dict:
    assert main(["evaluate", str(run), "bootstrap=0", *words]) == 0
    return json.loads((run / "evaluations" / name / "report.json").read_text())


def kept(run: Path) -> dict:
    return json.loads((run / "threshold.json").read_text())


def test_val_chooses_the_threshold_and_eval_is_reported(run, shards, capsys):
    report = evaluated(run)
    shown = capsys.readouterr().out
    assert (report["split"], report["chosen_on_these_people"], report["kept"]) == ("eval", False, True)
    assert report["threshold_from"]["split"] == kept(run)["split"] == "val"
    assert kept(run)["manifest_sha256"] == ShardSet.open(shards / "val").digest
    assert report["threshold"] == kept(run)["threshold"] != report["rows"][0]["thresholds"]["eer"]
    assert f"threshold {report['threshold']:.4f} (cosine), chosen on pictures val" in shown
    assert "; kept for `rostro verify`" in shown
    assert CHOSEN not in shown
    listed = evaluated(run, f"data={shards / 'eval'}")  # what is there serves, nothing is written
    assert (listed["kept"], listed["threshold"]) == (False, report["threshold"])
    rates = report["at_threshold"]
    assert f"accepts {rates['false_accepts']:.1%} of the impostor pairs" in shown
    on_val = evaluated(run, f"data={shards / 'val'}", name="pictures-val")
    assert on_val["threshold"] == on_val["rows"][0]["thresholds"]["eer"] == report["threshold"]
    assert on_val["at_threshold"]["false_accepts"] == pytest.approx(on_val["rows"][0]["eer"], abs=0.05)


def test_a_run_with_one_held_out_set_says_so_everywhere(tmp_path, shards, capsys):
    run = judged_run(tmp_path / "faces", shards)
    report = evaluated(run)
    assert (report["chosen_on_these_people"], report["threshold_from"]["split"]) == (True, "eval")
    assert f"note: {CHOSEN}" in capsys.readouterr().out
    assert main(["export", str(run), f"out={tmp_path / 'net'}", "onnx=false"]) == 0
    card = json.loads((tmp_path / "net" / "model.json").read_text())
    assert CHOSEN in card["held_out"]
    assert card["evaluations"][0]["chosen_on_these_people"] is True


def test_only_the_validation_people_or_keep_write_the_threshold(run, shards, capsys):
    first = evaluated(run)
    before = (run / "threshold.json").read_bytes()
    (run / "threshold.json").unlink()
    evaluated(run, f"data={shards / 'eval'}")  # none was kept: val is asked, not the judged people
    assert (run / "threshold.json").read_bytes() == before
    other = evaluated(run, f"data={shards / 'eval'}", "keep=true")
    assert other["threshold_from"]["split"] == kept(run)["split"] == "eval"
    assert other["kept"]
    capsys.readouterr()
    again = evaluated(run, f"data={shards / 'eval'}")  # what was kept on purpose is used, and named
    assert "chosen on pictures eval" in capsys.readouterr().out
    assert again["threshold"] == other["threshold"]
    assert evaluated(run)["threshold"] == first["threshold"]  # the run's own choice, anew
    assert (run / "threshold.json").read_bytes() == before


def test_a_moved_validation_set_leaves_the_kept_threshold_or_none(run, shards, tmp_path, capsys):
    gone = str(tmp_path / "gone")
    change_data(run, val=gone)
    report = evaluated(run)
    assert report["threshold_from"]["these_pairs"]
    shown = capsys.readouterr().out
    assert "of these pairs" in shown
    assert not (run / "threshold.json").exists()
    # A run of an earlier version does not say who chose; one of this version does, wherever the set is.
    assert report["chosen_on_these_people"] is report["people_of_validation"] is None
    assert "it is not known who chose checkpoint and threshold" in shown
    known_people.write(run, known_people.people_of(ShardSet.open(shards / "val")), role=known_people.CHOSEN)
    assert evaluated(run)["chosen_on_these_people"] is False
    on_val = evaluated(run, f"data={shards / 'val'}", name="pictures-val")
    assert on_val["chosen_on_these_people"] is True
    change_data(run, eval=gone)
    assert main(["evaluate", str(run)]) == 2
    assert (
        f"{gone}, the held-out set of {run}, is not there any more: give data=DIR" in capsys.readouterr().err
    )


def test_another_set_in_the_place_of_the_validation_set_chooses_nothing(run, shards, capsys):
    RunDir(run).data_file.write_text(json.dumps({"val": "another"}))
    assert evaluated(run)["threshold_from"]["these_pairs"]
    assert not (run / "threshold.json").exists()


@pytest.mark.parametrize("val", [True, False])
def test_training_is_judged_by_val_and_says_whom_it_was_chosen_on(tmp_path, shards, val, capfd):
    run = make_run(tmp_path / "run", shards, images=32)
    if val:
        with_val(run, shards)
    trainer = Trainer(RunDir(run), Comm())
    assert set(trainer.sets) == {"train", "val" if val else "eval"}
    try:
        trainer.fit()
    finally:
        trainer.close()
    log = capfd.readouterr().out
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    groups = {line["group"] for line in lines}
    assert ("val" in groups, "eval" in groups) == (val, not val)
    text = (
        EventAccumulator(str(run))
        .Reload()
        .Tensors("held_out/text_summary")[0]
        .tensor_proto.string_val[0]
        .decode()
    )
    assert (CHOSEN in log, CHOSEN in text) == (not val, not val)
    assert ("judged on val" in log, "judged on val" in text) == (val, val)
    assert store.read(store.listing(run)[-1]).meta["metrics"]["verification/eer"] == next(
        line["verification/eer"] for line in lines if line["group"] in ("val", "eval")
    )


def test_siblings_are_found_and_a_run_keeps_to_those_it_began_with(tmp_path, shards):
    config = Config(data=Data(train=str(shards / "train")), task={"name": "siamese"})
    both = plan.locate_data(config).data
    assert (both.val, both.eval) == (str(shards / "val"), str(shards / "eval"))
    assert plan.locate_data(config, siblings=("train", "eval")).data.val == ""
    for split in ("train", "test"):  # as published
        shutil.copytree(shards / "train", tmp_path / "published" / split)
    published = Config(data=Data(train=str(tmp_path / "published" / "train")), task={"name": "siamese"})
    assert plan.locate_data(published).data.eval == str(tmp_path / "published" / "test")
    run = RunDir(tmp_path)
    run.data_file.write_text(json.dumps({"train": ShardSet.open(shards / "train").digest}))
    with pytest.raises(UserError, match=r"data.val=.* began without one"):
        set_digests.check_digests(run, plan.locate_data(config))
