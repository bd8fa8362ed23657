"""What a run shows, read back by TensorBoard's own reader and by eye of the files."""

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from data_shards.errors import UserError
from hpc.config.schema import Config
from hpc.evaluation.base import Report
from hpc.monitor import console, event_file, projector
from hpc.monitor.metrics_file import trim_lines
from hpc.monitor.monitor import Monitor

IMAGES = 1000


def _config() -> Config:
    config = Config(name="try", images=IMAGES, task={"name": "siamese", "margin": 1.0})
    config.log.projector = 5
    return config


def _monitor(run: Path, resume_clock: int | None = None) -> Monitor:
    return Monitor(run, _config(), rank=0, resume_clock=resume_clock)


def _tick(monitor: Monitor, clock: int, speed: float = 100.0) -> None:
    monitor.log_progress(
        clock,
        losses={"train": 1.0 / clock, "positive": 0.5},
        rates={"embedder": 1e-3},
        grad_norm={"embedder": 2.0},
        images_per_s=speed,
        data_wait=0.25,
        memory_mb=512.0,
    )


def _report(seed: int) -> tuple[Report, tuple[torch.Tensor, torch.Tensor]]:
    rng = np.random.default_rng(seed)
    same = rng.random(400) < 0.3
    curves = {"roc": (rng.normal(size=400) + 2 * same, same.astype(np.int64))}
    embeddings = rng.normal(size=(20, 8)).astype(np.float32), np.arange(100, 120)
    images = torch.from_numpy(rng.integers(0, 256, (8, 3, 96, 96), dtype=np.uint8))
    scalars = {"eer": 0.25, "auc": 0.75}
    return Report(scalars, curves, embeddings), (images, torch.arange(103, 111))


def _read(run: Path) -> EventAccumulator:
    return EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 0, "tensors": 0}).Reload()


def _tags_of_all_records(run: Path) -> list[str]:
    found = [Event.FromString(data) for path in event_file.files(run) for data in event_file.records(path)]
    return [value.tag for event in found for value in event.summary.value]


def _steps(run: Path, tag: str) -> list[int]:
    return [event.step for event in _read(run).Scalars(tag)]


def test_all_kinds_reach_tensorboard(tmp_path: Path) -> None:
    monitor = _monitor(tmp_path)
    _tick(monitor, 100)
    monitor.report(500, *_report(0), labels={"identity": list("aabbccdd")})
    monitor.scalars(500, {"samples_digest": 5e8}, group="data")
    monitor.images(500, "batch", torch.rand(5, 3, 16, 16) * 2 - 1)
    monitor.histograms(500, {"conv.weight": torch.nn.Parameter(torch.randn(4, 3)), "zero": torch.zeros(3)})
    _tick(monitor, IMAGES)
    monitor.close()
    reader = _read(tmp_path)
    tags = reader.Tags()
    assert set(tags["scalars"]) == {
        *("loss/train", "loss/positive", "optim/lr", "optim/grad_norm", "metrics/eer", "metrics/auc"),
        *("perf/images_per_s", "perf/data_wait", "perf/memory_mb"),
    }
    assert min(tags["scalars"] + tags["images"] + tags["histograms"]).startswith("loss/")  # the first card
    assert set(tags["images"]) == {"metrics/roc", "pictures/batch"}
    assert set(tags["histograms"]) == {"weights/conv.weight", "weights/zero"}
    assert {"config/text_summary", "metrics/pr"} <= set(tags["tensors"])
    assert set(reader.PluginTagToContent("hparams")) == {
        "_hparams_/session_start_info",
        "_hparams_/session_end_info",
    }
    start = reader.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    hparams = HParamsPluginData.FromString(start).session_start_info.hparams
    assert hparams["optim.lr"].number_value == 1e-3
    assert hparams["task.margin"].number_value == 1.0
    assert "log.every" not in hparams
    assert b"margin: 1.0" in reader.Tensors("config/text_summary")[0].tensor_proto.string_val[0]
    drawn = Image.open(io.BytesIO(reader.Images("metrics/roc")[0].encoded_image_string))
    assert drawn.size == (reader.Images("metrics/roc")[0].width, reader.Images("metrics/roc")[0].height)
    assert '"samples_digest": 500000000.0' in (tmp_path / "metrics.jsonl").read_text()
    assert [path.parent for path in tmp_path.rglob("*tfevents*")] == [tmp_path]  # one run, not several


