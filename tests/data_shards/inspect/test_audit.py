"""Audits find each planted fault, and nothing else."""

import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from data_shards.errors import UserError
from data_shards.inspect.audit import Audit, Limits, audit
from data_shards.inspect.check import find_sets
from data_shards.shard_format.shard_set import ShardSet
from launch.cli import main
from tests.support.planted import (
    Shown,
    blank,
    blurred,
    brightened,
    enlarged,
    greyed,
    halved,
    pack_planted,
    shown_labels,
    shrunk,
    trimmed,
)

CLEAN = 30  # faces of train; those of eval begin behind
OTHERS = 100  # where the numbers of planted faces begin


def people(first: int, count: int) -> list[Shown]:
    return [
        Shown(number, f"Person {chr(65 + number // 26)}{chr(65 + number % 26)}")
        for number in range(first, first + count)
    ]


@contextmanager
def silent(what: str):
    yield None


def audited(folder: Path, *, limits: Limits | None = None, workers: int = 1) -> Audit:
    sets = [ShardSet.open(each) for each in find_sets(folder)]
    return audit(sets, limits or Limits(), workers=workers, bar=silent)


def found(audit: Audit) -> dict[str, list[tuple[list[int], bool]]]:
    """{kind: [(numbers of the faces in the finding, whether it leaks)]}"""
    kinds: dict[str, list[tuple[list[int], bool]]] = {}
    for finding in audit.findings:
        faces = sorted(stem_number(audit, number) for number in finding.members)
        kinds.setdefault(finding.kind, []).append((faces, finding.leaks))
    return {kind: sorted(each) for kind, each in kinds.items()}


def stem_number(audit: Audit, number: int) -> int:
    """The place of an image in what its set was packed from, and 1000 for one of eval."""
    shards, row = audit.sets.place(number)
    place = int(shards.member(row).removesuffix(".jpg").rpartition("/i")[2])
    return place + 1000 * (shards.manifest["split"] == "eval")


def test_nothing_is_found_in_a_clean_pack_though_people_have_several_images(tmp_path):
    src = ["source=procedural", "identities=12", "per_identity=4", "size=64", "holdout=0.4", "workers=1"]
    assert main(["pack", *src, f"out={tmp_path / 'out'}"]) == 0
    assert main(["audit-data", str(tmp_path / "out"), f"out={tmp_path / 'audit'}", "workers=1"]) == 0
    report = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert report["findings"] == {}
    assert report["balance"]["emotion" if "emotion" in report["balance"] else "age"]
    assert sorted(path.name for path in (tmp_path / "audit").iterdir()) == ["audit.json"]


CHANGES = {
    "encoded anew": {"quality": 40},
    "brightened": {"change": brightened},
    "halved": {"change": halved},
    "enlarged": {"change": enlarged},
    "made grey": {"change": greyed},
    "trimmed": {"change": trimmed},
    "brightened, halved and encoded anew": {"change": lambda image: brightened(halved(image)), "quality": 60},
}


def test_copies_of_every_kind_are_found_across_a_split_and_nothing_else(tmp_path):
    copies = [
        Shown(place, f"Copy {chr(65 + place)}", **words) for place, words in enumerate(CHANGES.values())
    ]
    exact = Shown(20, "Same Face")
    out = pack_planted(tmp_path, {"train": people(0, CLEAN), "eval": [*people(40, 20), *copies, exact]})
    result = audited(out)
    near = [([place, 1020 + place], True) for place in range(len(copies))]
    same = [([20, 1020 + len(copies)], True)]
    by_kind = found(result)
    assert by_kind.pop("contradiction", []) == []
    assert by_kind == {"near": near, "exact": same}
    assert result.leaks == len(copies) + 1


def test_a_copy_within_a_set_is_no_leak(tmp_path, capsys):
    out = pack_planted(tmp_path / "sets", {"train": [*people(0, CLEAN), Shown(3, quality=50), Shown(4)]})
    assert found(audited(out)) == {"near": [([3, 30], False)], "exact": [([4, 31], False)]}
    assert main(["audit-data", str(out), "workers=1"]) == 0
    assert (tmp_path / "sets-audit" / "near.png").is_file()
    assert "near" in capsys.readouterr().out


def test_a_person_and_a_clip_on_both_sides_of_a_split_are_found_by_name(tmp_path, capsys):
    train = [*people(0, CLEAN), Shown(OTHERS, "Ann Lee"), Shown(OTHERS + 1, "Bo", group="clip 7")]
    held = [*people(40, 10), Shown(OTHERS + 2, "ann_lee"), Shown(OTHERS + 3, "Cy", group="clip 7")]
    out = pack_planted(
        tmp_path / "sets", {"train": train, "eval": [*held, Shown(OTHERS + 4, group="clip 8")]}
    )
    result = audited(out)
    assert found(result) == {"identity": [([30, 1010], True)], "clip": [([31, 1011], True)]}
    assert [finding.note for finding in result.findings if finding.kind == "identity"] == ["Ann Lee"]
    assert (
        main(["audit-data", str(out / "train"), str(out / "eval"), f"out={tmp_path / 'a'}", "workers=1"]) == 1
    )
    assert "error: 2 findings are on both sides of a split" in capsys.readouterr().err
    content = json.loads((tmp_path / "a" / "audit.json").read_text())
    assert content["counts"]["clip"] == {"found": 1, "images": 2, "across_sets": 1, "leaks": 1}
    (person,) = content["findings"]["identity"]
    assert {image["set"] for image in person["images"]} == {"planted/train", "planted/eval"}
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"audit.json", "identity.png", "clip.png"}


