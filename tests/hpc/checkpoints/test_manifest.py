"""The manifest of a checkpoint: whatever changes in it is noticed, and the older checkpoint is taken."""

import contextlib
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save

from data_shards import files
from hpc.checkpoints import manifest, store
from hpc.checkpoints.store import Damaged
from tests.hpc.checkpoints.test_checkpoint import METRIC, make
from tests.support.fuzz import damage


def two(run: Path) -> tuple[Path, Path]:
    """Checkpoints at 64 (the better one) and 128."""
    return store.save(run, make(64, eer=0.1)), store.save(run, make(128, eer=0.2))


def edit(path: Path, change: Callable[[dict[str, Any]], object], *, reseal: bool = False) -> None:
    content = json.loads((path / manifest.NAME).read_text())
    change(content)
    (path / manifest.NAME).write_text(json.dumps(files.seal(content) if reseal else content))


def as_format_1(path: Path) -> None:
    """The checkpoint as versions without a hash of the manifest wrote it."""

    def change(content: dict[str, Any]) -> None:
        del content[files.SEAL]
        numbers = {"batch": 64, "task.name": "siamese"}
        digest = hashlib.sha256(json.dumps(numbers, sort_keys=True).encode()).hexdigest()[:16]
        content |= {"format": 1, "numbers": numbers, "identity": digest}

    edit(path, change)


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "clock": lambda content: content.update(clock=64),
    "updates": lambda content: content.update(updates=3),
    "metrics": lambda content: content["metrics"].update(eer=0.05),
    "metric": lambda content: content["metrics"].update(eer="0.2"),
    "format": lambda content: content.update(format=1),
    "file": lambda content: content["files"].pop("optim-net.safetensors"),
    "path": lambda content: content["files"].update({"../x": content["files"].pop("ema-net.safetensors")}),
    "files": lambda content: content.update(files=3),
    "seal": lambda content: content.pop(files.SEAL),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_entry_is_noticed_by_every_reader(tmp_path: Path, name: str) -> None:
    old, new = two(tmp_path)
    edit(new, CHANGES[name])
    with pytest.raises(Damaged, match=r"000000000128.*manifest\.json"):
        store.read(new)
    assert store.ranked(tmp_path, METRIC) == [old]
    store.prune(tmp_path, last=1, best=0, keep_every=0, metric=METRIC)
    assert old.exists()  # the only good one
    assert store.best(tmp_path, METRIC) == old
    warnings: list[str] = []
    assert store.latest(tmp_path, warnings.append) == old
    assert len(warnings) == 1
    assert not new.exists()


def test_of_random_damage_no_value_survives(tmp_path: Path) -> None:
    path = store.save(tmp_path, make(64, eer=0.1))
    data = (path / manifest.NAME).read_bytes()
    whole = manifest.read(path)
    for seed in range(300):
        (path / manifest.NAME).write_bytes(damage(data, random.Random(seed)))
        with contextlib.suppress(Damaged):
            assert manifest.read(path) == whole, seed  # white space, say


def test_a_copy_under_another_clock_is_refused(tmp_path: Path) -> None:
    path = store.save(tmp_path, make(64))
    with pytest.raises(Damaged, match="its clock is 64"):
        store.read(path.rename(path.with_name(f"{128:012d}")))


@pytest.mark.parametrize("name", ["", "clock", "metric", "file", "path", "files", "numbers", "identity"])
def test_format_1_is_read_and_cross_checked(tmp_path: Path, name: str) -> None:
    """Without a hash of its own what is said twice must agree; `updates` and `metrics` are believed."""
    old, new = two(tmp_path)
    for path in (old, new):
        as_format_1(path)
    more = {
        "numbers": lambda content: content["numbers"].update(batch=65),
        "identity": lambda content: content.pop("identity"),
    }
    if name:
        edit(new, (CHANGES | more)[name])
    found = store.latest(tmp_path, lambda text: None)
    assert found == (old if name else new)


ABSURD: dict[str, bytes] = {
    "state.json": b'{"task": {}, "monitor": {"sums": {"loss/a": ["x", 1]}}}',
    "player-net.safetensors": b"\xff" * 64,
    "task.safetensors": save({}).replace(b"{}", b"[]"),
    "optim-net.safetensors": b"",
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_content_is_damage_though_its_hash_matches(tmp_path: Path, name: str) -> None:
    old, new = two(tmp_path)
    (new / name).write_bytes(ABSURD[name])
    facts = {"bytes": len(ABSURD[name]), "sha256": hashlib.sha256(ABSURD[name]).hexdigest()}
    edit(new, lambda content: content["files"].update({name: facts}), reseal=True)
    for verified in (False, True):
        with pytest.raises(Damaged, match=name):
            store.read(new, verified=verified)
    assert store.latest(tmp_path, lambda text: None) == old


def test_names_keep_their_order(tmp_path: Path) -> None:
    state = make(64)
    state.monitor = {"sums": {"loss/z": [1.0, 1], "loss/a": [2.0, 1]}, "digest": 1}
    assert list(store.read(store.save(tmp_path, state)).monitor["sums"]) == ["loss/z", "loss/a"]


def test_a_figure_that_is_not_finite_is_no_rank(tmp_path: Path) -> None:
    two(tmp_path)
    store.save(tmp_path, make(192, eer=float("nan")))
    assert [int(path.name) for path in store.ranked(tmp_path, METRIC)] == [64, 128]


def test_figures_of_older_checkpoints_are_known_by_their_scalar_alone(tmp_path: Path) -> None:
    two(tmp_path)
    saved = make(192)
    saved.meta = {"metrics": {"verification/eer": 0.15}}
    store.save(tmp_path, saved)
    ranked = store.ranked(tmp_path, ("verification/eer", "min"))
    assert [int(path.name) for path in ranked] == [64, 192, 128]
