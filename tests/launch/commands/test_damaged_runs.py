"""A run with a damaged file: `status` lists it, the other commands name the file and the remedy."""

import os

import pytest

from tests.support.damaged import Field
from tests.support.sets import pack_set

TYPED = (
    b'{"pids": 3, "pid": "x", "state": 3, "precision": 3, "train": 3, "job": 3, "threshold": "x", "optim": 3}'
)
DAMAGES = (b"\xff\xfe", b"[" * 3_000, b"3", TYPED)
NEEDS = {  # file: commands that cannot do without it
    "config.yaml": ("resume", "evaluate", "verify", "export"),
    "resolved.yaml": ("resume",),
    "lock.json": ("stop", "resume"),
    "status.json": ("stop", "resume", "failed"),
    "data.json": ("resume",),
    "threshold.json": ("verify", "export"),
    "git.json": (),
    "starts.json": (),
    "ledger.jsonl": (),
}


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Field:
    shards = pack_set(tmp_path_factory.mktemp("set"), identities=8, each=3, holdout=0.5)
    return Field(tmp_path_factory.mktemp("field"), shards)


@pytest.fixture(autouse=True)
def _whole(field: Field):
    yield
    field.restore()


@pytest.mark.parametrize("name", NEEDS)
def test_a_damaged_file_is_named_where_it_is_needed(field: Field, name: str) -> None:
    path = field.run.path / name
    for damage in DAMAGES:
        path.write_bytes(damage)
        code, rows, _ = field.call("status")
        assert (code, rows["other"]) == (0, "failed")
        assert rows["goodput"] == field.baseline["status"][1]["goodput"]
        assert rows["hurt"] == "failed" or str(path) in rows["message"]
        for command in NEEDS[name]:
            code, answer, err = field.call(command)
            assert (code, answer, err.count("\n")) == (2, None, 1), (command, err)
            assert f"{path}" in err
            assert ": " in err
    for command in {"logs", "stop", "resume", "failed", "verify"} - set(NEEDS[name]):
        assert field.call(command)[:2] == field.baseline[command][:2]


@pytest.mark.parametrize("name", ["threshold.json", "config.yaml"])
def test_what_figures_depend_on_is_compared(field: Field, name: str) -> None:
    """Well-formed, but not what was written."""
    path = field.run.path / name
    text = path.read_text()
    if name == "threshold.json":
        place = text.index('"threshold": ') + len('"threshold": 0.')
        path.write_text(text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :])
        said = "does not match its own hash"
    else:
        path.write_text(text.replace("size: 32", "size: 34"))
        said = "says data.size=34, its checkpoints were made with data.size=32: set it back"
    for command in ("verify", "export"):
        code, _, err = field.call(command)
        assert code == 2
        assert said in err
        assert str(path) in err


def test_a_run_without_its_config_is_shown(field: Field) -> None:
    field.run.config_file.unlink()
    code, rows, _ = field.call("status")
    assert (code, rows["hurt"], rows["other"]) == (0, "damaged", "failed")
    assert str(field.run.config_file) in rows["message"]


def test_a_fifo_is_not_waited_for(field: Field) -> None:
    for name in ("status.json", "logs/rank0.log"):
        (field.run.path / name).unlink()
        os.mkfifo(field.run.path / name)
    assert field.call("status")[1]["hurt"] == "damaged"
    assert field.call("logs")[0] == 2


def test_damaged_lines_of_the_ledger_are_counted(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    from launch.cli import main

    with field.run.ledger_file.open("ab") as file:
        file.write(b'{"start": 3}\nnot json\n{"start": "torn')
    assert main(["status", str(field.run.path)]) == 0
    assert "hurt: 2 damaged lines of ledger.jsonl are not in its goodput" in capsys.readouterr().out