def test_pr_curve_ranks_as_the_scores_do(tmp_path: Path) -> None:
    monitor = _monitor(tmp_path)
    scores, same = np.array([-3.0, -2.0, 4.0, 5.0]), np.array([0, 0, 1, 1])
    monitor.report(100, Report(curves={"roc": (scores, same)}))
    monitor.close()
    tensor = _read(tmp_path).Tensors("metrics/pr")[0].tensor_proto
    table = np.array(tensor.float_val or np.frombuffer(tensor.tensor_content, "f4")).reshape(6, -1)
    true_positives, false_positives = table[0], table[1]
    assert true_positives[0] == 2
    assert false_positives[0] == 2
    assert ((true_positives == 2) & (false_positives == 0)).any()  # some threshold tells them apart


def test_one_kind_of_label_gives_no_curve(tmp_path: Path) -> None:
    monitor = _monitor(tmp_path)
    monitor.report(100, Report({"eer": 0.1}, {"roc": (np.arange(3.0), np.ones(3, np.int64))}))
    monitor.close()
    assert _read(tmp_path).Tags()["images"] == []


def test_projector_shows_the_last_evaluation_and_does_not_grow(tmp_path: Path) -> None:
    monitor = _monitor(tmp_path)
    monitor.report(100, *_report(0), labels={"identity": list("aabbccdd")})
    listed = sorted(path.name for path in tmp_path.rglob("*"))
    report, shown = _report(1)
    monitor.report(200, report, shown, labels={"identity": list("aabbccdd")})
    monitor.close()
    assert sorted(path.name for path in tmp_path.rglob("*")) == listed
    vectors = np.loadtxt(tmp_path / "projector" / "tensors.tsv")
    assert report.embeddings is not None
    # log.projector=5 of the ids shown
    np.testing.assert_allclose(vectors, report.embeddings[0][3:8], rtol=1e-5)
    rows = (tmp_path / "projector" / "metadata.tsv").read_text().splitlines()
    assert rows == ["identity\tsample", "a\t103", "a\t104", "b\t105", "b\t106", "c\t107"]
    sprite = Image.open(tmp_path / "projector" / "sprite.png")
    assert sprite.size == (3 * 64, 3 * 64)
    assert "embedding at 200 images" in (tmp_path / "projector_config.pbtxt").read_text()


def test_a_single_column_of_labels_has_no_header(tmp_path: Path) -> None:
    monitor = _monitor(tmp_path)
    monitor.report(100, *_report(0))
    monitor.close()
    assert (tmp_path / "projector" / "metadata.tsv").read_text().splitlines()[0] == "103"


def test_grid_puts_images_row_by_row() -> None:
    images = torch.arange(5, dtype=torch.uint8).mul(50)[:, None, None, None].expand(5, 1, 2, 2)
    sheet = projector.grid(images, gap=1)
    assert sheet.shape == (7, 10, 3)
    assert sheet[1, [1, 4, 7], 0].tolist() == [0, 50, 100]
    assert sheet[4, [1, 4, 7], 0].tolist() == [150, 200, 0]


@pytest.mark.parametrize("torn", [0, 1, 40, 4000])
def test_series_are_single_valued_after_a_kill(tmp_path: Path, torn: int) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    for run in (straight, killed):
        run.mkdir()
    monitor = _monitor(straight)
    for clock in range(100, IMAGES + 1, 100):
        _tick(monitor, clock)
    monitor.close()

    monitor = _monitor(killed)
    for clock in range(100, 501, 100):
        _tick(monitor, clock, speed=7.0)
    monitor.flush()  # the checkpoint of clock 500
    safe = event_file.files(killed)[0].stat().st_size
    for clock in range(600, 801, 100):
        _tick(monitor, clock, speed=7.0)
    path = event_file.files(killed)[0]
    os.truncate(path, max(path.stat().st_size - torn, safe))
    with (killed / "metrics.jsonl").open("a") as lines:
        lines.write('{"clock": 900, "gro')
    monitor = _monitor(killed, resume_clock=500)
    for clock in range(600, IMAGES + 1, 100):
        _tick(monitor, clock, speed=9.0)
    monitor.close()

    reader, reference = _read(killed), _read(straight)
    for tag in reference.Tags()["scalars"]:
        assert _steps(killed, tag) == list(range(100, IMAGES + 1, 100))
        if not tag.startswith("perf/"):
            values = [[event.value for event in each.Scalars(tag)] for each in (reader, reference)]
            assert values[0] == values[1]
    records = [
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (straight, killed)
    ]
    kept = [[line for line in part if line["group"] != "perf"] for part in records]
    assert kept[0] == kept[1]
    for tag in ("config/text_summary", "_hparams_/session_start_info", "_hparams_/session_end_info"):
        assert _tags_of_all_records(killed).count(tag) == 1, tag


def test_a_start_without_checkpoint_begins_anew(tmp_path: Path) -> None:
    first = _monitor(tmp_path)
    _tick(first, 100)
    first.flush()
    second = _monitor(tmp_path)
    _tick(second, 50)
    second.close()
    assert _steps(tmp_path, "loss/train") == [50]
    assert {json.loads(line)["clock"] for line in (tmp_path / "metrics.jsonl").open()} == {50}


