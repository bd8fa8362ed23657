"""The data of a run: what is checked before anything is made. The plan's table: `launch/start/table.py`."""

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_shards.errors import UserError
from hpc.config import data_order, deepspeed, held_out
from hpc.config.plan import plan_of
from hpc.config.schema import Config
from hpc.config.text import check_text
from hpc.config.types import shown
from hpc.runs.run_dir import RunDir
from launch.start import weights
from launch.start.plan import RunPlan


def locate_data(config: Config, *, siblings: Sequence[str] = ("val", "eval")) -> Config:
    """Return the config with absolute folders of its sets, and DeepSpeed's file read in. No set is opened.

    `data.set` stands for $ROSTRO_SHARDS/<set>/train, /val and /eval. Beside a given `data.train`, the
    existing ones of the `siblings` ../val and ../eval (or ../test) are taken.
    """
    data = config.data
    train = data.train
    if not train and data.set and os.environ.get("ROSTRO_SHARDS"):
        train = str(Path(os.environ["ROSTRO_SHARDS"]) / data.set / "train")
    plain = train and not (train.startswith("pipe:") or "://" in train)
    if plain:
        train = os.path.abspath(os.path.expanduser(train))
    folders = {"train": train}
    if data.train_b:
        folders["train_b"] = os.path.abspath(os.path.expanduser(data.train_b))
    for split in ("val", "eval"):
        folder = getattr(data, split)
        folder = folder and os.path.abspath(os.path.expanduser(folder))
        if not folder and plain and split in siblings:
            names = (split, "test") if split == "eval" else (split,)  # `test`: as published, of split=test
            beside = [str(Path(train).parent / name) for name in names]
            folder = next((other for other in beside if _names_people(other) and other != train), "")
        folders[split] = folder
    lists = {key: _listed(key, getattr(data, key)) for key in ("rows", "weights", "a", "b")}
    located = dataclasses.replace(config, data=dataclasses.replace(data, **folders, **lists))
    return deepspeed.inlined(located)


def _listed(key: str, value: str) -> str:
    """Return a list of rows, `@FILE`, with its absolute path and hash; any other value as it is."""
    if not value.startswith("@"):
        return value
    from data_shards.sampling import row_file  # numpy: not needed for a plan without data

    return row_file.located(value, key=f"data.{key}")


def check_place(config: Config) -> None:
    """Raise UserError if the current folder, with which paths begin, has a name that a job cannot use."""
    runs = os.path.abspath(config.runs)
    check_text(dataclasses.replace(config, runs=runs))
    if ":" in runs:
        raise UserError(
            f"runs={runs} contains :, which separates folders in PYTHONPATH: use runs=FOLDER without it"
        )


def check_data(config: Config, opened: dict[str, Any] | None = None) -> dict[str, Any]:
    """Open the sets of a located config; UserError for the first thing that a training would fail on.

    Returns {"train": ShardSet, "val": ..., "eval": ...}, each where it is read by index.

    opened: folder -> set, of a sweep, whose runs share what they read (None = a single run)
    """
    data, world = config.data, config.procs * config.nodes
    if not data.train:
        where = (
            f"data.set={data.set} needs ROSTRO_SHARDS, the folder of the packed sets"
            if data.set
            else "data.train is empty"
        )
        raise UserError(
            f"{where}: type data.train=FOLDER" + (", or export ROSTRO_SHARDS=FOLDER" if data.set else "")
        )
    from data_shards.shard_format.manifest import check_fields
    from data_shards.shard_format.shard_set import ShardSet  # numpy: not needed for a plan without data

    opened = {} if opened is None else opened
    plan = plan_of(config.task)
    sets: dict[str, Any] = {}
    for split, folder in folders_of(config).items():
        if not folder or (split == "train" and data.stream):
            continue
        if not os.path.isdir(folder):
            raise UserError(
                f"data.{split}={folder} does not exist: `rostro pack` makes it, or give another folder"
            )
        if not os.listdir(folder):
            raise UserError(f"data.{split}={folder} is empty: `rostro pack` fills it, or give another folder")
        fields = data_order.stated_of_set(data, plan, split)
        try:
            if folder in opened:  # for another run, perhaps of another job
                check_fields(opened[folder].folder, opened[folder].manifest, fields)
            else:
                opened[folder] = ShardSet.open(folder, fields=fields)
            sets[split] = opened[folder]
        except UserError as error:
            raise UserError(f"data.{split}={error}") from None
        samples = len(sets[split])
        if not samples:
            raise UserError(f"data.{split}={folder} holds no samples: pack it again")
        if split in ("train", "train_b") and samples < world:
            raise UserError(
                f"procs={config.procs} x nodes={config.nodes} = {world} ranks, but {folder} holds {samples} "
                f"samples: use at most {samples} ranks"
            )
    plan.check(config, sets)
    if "train" in sets:
        _check_order(config, sets)
        _check_twins(config, sets)
    return sets


