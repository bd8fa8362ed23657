"""Random damage of checkpoints: a load gives what was saved, bit for bit, or an older one with a warning."""

import json
import random
import shutil
from pathlib import Path

import torch
from torch import Tensor

from data_shards import files
from data_shards.errors import UserError
from hpc.checkpoints import manifest, pieces, store
from hpc.checkpoints.store import Checkpoint
from hpc.engines.sharded import Rows
from tests.hpc.checkpoints.test_checkpoint import METRIC, make
from tests.hpc.checkpoints.test_manifest import as_format_1
from tests.support.fuzz import (
    HARMLESS,
    JSON_VALUES,
    RECOVERED,
    REFUSED,
    Silent,
    campaign,
    check_refusal,
    damage,
    damage_json,
)


def plain(state: Checkpoint) -> str:
    """Everything that a resume takes from a checkpoint, as text: -0.0, NaN and types count too."""

    def write(value: object) -> object:
        if isinstance(value, Tensor):
            return [str(value.dtype), list(value.shape), value.reshape(-1).view(torch.uint8).tolist()]
        return {key: write(item) for key, item in value.items()} if isinstance(value, dict) else value

    meta = {key: state.meta.get(key) for key in ("metrics", "task", "numbers")}
    parts = (
        state.clock,
        state.updates,
        state.players,
        state.optim,
        state.ema,
        state.task,
        state.monitor,
        meta,
    )
    return json.dumps([write(part) for part in parts])


class Field:
    """A run with two checkpoints, restored before each damage."""

    def __init__(self, folder: Path, *, old_format: bool, sharded: bool = False) -> None:
        self.run = folder / "run"
        states = [make(clock, eer=clock / 1000) for clock in (64, 128)]
        for state in states if sharded else ():
            for rows in (Rows(0, 4, 9), Rows(4, 9, 9)):
                values = torch.arange(rows.low, rows.high) * float(state.clock)
                state.pieces[pieces.key("player-net", "centres", rows)] = values
        paths = [store.save(self.run, state) for state in states]
        if old_format:
            for path in paths:
                as_format_1(path)
        self.content = {
            path.name: {file.name: file.read_bytes() for file in path.iterdir()} for path in paths
        }
        self.states = {path.name: plain(store.read(path)) for path in paths}
        self.newest = paths[-1]

    def restore(self) -> None:
        shutil.rmtree(store.folder_of(self.run))
        for name, content in self.content.items():
            (store.folder_of(self.run) / name).mkdir(parents=True)
            for file, data in content.items():
                (store.folder_of(self.run) / name / file).write_bytes(data)

    def hurt(self, rng: random.Random, *, but: str = "") -> None:
        """Damage one to three files of the newest checkpoint; never the one named `but`."""
        names = [name for name in (manifest.NAME, *self.content[self.newest.name]) if name != but]
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            file = self.newest / rng.choice(names)
            if not file.exists() or rng.random() < 0.05:
                file.unlink(missing_ok=True)
            elif file.suffix == ".json" and rng.random() < 0.4:
                value = json.loads(self.content[self.newest.name][file.name])
                file.write_text(json.dumps(damage_json(value, rng)))
            else:
                file.write_bytes(damage(file.read_bytes(), rng))

    def outcome(self) -> str:
        """Resume as the trainer does, and rank as pruning and `evaluate` do."""
        ranked = store.ranked(self.run, METRIC)
        if ranked not in (store.listing(self.run), store.listing(self.run)[:1]):
            raise Silent(f"ranked {ranked}")
        warnings: list[str] = []
        found = store.latest(self.run, warnings.append)
        assert found is not None
        state = plain(store.read(found, verified=True))
        if state != self.states[found.name]:
            raise Silent(f"{found.name} is not what was saved")
        if found == self.newest:
            return HARMLESS
        check_refusal(UserError(warnings[0]), self.newest.name)
        return RECOVERED


def test_fuzz_checkpoints(tmp_path: Path) -> None:
    """Of format 1 `updates` and `metrics` are believed, for want of a hash, so they are left alone there."""
    field, former = Field(tmp_path / "2", old_format=False), Field(tmp_path / "1", old_format=True)
    ranged = Field(tmp_path / "3", old_format=False, sharded=True)

    def one(rng: random.Random) -> str:
        chosen = rng.choice((field, ranged, former))
        chosen.restore()
        if chosen is not former:
            chosen.hurt(rng)
        elif rng.random() < 0.5:
            former.hurt(rng, but=manifest.NAME)
        else:
            file = former.newest / manifest.NAME
            value = json.loads(file.read_text())
            kept = {key: value.pop(key) for key in ("updates", "metrics", "task", "format")}
            changed = damage_json(value, rng)
            file.write_text(json.dumps(changed | kept if isinstance(changed, dict) else changed))
        return chosen.outcome()

    counts = campaign("checkpoints", one)
    assert counts[RECOVERED] > counts[HARMLESS]


def test_fuzz_sealed_absurdities(tmp_path: Path) -> None:
    """Content of any type under matching hashes: one line, never a traceback, whatever reads it."""
    field = Field(tmp_path, old_format=False, sharded=True)

    def one(rng: random.Random) -> str:
        field.restore()
        file = field.newest / manifest.NAME
        changed = damage_json(json.loads(file.read_text()), rng)
        if isinstance(changed, dict):
            changed = files.seal(changed | {rng.choice(("x", "clock", "files")): rng.choice(JSON_VALUES)})
        file.write_text(json.dumps(changed))
        try:
            store.ranked(field.run, METRIC)
            store.prune(field.run, last=2, best=1, keep_every=64, metric=METRIC)
            found = store.latest(field.run, lambda text: check_refusal(UserError(text)))
        except UserError as error:
            check_refusal(error, field.newest.name)
            return REFUSED
        assert found is not None
        store.read(found)
        return HARMLESS if found == field.newest else RECOVERED

    campaign("sealed_absurdities", one)