def test_flush_leaves_nothing_in_memory(tmp_path: Path) -> None:
    monitor = _monitor(tmp_path)
    monitor.scalars(10, {"a": 1.5, "b": float("nan")}, group="loss")
    monitor.flush()
    assert _steps(tmp_path, "loss/a") == [10]
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {
        "clock": 10,
        "group": "loss",
        "a": 1.5,
        "b": None,
    }
    monitor.close()


def test_a_full_disk_is_one_line_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = _monitor(tmp_path)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(event_file.os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\): free space"):
        monitor.flush()


def test_lines_are_cut_back_to_the_clock(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"clock": 1}\n{"clock": 5}\n{"clock": 3}\n{"clock": 2}')
    assert trim_lines(path, 3) == []
    assert path.read_text() == '{"clock": 1}\n{"clock": 3}\n'
    assert trim_lines(tmp_path / "absent.jsonl", 3) == []
    assert not (tmp_path / "absent.jsonl").exists()


@pytest.mark.parametrize("line", [b"not json", b"[1]", b"{}", b'{"clock": "1"}', b"\xff", b"[" * 9999])
def test_damaged_lines_are_counted_and_kept_aside(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    content = b'{"clock": 1}\n' + line + b'\n{"clock": 2}\n'
    path.write_bytes(content)
    (warning,) = trim_lines(path, 2)
    assert "1 damaged lines are left out" in warning
    assert path.read_bytes() == b'{"clock": 1}\n{"clock": 2}\n'
    assert (tmp_path / "damaged-metrics.jsonl").read_bytes() == content


def test_the_log_says_what_was_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = _monitor(tmp_path)
    _tick(first, 100)
    first.close()
    with (tmp_path / "metrics.jsonl").open("ab") as lines:
        lines.write(b"torn and glued\n")
    _monitor(tmp_path, resume_clock=100).close()
    assert "metrics.jsonl: 1 damaged lines are left out" in capsys.readouterr().out


def test_status_follows_ticks_and_evaluations(tmp_path: Path) -> None:
    monitor = _monitor(tmp_path)
    _tick(monitor, 200)
    monitor.report(200, Report({"eer": 0.125, "tar": float("nan")}))
    monitor.close()
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["state"], status["clock"], status["images"]) == ("running", 200, IMAGES)
    assert (status["rate"], status["loss"], status["metrics"]) == (100.0, 0.005, {"eer": 0.125})


def test_other_ranks_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monitor = Monitor(tmp_path, _config(), rank=1, resume_clock=None)
    monitor.note("hello")
    _tick(monitor, 100)
    monitor.report(100, *_report(0))
    monitor.images(100, "batch", torch.zeros(1, 3, 4, 4), keep=True)
    monitor.histograms(100, {"w": torch.zeros(3)})
    monitor.flush()
    monitor.close()
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_several_players_have_series_of_their_own(tmp_path: Path) -> None:
    monitor = _monitor(tmp_path)
    rest = {"images_per_s": 1.0, "data_wait": 0.0, "memory_mb": 1.0}
    two = {"generator": 1.0, "critic": 2.0}
    monitor.log_progress(10, losses={"main": 1.0}, rates=two, grad_norm=two, **rest)
    monitor.close()
    tags = {tag for tag in _read(tmp_path).Tags()["scalars"] if tag.startswith("optim/")}
    assert tags == {f"optim/{kind}_{player}" for kind in ("lr", "grad_norm") for player in two}


def test_the_line_of_a_tick_says_it_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monitor = _monitor(tmp_path)
    monitor.note("read [this]")
    _tick(monitor, 250)
    monitor.close()
    assert capsys.readouterr().out.splitlines() == [
        "read [this]",
        "        250  25.0%  train 4.00e-03  positive 0.5000 | lr 1.00e-03  grad_norm 2.0000 | "
        "100.0 img/s  wait 25%  512 MB  left 0:00:08",
    ]


def test_a_terminal_has_a_bar_with_the_time_left() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    shown = console.Console(200, IMAGES, stream)
    shown.say("a line [with brackets]")
    shown.advance(500, 100.0, 5.0)
    shown.close()
    shown.close()
    text = stream.getvalue()
    assert "a line [with brackets]" in text
    assert "500/1,000 images" in text
    assert "0:00:05 left" in text


def test_an_installed_tensorflow_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('tensorflow was imported')\n")
    code = (
        "from hpc.monitor import event_file; import pathlib, sys;"
        "event_file.EventFile(pathlib.Path(sys.argv[1])).close();"
        "from torch.utils.tensorboard import summary; summary.scalar('a', 1.0); print('fine')"
    )
    root = Path(event_file.__file__).parents[2]
    env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "fine"), done.stderr
