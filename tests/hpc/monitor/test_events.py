"""Event files after a kill, as TensorBoard's own reader sees them."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from torch.utils.tensorboard import summary

from hpc.monitor import event_file
from hpc.monitor.metrics_file import trim_lines


def _points(run: Path) -> list[tuple[int, float]]:
    reader = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    return [(event.step, event.value) for event in reader.Scalars("loss")] if reader.Tags()["scalars"] else []


def _log(run: Path, clocks: range, *, resume_clock: int | None = None) -> event_file.EventFile:
    file = event_file.EventFile(run, resume_clock=resume_clock)
    for clock in clocks:
        file.add(summary.scalar("loss", float(clock % 97)), clock)
    file.flush()
    return file


def test_records_are_those_of_tensorboards_reader(tmp_path: Path) -> None:
    file = _log(tmp_path, range(1, 20))
    file.close()
    assert list(event_file.records(file.path)) == list(RawEventFileLoader(str(file.path)).Load())


@pytest.mark.parametrize("torn", [1, 3, 11, 12, 13, 30])
def test_a_torn_record_ends_the_file(tmp_path: Path, torn: int) -> None:
    file = _log(tmp_path, range(1, 4))
    file.close()
    whole = list(event_file.records(file.path))
    last = len(event_file.framed(whole[-1]))
    os.truncate(file.path, file.path.stat().st_size - last + torn)
    assert list(event_file.records(file.path)) == whole[:-1]


@pytest.mark.parametrize("place", [0, 9, 14, -1])
def test_a_damaged_record_ends_the_file(tmp_path: Path, place: int) -> None:
    file = _log(tmp_path, range(1, 4))
    file.close()
    whole = list(event_file.records(file.path))
    content = bytearray(file.path.read_bytes())
    content[place - len(event_file.framed(whole[-1])) if place >= 0 else place] ^= 1
    file.path.write_bytes(content)
    assert list(event_file.records(file.path)) == whole[:-1]


def _damaged(file: Path, place: int) -> bytes:
    """The content of `file` with a bit flipped."""
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    return bytes(content)


@pytest.mark.parametrize("place", [0, 5, 9, 14, -1])
def test_a_damaged_record_costs_itself_and_no_other(tmp_path: Path, place: int) -> None:
    """In its length, the length's checksum, its payload and the payload's checksum."""
    file = _log(tmp_path, range(1, 101))
    file.close()
    whole = list(event_file.records(file.path))
    start = sum(len(event_file.framed(data)) for data in whole[: 20 + (place < 0)])
    damaged = _damaged(file.path, start + place)
    file.path.write_bytes(damaged)
    assert list(event_file.records(file.path)) == whole[:20] + whole[21:]
    (warning,) = event_file.trim(tmp_path, 90)
    assert "damaged in 1 places" in warning
    copy = tmp_path / warning.rpartition(" ")[2]
    assert copy.read_bytes() == damaged
    assert [step for step, _ in _points(tmp_path)] == [clock for clock in range(1, 91) if clock != 20]
    assert event_file.trim(tmp_path, 90) == []


def test_a_second_damage_of_the_same_file_keeps_both_copies(tmp_path: Path) -> None:
    file = _log(tmp_path, range(1, 10))
    file.close()
    for number in (1, 2):
        file.path.write_bytes(_damaged(file.path, -1))
        assert len(event_file.trim(tmp_path, 9)) == 1
        assert len(list(tmp_path.glob("damaged-*"))) == number


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_series_are_single_valued_after_any_row_of_kills(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    run = tmp_path_factory.mktemp("run")
    saved: int | None = None
    for _ in range(data.draw(st.integers(1, 4), label="kills")):
        start = saved or 0
        file = _log(run, range(start + 1, start + 21), resume_clock=saved)
        flushed = file.path.stat().st_size
        saved = start + 20
        for clock in range(saved + 1, saved + data.draw(st.integers(1, 9), label="after the save")):
            file.add(summary.scalar("loss", -1.0), clock)
        file.close()
        os.truncate(file.path, data.draw(st.integers(flushed, file.path.stat().st_size), label="torn at"))
        if data.draw(st.booleans(), label="the newest checkpoint is damaged") and saved > 20:
            saved -= 20
        event_file.trim(run, saved)
        assert _points(run) == [(clock, float(clock % 97)) for clock in range(1, saved + 1)]
    _log(run, range((saved or 0) + 1, 101), resume_clock=saved).close()
    assert _points(run) == [(clock, float(clock % 97)) for clock in range(1, 101)]


def test_a_file_with_nothing_to_cut_is_not_written_again(tmp_path: Path) -> None:
    file = _log(tmp_path, range(1, 5))
    file.close()
    _log(tmp_path, range(5, 10), resume_clock=4).close()
    before = file.path.stat()
    event_file.trim(tmp_path, 9)
    after = file.path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_start_that_was_overtaken_writes_nothing_more(tmp_path: Path) -> None:
    overtaken = _log(tmp_path, range(1, 10))
    lines = (tmp_path / "metrics.jsonl").open("a")
    lines.write('{"clock": 9}\n')
    lines.flush()
    event_file.trim(tmp_path, 9)
    trim_lines(tmp_path / "metrics.jsonl", 9)
    points = _points(tmp_path)
    overtaken.add(summary.scalar("loss", 0.5), 10)
    overtaken.close()
    lines.write('{"clock": 10}\n')
    lines.close()
    assert _points(tmp_path) == points
    assert (tmp_path / "metrics.jsonl").read_text() == '{"clock": 9}\n'


def test_a_file_that_loses_all_its_points_is_deleted(tmp_path: Path) -> None:
    first = _log(tmp_path, range(1, 10))
    first.close()
    _log(tmp_path, range(11, 15), resume_clock=10).close()
    event_file.trim(tmp_path, 9)
    assert event_file.files(tmp_path) == [first.path]


def test_a_later_file_sorts_last_though_the_clock_went_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _log(tmp_path, range(1, 3))
    first.close()
    monkeypatch.setattr(event_file.time, "time", lambda: 1_000_000.0)
    second = _log(tmp_path, range(3, 5), resume_clock=2)
    second.close()
    assert event_file.files(tmp_path) == [first.path, second.path]


def test_a_reader_that_holds_the_cut_points_forgets_them(tmp_path: Path) -> None:
    first = _log(tmp_path, range(1, 31))
    reader = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload()
    assert len(reader.Scalars("loss")) == 30
    first.close()
    event_file.trim(tmp_path, 20)
    _log(tmp_path, range(21, 26), resume_clock=20).close()
    assert [event.step for event in reader.Reload().Scalars("loss")] == list(range(1, 26))


def test_zeros_that_a_power_cut_left_are_skipped_to_the_next_record():
    record = event_file.framed(b"x" * 300)
    content = record + bytes(4_000_000) + record
    assert [data for data in event_file.scan(content) if data is not None] == [b"x" * 300] * 2
