"""The kept threshold of a run."""

from pathlib import Path

from hpc.evaluation import threshold

ONE = {"checkpoint": 64, "weights": "ema", "set": "faces", "split": "val", "manifest_sha256": "a"}
ONE |= {"threshold": 0.5, "eer": 0.1}


def test_a_threshold_is_not_replaced_without_a_word(tmp_path: Path, capsys):
    threshold.keep(tmp_path, ONE)
    threshold.keep(tmp_path, ONE)
    assert capsys.readouterr().err == ""
    threshold.keep(tmp_path, ONE | {"checkpoint": 128, "threshold": 0.75})
    said = capsys.readouterr().err
    was, now = "0.5000 (faces val, 64 images, ema)", "0.7500 (faces val, 128 images, ema)"
    assert said == f"warning: threshold.json: {was} is replaced by {now}\n"
    assert threshold.read(tmp_path)["threshold"] == 0.75