def _check_order(config: Config, sets: Mapping[str, Any]) -> None:
    """Raise UserError for an order that the training sets cannot give; warn of one that is slow to read."""
    from hpc.data import orders

    source = orders.training_sets(sets)
    rows = orders.rows_of(config.data, source)
    orders.check_groups(config.data, rows[0])
    orders.build(config, source, rows)
    for part in rows:
        if part.note:
            print(f"warning: {part.note}", file=sys.stderr)


def _check_twins(config: Config, sets: Mapping[str, Any]) -> None:
    """Raise UserError unless the training sets have the twins that the run may read."""
    from data_shards.shard_format.twins import open_twin
    from hpc.data.orders import training_sets

    for side in config.data.twins:
        try:
            for shards in training_sets(sets):
                open_twin(shards, side)
        except UserError as error:
            raise UserError(f"data.twins={shown(config.data.twins)}: {error}") from None


def with_streamed(config: Config, sets: Mapping[str, Any]) -> dict[str, Any]:
    """Return the opened sets, and as `train` the packed set that a stream reads: it states its people."""
    if "train" in sets or not _names_people(config.data.train):
        return dict(sets)
    from data_shards.shard_format.shard_set import ShardSet

    return {"train": ShardSet.open(config.data.train), **sets}


def check_people(config: Config, people: Mapping[str, Any]) -> None:
    """Refuse sets that share people, unless data.allow_shared permits it; warn of a stream that states none.

    people: the sets of `with_streamed`
    """
    data = config.data
    if data.allow_shared:
        return
    from hpc.data.known_people import refuse_shared

    if data.stream and (data.val or data.eval) and "train" not in people:
        print(
            f"warning: data.train={data.train} is read as a stream: it cannot be checked whether people "
            "of data.val and data.eval are in it",
            file=sys.stderr,
        )
    refuse_shared(dict(people))


def _names_people(source: str) -> bool:
    """Return whether a training source states its people."""
    return os.path.isfile(os.path.join(source, "manifest.json"))


def folders_of(config: Config) -> dict[str, str]:
    """Return the folder of each set by its split; empty where the run has none."""
    return {split: getattr(config.data, split) for split in held_out.SPLITS}


def keep_people(run: RunDir, plan: RunPlan) -> None:
    """Record in the run the people of its training and validation sets, by hashes; a pipe states none."""
    from hpc.data import known_people

    if "train" in plan.people:
        trained = known_people.people_of(plan.people["train"])
        if "train_b" in plan.people:
            trained = known_people.joined(trained, known_people.people_of(plan.people["train_b"]))
        known_people.write(run.path, trained)
    if split := held_out.validation(plan.config.data):
        people = known_people.people_of(plan.people[split])
        known_people.write(run.path, people, role=known_people.CHOSEN)
    if plan.config.init.run:
        weights.keep_people(run.path, plan.config)
