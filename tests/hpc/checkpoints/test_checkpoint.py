"""Checkpoints: exact round trip, commit by rename at every write boundary, damage, disk full, retention."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from data_shards import files
from data_shards.errors import UserError
from hpc.checkpoints import store
from hpc.checkpoints.store import Checkpoint
from hpc.optim.state import load_module

METRIC = ("eer", "min")


def make(clock: int, **metrics: float) -> Checkpoint:
    generator = torch.Generator().manual_seed(clock)
    weights = {"w": torch.randn(8, 3, 3, 3, generator=generator), "b": torch.randn(8, generator=generator)}
    moments = {"w/exp_avg": torch.randn(8, 3, 3, 3, generator=generator), "w/step": torch.tensor(3.0)}
    return Checkpoint(
        clock,
        clock // 64,
        players={"net": weights},
        optim={"net": moments},
        ema={"net": {key: value * 0.5 for key, value in weights.items()}},
        task={"threshold": torch.tensor(0.25), "pool": [1, 2]},
        monitor={"sums": {"loss": [0.1 + 0.2, 3]}},
        meta={"task": "siamese", "metrics": metrics},
    )


def test_a_round_trip_is_exact(tmp_path: Path) -> None:
    saved = make(128, eer=0.25)
    saved.players["net"]["w"] = saved.players["net"]["w"].to(memory_format=torch.channels_last)
    loaded = store.read(store.save(tmp_path, saved))
    assert (loaded.clock, loaded.updates, loaded.meta["metrics"]) == (128, 2, {"eer": 0.25})
    for part in ("players", "optim", "ema"):
        for name, tensor in getattr(saved, part)["net"].items():
            assert torch.equal(getattr(loaded, part)["net"][name], tensor), (part, name)
    assert torch.equal(loaded.task["threshold"], torch.tensor(0.25))
    assert loaded.task["pool"] == [1, 2]
    assert loaded.monitor == saved.monitor


SAVER = """
import sys
from pathlib import Path
from hpc.checkpoints import store
from tests.hpc.checkpoints.test_checkpoint import make
store.save(Path(sys.argv[1]), make(64))
store.save(Path(sys.argv[1]), make(128))
"""


@pytest.mark.parametrize("place", ["save0", "save3", "savecommit"])
def test_a_kill_inside_a_save_loses_nothing_older(tmp_path: Path, place: str) -> None:
    root = Path(__file__).parents[3]
    environment = os.environ | {"ROSTRO_FAULT": f"{place}@128", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", SAVER, str(tmp_path)], env=environment, cwd=root, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in store.listing(tmp_path)] == [f"{64:012d}"]
    newest = store.latest(tmp_path)
    assert newest is not None
    assert torch.equal(store.read(newest).players["net"]["w"], make(64).players["net"]["w"])
    store.save(tmp_path, make(128))
    store.prune(tmp_path, last=2, best=0, keep_every=0, metric=METRIC)
    assert sorted(path.name for path in store.folder_of(tmp_path).iterdir()) == [
        f"{64:012d}",
        f"{128:012d}",
    ]


def test_what_a_killed_process_of_the_same_number_left_is_no_obstacle(tmp_path: Path) -> None:
    left = store.folder_of(tmp_path) / f".tmp-{64:012d}-{os.getpid()}"
    left.mkdir(parents=True)
    (left / "player-net.safetensors").write_bytes(b"half")
    assert store.verify(store.save(tmp_path, make(64)))["clock"] == 64


@pytest.mark.parametrize("damage", ["flip", "truncate", "missing", "manifest"])
def test_a_damaged_checkpoint_is_set_aside_and_the_older_one_taken(tmp_path: Path, damage: str) -> None:
    store.save(tmp_path, make(64))
    newest = store.save(tmp_path, make(128))
    file = newest / ("manifest.json" if damage == "manifest" else "player-net.safetensors")
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[-5] ^= 1
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(data[: -1 if damage == "truncate" else None] if damage != "manifest" else b"{")
    with pytest.raises(UserError, match="000000000128"):
        store.read(newest)
    warnings: list[str] = []
    found = store.latest(tmp_path, warnings.append)
    assert found is not None
    assert found.name == f"{64:012d}"
    assert "000000000128" in warnings[0]
    assert not newest.exists()  # the run may come by this clock again


def test_the_same_clock_may_be_damaged_twice(tmp_path: Path) -> None:
    for _ in range(2):
        store.save(tmp_path, make(64))
        (store.save(tmp_path, make(128)) / "player-net.safetensors").write_bytes(b"")
        found = store.latest(tmp_path, lambda text: None)
        assert found is not None
        assert int(found.name) == 64


def test_what_cannot_be_pruned_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged older one, and files that a reader on another node keeps open."""

    def busy(*arguments: object, **keys: object) -> None:
        raise OSError(39, "Directory not empty")

    (store.save(tmp_path, make(64, eer=0.1)) / "manifest.json").write_text("{")
    store.save(tmp_path, make(128, eer=0.3))
    store.save(tmp_path, make(192, eer=0.2))
    with monkeypatch.context() as patched:
        patched.setattr(os, "rmdir", busy)
        store.prune(tmp_path, last=1, best=1, keep_every=0, metric=METRIC)
    assert [int(path.name) for path in store.listing(tmp_path)] == [192]
    store.prune(tmp_path, last=1, best=1, keep_every=0, metric=METRIC)
    assert [path.name for path in store.folder_of(tmp_path).iterdir()] == [f"{192:012d}"]


def test_a_full_disk_is_one_line_and_leaves_older_checkpoints(tmp_path: Path) -> None:
    store.save(tmp_path, make(64))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, limits[1]))
    try:
        with pytest.raises(UserError, match="was not saved") as caught:
            store.save(tmp_path, make(128))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "\n" not in str(caught.value)
    assert [path.name for path in store.folder_of(tmp_path).iterdir()] == [f"{64:012d}"]
    store.verify(store.listing(tmp_path)[0])


def test_retention_keeps_last_best_and_multiples(tmp_path: Path) -> None:
    errors = {100: 0.4, 200: 0.1, 300: 0.3, 400: 0.2, 500: 0.5, 600: 0.6}
    for clock, eer in errors.items():
        store.save(tmp_path, make(clock, eer=eer))
        store.prune(tmp_path, last=2, best=1, keep_every=300, metric=METRIC)
    assert [int(path.name) for path in store.listing(tmp_path)] == [200, 300, 500, 600]
    best = store.best(tmp_path, METRIC)
    assert best is not None
    assert int(best.name) == 200


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    path = store.save(tmp_path, make(64))
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(files.seal(manifest | {"format": 99})))
    with pytest.raises(UserError, match="format 99"):
        store.latest(tmp_path)
    assert store.listing(tmp_path) == [path]  # a newer version's is not damaged: it stays


def test_weights_of_another_network_are_refused() -> None:
    net = torch.nn.Linear(3, 2)
    with pytest.raises(UserError, match="lacks weight"):
        load_module(net, {"bias": torch.zeros(2)}, "player net")
    with pytest.raises(UserError, match="shape"):
        load_module(net, {"bias": torch.zeros(2), "weight": torch.zeros(3, 3)}, "player net")
