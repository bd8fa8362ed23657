"""Random damage of any file of a run, then the commands on it: the same answer, a warning, or one line.

Not noticed: another value of the right type in status.json, lock.json or the ledger. They have no hashes,
since ranks of earlier versions write them too; no figure depends on them.
"""

import json
import random
from pathlib import Path

import pytest

from tests.support.damaged import COMMANDS, Field
from tests.support.fuzz import (
    HARMLESS,
    RECOVERED,
    REFUSED,
    Silent,
    UserError,
    campaign,
    check_refusal,
    damage,
    damage_json,
)
from tests.support.sets import pack_set

QUICK = tuple(command for command in COMMANDS if command != "evaluate")
FIGURES = ("evaluate", "verify", "export", "resume")  # whose answers must not change


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Field:
    shards = pack_set(tmp_path_factory.mktemp("set"), identities=8, each=3, holdout=0.5)
    return Field(tmp_path_factory.mktemp("field"), shards)


def hurt(path: Path, rng: random.Random) -> None:
    if path.suffix == ".json" and rng.random() < 0.5:
        path.write_text(json.dumps(damage_json(json.loads(path.read_text()), rng)))
    elif rng.random() < 0.05:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes(), rng))


def judge(field: Field, name: Path, command: str) -> str:
    code, answer, err = field.call(command)
    wanted = field.baseline[command]
    said = [line for line in err.splitlines() if line]
    for line in said:
        assert line.startswith(("error: ", "warning: ")) or " is empty: " in line, err
    if code == 2:
        check_refusal(UserError(said[-1]))
        return REFUSED
    if command == "status":
        other = 0, wanted[1]["other"], wanted[1]["goodput"]
        if (code, answer["other"], answer["goodput"]) != other:
            raise Silent(f"{name}: status of the other run is {answer}")
    if command in FIGURES and answer != wanted[1]:
        if not said and not (command == "verify" and answer["threshold"] is None and "why" in answer):
            raise Silent(f"{name}: {command} gives {str(answer)[:200]}")
        return RECOVERED
    return HARMLESS


def test_fuzz_runs(field: Field) -> None:
    def one(rng: random.Random) -> str:
        name = rng.choice(field.files)
        try:
            hurt(field.run.path / name, rng)
            outcomes = [judge(field, name, command) for command in rng.sample(QUICK, 3)]
            if rng.random() < 0.1:
                outcomes.append(judge(field, name, "evaluate"))
        finally:
            field.restore()
        return next((found for found in (REFUSED, RECOVERED) if found in outcomes), HARMLESS)

    counts = campaign("runs", one)
    assert counts[REFUSED]
