"""Random damage of event files and metrics.jsonl: what is kept was written, what is lost is reported.

Not noticed: another digit in a line of metrics.jsonl that stays well-formed. Lines have no checksums.
"""

import json
import random
from pathlib import Path

from torch.utils.tensorboard import summary

from hpc.monitor import event_file
from hpc.monitor.metrics_file import trim_lines
from tests.support.fuzz import HARMLESS, RECOVERED, Silent, campaign, damage

CLOCK = 30  # of the checkpoint that the run resumes from


def _fresh(run: Path) -> None:
    for path in run.iterdir():
        path.unlink()


def _hurt(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 1, 2))):
        data = damage(data, rng)
    return data


def _saved_aside(run: Path, warnings: list[str], hurt: bytes) -> None:
    """Every damage that costs something has its warning and a copy of the file as it was."""
    copies = [path.read_bytes() for path in run.glob("damaged-*")]
    if copies != [hurt] * len(warnings):
        raise Silent(f"{len(warnings)} warnings, {len(copies)} copies")


def test_fuzz_event_files(tmp_path: Path) -> None:
    file = event_file.EventFile(tmp_path)
    for clock in range(1, 41):
        file.add(summary.scalar("loss", clock / 7), clock)
    file.close()
    whole, name = file.path.read_bytes(), file.path.name
    event = event_file.tensorboard()[0]
    points = {data: event.FromString(data).step for data in event_file.records(file.path)}

    def one(rng: random.Random) -> str:
        hurt = _hurt(whole, rng)
        _fresh(tmp_path)
        (tmp_path / name).write_bytes(hurt)
        warnings = event_file.trim(tmp_path, CLOCK)
        _saved_aside(tmp_path, warnings, hurt)
        kept = list(event_file.records(tmp_path / name)) if (tmp_path / name).exists() else []
        if strange := [data for data in kept if points.get(data, CLOCK + 1) > CLOCK]:
            raise Silent(f"{strange[0]!r} was not written, or is later than the checkpoint")
        wanted = [data for data, clock in points.items() if clock <= CLOCK]
        torn = whole.startswith(hurt)
        untouched = [data for data in wanted if event_file.framed(data) in hurt]
        if not torn and len(set(kept)) < len(untouched) - 1 and b"".join(untouched) in whole:
            raise Silent(f"{len(kept)} of {len(untouched)} records that are whole were kept")
        if set(kept) == set(wanted) and not warnings:
            return HARMLESS
        if not warnings and not torn and not hurt.startswith(whole[: max(0, len(hurt) - 64)]):
            raise Silent(f"{len(kept)} of {len(wanted)} points were kept without a word")
        return RECOVERED

    campaign("event_files", one)


def test_fuzz_metrics_lines(tmp_path: Path) -> None:
    lines = [json.dumps({"clock": clock, "group": "loss", "all": clock / 7}) for clock in range(1, 41)]
    whole = "".join(f"{line}\n" for line in lines).encode()
    path = tmp_path / "metrics.jsonl"

    def one(rng: random.Random) -> str:
        hurt = _hurt(whole, rng)
        _fresh(tmp_path)
        path.write_bytes(hurt)
        warnings = trim_lines(path, CLOCK)
        _saved_aside(tmp_path, warnings, hurt)
        kept = path.read_bytes().splitlines()
        for line in kept:
            assert json.loads(line)["clock"] <= CLOCK
        if not warnings and len(hurt.splitlines()) - len(kept) > len(lines) - CLOCK + 2:
            raise Silent(f"{len(kept)} lines were kept without a word")
        return RECOVERED if warnings else HARMLESS

    campaign("metrics_lines", one)