def test_numbers_for_names_and_clips_of_another_data_set_are_other_ones(tmp_path):
    one = pack_planted(
        tmp_path / "one", {"train": [*people(0, 9), Shown(50, "n01"), Shown(51, group="c")]}, name="a"
    )
    two = pack_planted(
        tmp_path / "two", {"eval": [*people(20, 9), Shown(60, "n01"), Shown(61, group="c")]}, name="b"
    )
    sets = [ShardSet.open(one / "train"), ShardSet.open(two / "eval")]
    # of one source, `planted`, whose numbers and clips are those of one data set
    assert {finding.kind for finding in audit(sets, Limits(), workers=1, bar=silent).findings} == {
        "identity",
        "clip",
    }
    for shards, source in zip(sets, ("lfw", "orl"), strict=True):
        shards.manifest["source"] = source
    assert audit(sets, Limits(), workers=1, bar=silent).findings == []


def test_two_sets_to_train_on_may_share_pictures(tmp_path):
    pack_planted(tmp_path / "one", {"train": people(0, 9)}, name="a")
    pack_planted(tmp_path / "two", {"train": [*people(30, 9), Shown(2)]}, name="b")
    result = audited(tmp_path)
    assert found(result) == {"exact": [([2, 9], False)]}
    assert dict((kind, across) for kind, _, _, across, _ in result.counts())["exact"] == 1


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        ((1, 23.0, (1, 1)), "emotion: angry / happy"),
        ((0, 41.0, (1, 1)), "age: 23 / 41"),
        ((0, 23.0, (1, 0)), "worn: beard"),
        ((0, 24.0, (1, 1)), ""),  # within 5 % of the range of ages
        ((-1, -1.0, (-1, -1)), ""),  # unknown
    ],
)
def test_labels_of_one_picture_that_contradict_are_found(tmp_path, labels, note):
    assert shown_labels(3) == (0, 23.0, (1, 1))
    images = [*people(0, CLEAN), Shown(3, quality=60, labels=labels)]
    result = audited(pack_planted(tmp_path, {"train": images}))
    notes = [finding.note for finding in result.findings if finding.kind == "contradiction"]
    assert notes == ([note] if note else [])


def test_one_picture_of_two_people_contradicts(tmp_path):
    images = [*people(0, 9), Shown(50, "Person AA"), Shown(0, "Bo", quality=60)]
    result = audited(pack_planted(tmp_path, {"train": images}))
    (finding,) = (each for each in result.findings if each.kind == "contradiction")
    assert finding.note == "identity: Bo / Person AA"


def test_images_that_show_nothing_are_found_and_are_nobodys_duplicates(tmp_path):
    bad = [
        Shown(60, change=blank),
        Shown(61, change=blank),
        Shown(62, change=blurred),
        Shown(63, change=shrunk),
    ]
    out = pack_planted(tmp_path, {"train": [*people(0, 9), *bad[:1]], "eval": [*people(20, 9), *bad[1:]]})
    assert found(audited(out)) == {
        "empty": [([9], False), ([1009], False)],
        "blurred": [([1010], False)],
        "tiny": [([1011], False)],
    }
    assert audited(out, limits=Limits(tiny=0, sharp=0, empty=0)).counts()[7][1] == 0


def test_a_damaged_image_is_named_and_the_others_are_audited(tmp_path, capsys):
    out = pack_planted(tmp_path / "sets", {"train": people(0, 9), "eval": [*people(20, 9), Shown(3)]})
    shards = ShardSet.open(out / "train")
    with open(shards.shards[0], "r+b") as tar:
        tar.seek(int(shards.offset[5]) + 300)
        tar.write(b"\0" * 40)
    result = audited(out)
    damaged, *others = sorted(result.findings, key=lambda finding: finding.kind)
    assert (damaged.kind, damaged.note) == ("damaged", "its bytes were changed (crc32 differs)")
    assert [finding.kind for finding in others] == ["exact"]
    main(["audit-data", str(out), "workers=1"])
    assert (tmp_path / "sets-audit" / "damaged.png").is_file()


def test_the_report_does_not_depend_on_the_number_of_workers(tmp_path, monkeypatch):
    monkeypatch.setattr("data_shards.inspect.fingerprints.PART", 7)
    monkeypatch.setattr("data_shards.inspect.duplicates._PART", 2)
    out = pack_planted(
        tmp_path,
        {"train": people(0, CLEAN), "eval": [Shown(number, quality=50) for number in range(5)]},
    )
    one, two = audited(out, workers=1), audited(out, workers=2)
    assert one.to_json() == two.to_json()
    assert one.balance["emotion"] == {"angry": [2, 10], "happy": [2, 10], "sad": [1, 10]}
    assert one.balance["worn"] == {"hat": [2, 15], "beard": [2, 14]}
    assert np.sum(list(one.balance["age"].values()), axis=0).tolist() == [5, 30]


def test_what_cannot_be_audited_is_refused(tmp_path, capsys):
    out = pack_planted(tmp_path / "sets", {"train": people(0, 4)})
    for words, message in (
        ([], "DIR is missing"),
        ([str(tmp_path / "no")], "no such folder"),
        ([str(out), "distance=900"], "distance=900 is not 0 to 128"),
        ([str(out), f"out={out / 'train' / 'manifest.json'}"], "is not a folder"),
    ):
        assert main(["audit-data", *words]) == 2
        assert message in capsys.readouterr().err
    shards = ShardSet.open(out / "train")
    with pytest.raises(UserError, match="is the same set as"):
        audit([shards, shards], Limits(), workers=1, bar=silent)
