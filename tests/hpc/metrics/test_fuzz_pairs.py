"""Random damage in pair lists of every format: refused by file and line, or read as the file says."""

import csv
import random
from pathlib import Path

from data_shards.errors import UserError
from hpc.evaluation import threshold
from hpc.metrics.pair_list import read_list
from tests.support.fuzz import HARMLESS, REFUSED, Silent, campaign, check_refusal, damage, damage_json

PEOPLE = ("Ann_Lee", "Bo_Ek", "José_Núñez", "Di.Oz", "李明")
Plain = list[tuple[str, str, bool]]


def pairs_of(rng: random.Random, n: int) -> list[tuple[str, int, str, int]]:
    genuine = [(name, number, name, number + 1) for name, number in _drawn(rng, n)]
    impostors = [
        (*one, *two) for one, two in zip(_drawn(rng, n), _drawn(rng, n), strict=True) if one[0] != two[0]
    ]
    while len(impostors) < n:
        impostors.append(("Ann_Lee", rng.randrange(99), "Bo_Ek", rng.randrange(99)))
    return genuine + impostors


def _drawn(rng: random.Random, n: int) -> list[tuple[str, int]]:
    return [(rng.choice(PEOPLE), rng.randrange(99)) for _ in range(n)]


def written(rng: random.Random, kind: str) -> bytes:
    n = rng.randrange(1, 6)
    end = rng.choice(("\n", "\r\n"))
    if kind in ("folds", "flat"):
        folds, blank = (rng.randrange(2, 4) if kind == "folds" else 1), rng.choice("\t ")
        lines = [f"{folds}{blank}{n}" if kind == "folds" else str(n)]
        for _ in range(folds):
            for a, i, b, j in pairs_of(rng, n):
                lines.append(blank.join((a, str(i), str(j)) if a == b else (a, str(i), b, str(j))))
    else:
        blank = "," if kind == "csv" else rng.choice("\t ")
        lines = ["first,second,same"] if kind == "csv" and rng.random() < 0.5 else []
        for a, i, b, j in pairs_of(rng, n):
            lines.append(f"{a}/{i}.jpg{blank}{b}/{j}.jpg{blank}{int(a == b)}")
    return (end.join(lines) + end).encode()


def plainly(data: bytes) -> Plain:
    """What the file says, read without any check: a second, simple parser."""
    rows = [row.strip(" \t\r") for row in data.decode().removeprefix("\ufeff").split("\n")]
    rows = [row for row in rows if row]
    if "," in rows[0] and "\t" not in rows[0]:
        cells = [[cell.strip(" \t") for cell in next(csv.reader([row]))] for row in rows]
        return [(a, b, label == "1") for a, b, label in (cells if cells[0][-1] in ("0", "1") else cells[1:])]
    words = [[word for word in row.replace("\t", " ").split(" ") if word] for row in rows]
    if len(rows[0].split("\t") if "\t" in rows[0] else words[0]) == 3:  # a name may hold spaces
        tabs = [row.split("\t") if "\t" in row else cut for row, cut in zip(rows, words, strict=True)]
        return [(a, b, label == "1") for a, b, label in tabs]
    found = []
    for row in words[1:]:
        a, b = (row[0], row[0]) if len(row) == 3 else (row[0], row[2])
        found.append((f"{a} {int(row[1])}", f"{b} {int(row[-1])}", len(row) == 3))
    return found


def shown(image: tuple[str, int | None]) -> str:
    return image[0] if image[1] is None else f"{image[0]} {image[1]}"


def test_damaged_pair_lists_are_refused_or_say_what_they_say(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"

    def one(rng: random.Random) -> str:
        data = written(rng, rng.choice(("folds", "flat", "paths", "csv")))
        if rng.random() < 0.9:
            data = damage(data, rng)
        if rng.random() < 0.1:
            data = rng.choice(
                ("²\n", "0\n", "0 0\n", "9" * 5000, ",\n", '"\n', "\x00", "1\n\n", "/,/,1\n")
            ).encode()
        path.write_bytes(data)
        try:
            found = read_list(path)
        except UserError as error:
            check_refusal(error, str(path))
            return REFUSED
        said = [(shown(pair.first), shown(pair.second), pair.same) for pair in found.pairs]
        if said != plainly(data):
            raise Silent(f"{data!r} was read as {said}")
        return HARMLESS

    counts = campaign("pair lists", one, names=(str(path),))
    assert counts[HARMLESS]
    assert counts[REFUSED]


def test_damaged_thresholds_are_refused_or_the_same(tmp_path: Path) -> None:
    good = {
        "checkpoint": 160,
        "weights": "ema",
        "score": "cosine",
        "set": "faces",
        "split": "val",
        "manifest_sha256": "0" * 64,
        "threshold": 0.25,
        "eer": 0.1,
    }

    class Model:
        run, clock, weights = tmp_path, 160, "ema"

    def one(rng: random.Random) -> str:
        import json

        (tmp_path / threshold.NAME).write_text(json.dumps(damage_json(good, rng)))
        found = threshold.stored(Model())  # type: ignore[arg-type]
        if found is not None and not isinstance(found["threshold"], int | float):
            raise Silent(str(found))
        return HARMLESS

    campaign("thresholds", one, names=(threshold.NAME,))
