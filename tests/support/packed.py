"""Pack a source by its command, and read what was packed."""

import csv
import json
from pathlib import Path

from data_shards.shard_format.shard_set import ShardSet
from launch.cli import main


def pack_source(name: str, src: Path | str, out: Path, *words: str) -> int:
    """The exit status of `rostro pack source=NAME src=SRC out=OUT ...` in this process."""
    return main(["pack", f"source={name}", f"src={src}", f"out={out}", "workers=1", *words])


def packed_sets(out: Path) -> dict[str, ShardSet]:
    """{split: the set} of all sets below out."""
    return {path.parent.name: ShardSet.open(path.parent) for path in sorted(out.glob("*/manifest.json"))}


def rejected(out: Path) -> dict[str, str]:
    """{path: reason} of all sets below out."""
    rows: dict[str, str] = {}
    for path in sorted(out.glob("*/rejected.csv")):
        with open(path, newline="") as file:
            rows |= {row["source"]: row["reason"] for row in csv.DictReader(file)}
    return rows


def labels_by_key(shards: ShardSet) -> dict[str, dict[str, object]]:
    """{the last part of the key: all labels} of every sample, from the `json` members of the tars."""
    found = {}
    for row in range(len(shards)):
        key = shards.member(row).removesuffix(".jpg").rpartition("/")[2]
        assert key not in found
        found[key] = {name: column[row].tolist() for name, column in shards.labels.items()}
    return found


def last_error(capsys) -> str:
    """The one line that a refused command prints."""
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1, error
    return error


def manifest_of(folder: Path) -> dict[str, object]:
    return json.loads((folder / "manifest.json").read_text())
