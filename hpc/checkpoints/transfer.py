"""Begins a run with the weights of another one: `init.run=RUN`, at the fresh start only.

Submit chooses and verifies the checkpoint, and records it in the new run (`init.json`): whatever becomes of
the source later, a resume does not ask for it. Weights are the average where the source keeps one. They are
taken by name; what has no counterpart must be named in `init.skip`.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from data_shards.errors import UserError
from data_shards.files import MissingFile, read_json, write_json
from hpc.checkpoints import manifest, store
from hpc.config.schema import Config
from hpc.config.types import shown
from hpc.distributed import collectives
from hpc.distributed.comm import Comm
from hpc.optim.groups import matching
from hpc.runs.run_dir import RunDir
from hpc.training.player import Player

ALONE = Comm()
SCHEMA = {"run": str, "clock": int, "sha256": str}
Tensors = dict[str, Tensor]  # by `<player>.<tensor>`


def choose(config: Config) -> dict[str, Any]:
    """Choose and verify the checkpoint that `init` names; return its record."""
    init = config.init
    with _named(init.run):
        run = RunDir.open(Path(init.run).expanduser(), runs=config.runs).path
        paths = store.listing(run)
        path = paths[-1] if paths else None
        if init.checkpoint == "best" and path is not None:
            kept = manifest.read(path).get("metric", ["loss", "min"])
            path = store.best(run, (kept[0], kept[1]))
        elif init.checkpoint != "last" and path is not None:
            known = ", ".join(str(int(other.name)) for other in paths)
            clock = init.checkpoint.lstrip("0")  # text: a number may have more digits than `int` reads
            path = next((other for other in paths if other.name.lstrip("0") == clock), None)
            if path is None:
                raise UserError(f"it has no checkpoint={init.checkpoint}: use best, last or one of {known}")
        if path is None:
            raise UserError("it has no checkpoint yet: wait for its first, or use another run")
        store.verify(path)
        return {"run": str(run), "clock": int(path.name), "sha256": _digest(path)}


@contextlib.contextmanager
def _named(run: str) -> Iterator[None]:
    """Let every refusal begin with the key."""
    try:
        yield
    except UserError as error:
        raise UserError(f"init.run={run}: {error}") from None


def _digest(path: Path) -> str:
    return hashlib.sha256((path / manifest.NAME).read_bytes()).hexdigest()


def read(record: Mapping[str, Any], comm: Comm = ALONE) -> Tensors:
    """Read the weights of a recorded checkpoint; of sharded ones the rows of this rank (alone: all rows).

    UserError where it is gone or another one.
    """
    path = store.folder_of(Path(record["run"])) / manifest.folder_name(record["clock"])
    with _named(record["run"]):
        if not path.is_dir():
            raise UserError(f"{path}, with which this run was to begin, is gone: submit it again")
        if _digest(path) != record["sha256"]:
            raise UserError(f"{path} is not the checkpoint of this run's submission: submit it again")
        saved = store.read(path, parts=("player", "ema"), comm=comm)
    return {
        f"{player}.{name}": tensor
        for player, weights in saved.players.items()
        for name, tensor in (weights | saved.ema.get(player, {})).items()
    }


def of_networks(networks: Mapping[str, nn.Module]) -> Tensors:
    """Return the tensors of networks by their full names."""
    return {
        f"{player}.{name}": tensor
        for player, module in networks.items()
        for name, tensor in module.state_dict().items()
    }


def fitting(config: Config, target: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> set[str]:
    """Return the names of the tensors that are taken; UserError names the first ones that do not fit."""
    skip, run = config.init.skip, config.init.run
    for key, patterns, known in (
        ("skip", skip, {*target, *source}),
        ("freeze", config.init.freeze, {*target}),
    ):
        for pattern in patterns:
            if not any(matching(name, [pattern]) for name in known):
                raise UserError(
                    f"init.{key}: {pattern} matches no tensor: use names such as {next(iter(target))}"
                )
    kept = {name for name in target if not matching(name, skip)}
    given = {name for name in source if not matching(name, skip)}
    if not kept:
        raise UserError(f"init.skip={shown(skip)} leaves nothing of init.run={run}: leave both out")
    missing, extra = sorted(kept - given), sorted(given - kept)
    if len(missing) + len(extra) > len(kept & given):
        raise UserError(
            f"init.run={run} has another architecture, it lacks {len(missing)} of {len(kept)} tensors"
            f"{_first(missing, target)}: use a run of the same network, or leave them out by init.skip"
        )
    if missing or extra:
        where, names, of = ("lacks", missing, target) if missing else ("has", extra, source)
        here = "" if missing else ", which this network lacks"
        raise UserError(f"init.run={run} {where}{_first(names, of)[1:]}{here}: {_skip(names)}")
    if other := sorted(name for name in kept if target[name].shape != source[name].shape):
        name = other[0]
        raise UserError(
            f"init.run={run}: {name} has the shape {list(source[name].shape)}, this network's "
            f"{list(target[name].shape)}{_more(other)}: {_skip(other)}"
        )
    return kept


def _first(names: Sequence[str], tensors: Mapping[str, Tensor]) -> str:
    return f", {names[0]} {list(tensors[names[0]].shape)}{_more(names)}" if names else ""


def _more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _skip(names: Iterable[str]) -> str:
    """Return the remedy: the modules of these tensors stay as they are initialised."""
    modules = sorted({f"{name.rpartition('.')[0]}.*" for name in names})
    return f"leave it as it is initialised by init.skip=[{','.join(modules[:4])}]"


def record_of(run: RunDir, config: Config) -> dict[str, Any]:
    """Return the record of the run's source, which is chosen now where the run was not made by submit."""
    try:
        return dict(read_json(run.init_file, SCHEMA, remedy="submit the run again"))
    except MissingFile:
        write_json(run.init_file, choose(config))
        return record_of(run, config)


def begin(run: RunDir, config: Config, players: Mapping[str, Player], comm: Comm) -> str:
    """Load the source's weights into the players of a fresh run, on all ranks; return a line for the log."""
    target = of_networks({name: player.engine.whole() for name, player in players.items()})
    source: Tensors = {}
    names: set[str] = set()
    record: dict[str, Any] = {}
    error = ""
    try:
        if comm.main:
            record = record_of(run, config)
    except UserError as refused:
        error = str(refused)
    collectives.agree_or_raise(error, comm)
    record = collectives.broadcast(record, comm)
    try:
        source = read(record, comm)
        names = fitting(config, target, source)
    except UserError as refused:
        error = str(refused)
    collectives.agree_or_raise(error, comm)
    for name, player in players.items():
        own = {full: tensor for full, tensor in target.items() if full.startswith(f"{name}.")}
        tensors = {
            full.removeprefix(f"{name}."): source[full] if full in names else tensor.detach().clone()
            for full, tensor in own.items()
        }
        player.engine.load(tensors, f"player {name}")
        if player.ema:
            player.ema.load_state(tensors)
    return (
        f"begins with {len(names)} of {len(target)} tensors of {record['run']} at {record['clock']:,} images"
    )
