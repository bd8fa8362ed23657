"""The data of a run and its plan: the checks before anything is made, and the table of `dry_run`."""

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_shards.errors import UserError
from hpc.config import data_order, deepspeed, held_out
from hpc.config.check import task_checks
from hpc.config.optimizers import OPTIMIZERS
from hpc.config.schema import Config
from hpc.config.text import check_text
from hpc.config.types import shown
from hpc.runs.run_dir import RunDir
from launch.start import forecast
from launch.start.plan import RunPlan
from launch.terminal import print_facts


def locate_data(config: Config, *, siblings: Sequence[str] = ("val", "eval")) -> Config:
    """Return the config with absolute folders of its sets, and DeepSpeed's file read in. No data is opened.

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
    for split in ("val", "eval"):
        folder = getattr(data, split)
        folder = folder and os.path.abspath(os.path.expanduser(folder))
        if not folder and plain and split in siblings:
            names = (split, "test") if split == "eval" else (split,)  # `test`: as published, of split=test
            beside = [str(Path(train).parent / name) for name in names]
            folder = next((other for other in beside if _names_people(other) and other != train), "")
        folders[split] = folder
    located = dataclasses.replace(config, data=dataclasses.replace(data, **folders))
    return deepspeed.inlined(located)


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

    opened: folder -> set, of a sweep, whose runs of one task share what they read (None = a single run)
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
    from data_shards.shard_format.shard_set import ShardSet  # numpy: not needed for a plan without data

    opened = {} if opened is None else opened
    module = task_checks(config)
    fields = tuple(getattr(module, "fields", ()))
    sets: dict[str, Any] = {}
    for split, folder in _folders(config).items():
        if not folder or (split == "train" and data.stream):
            continue
        if not os.path.isdir(folder):
            raise UserError(
                f"data.{split}={folder} does not exist: `rostro pack` makes it, or give another folder"
            )
        if not os.listdir(folder):
            raise UserError(f"data.{split}={folder} is empty: `rostro pack` fills it, or give another folder")
        try:
            if folder not in opened:
                opened[folder] = ShardSet.open(folder, fields=fields)
            sets[split] = opened[folder]
        except UserError as error:
            raise UserError(f"data.{split}={error}") from None
        samples = len(sets[split])
        if not samples:
            raise UserError(f"data.{split}={folder} holds no samples: pack it again")
        if split == "train" and samples < world:
            raise UserError(
                f"procs={config.procs} x nodes={config.nodes} = {world} ranks, but {folder} holds {samples} "
                f"samples: use at most {samples} ranks"
            )
    if hasattr(module, "check_sets"):
        module.check_sets(config, sets)
    if "train" in sets:
        _check_order(config, sets["train"])
        _check_twins(config, sets["train"])
    return sets


def _check_order(config: Config, shards: Any) -> None:
    """Raise UserError for an order that the training set cannot give; warn of one that is slow to read."""
    from hpc.data import orders

    rows = orders.rows_of(config.data, shards)
    orders.check_groups(config.data, rows[0])
    orders.build(config, shards, rows)
    for part in rows:
        if part.note:
            print(f"warning: {part.note}", file=sys.stderr)


def _check_twins(config: Config, shards: Any) -> None:
    """Raise UserError unless the training set has the twins that the run may read."""
    from data_shards.shard_format.twins import open_twin

    for side in config.data.twins:
        try:
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


def _folders(config: Config) -> dict[str, str]:
    return {split: getattr(config.data, split) for split in held_out.SPLITS}


def keep_people(run: RunDir, plan: RunPlan) -> None:
    """Record in the run the people of its training and validation sets, by hashes; a pipe states none."""
    from hpc.data import known_people

    if "train" in plan.people:
        known_people.write(run.path, known_people.people_of(plan.people["train"]))
    if split := held_out.validation(plan.config.data):
        people = known_people.people_of(plan.people[split])
        known_people.write(run.path, people, role=known_people.CHOSEN)


def memory(plan: RunPlan) -> dict[str, float]:
    """Estimate the bytes of one rank by their use, from the counts of the task's yaml; {} if it has none."""
    config = plan.config
    counts = getattr(plan.checks, "counts", None)
    if counts is None or not plan.counts:
        return {}
    parameters, image = counts(config, plan.counts)
    half = 0.5 if config.precision == "bf16" else 1.0
    world, copy = config.procs * config.nodes, 4.0 * parameters
    moments = len(OPTIMIZERS[config.optim.name].moments_with(config.optim.momentum))
    return {
        "weights": copy,
        "gradients": copy,
        "gradients in transit": copy if world > 1 and config.engine.name == "flat" else 0.0,
        "optimizer": copy * moments,
        "EMA": copy if config.ema.half_life else 0.0,
        "activations": image * half * plan.sizes.micro[0],
    }


def micro_text(micro: Sequence[int]) -> str:
    """Return the micro batches as `2 x 16 + 8` or `40 x 16`."""
    first, last, count = micro[0], micro[-1], len(micro)
    if count == 1:
        return str(first)
    return f"{count} x {first}" if first == last else f"{count - 1} x {first} + {last}"


def rows(plan: RunPlan) -> list[tuple[str, str]]:
    """Return the plan as (subject, text)."""
    config, sets, sizes = plan.config, plan.sets, plan.sizes
    data, estimate = config.data, memory(plan)
    parts = ", ".join(f"{what} {size / 1e6:,.0f}" for what, size in estimate.items() if size)
    described = {
        split: f"{folder} ({len(sets[split]):,} images, {len(sets[split].identity_start) - 1:,} identities)"
        if split in sets
        else folder or "none"
        for split, folder in _folders(config).items()
    }
    if judged := held_out.validation(data):
        described[judged] += f", {sizes.evaluations:,} evaluations"
    epochs = ""
    if sets.get("train") is not None:
        from hpc.data import orders  # numpy

        epochs = f", {config.images / orders.epoch_images(config, sets['train']):,.1f} epochs"
    twins = f", twins {', '.join(map(str, data.twins))}" if data.twins else ""
    lines = [
        ("task", ", ".join(f"{key}={value}" for key, value in config.task.items() if key != "name")),
        ("ranks", f"{sizes.world} ({config.nodes} x {config.procs}), engine {config.engine.name}"),
        (
            "batch",
            f"{config.batch} = {sizes.world} x {sizes.share}; micro batches of a rank: "
            f"{micro_text(sizes.micro)}",
        ),
        ("run", f"{config.images:,} images = {sizes.updates:,} updates{epochs}"),
        ("time", forecast.text(config, forecast.rate(plan))),
        ("saves", f"{sizes.saves:,} checkpoints, every {config.save.every:,} images"),
        ("train", described["train"]),
        ("val", described["val"]),
        ("eval", described["eval"]),
        ("figures", held_out.statement(data)),
        (
            "images",
            f"{data.size} x {data.size}, order {data_order.describe(data)}, backend {data.backend}{twins}",
        ),
        ("optimizer", f"{config.optim.name}, lr {config.optim.lr:g}, {config.optim.schedule}"),
        ("precision", f"{config.precision}, norm_stats {config.norm_stats}"),
    ]
    if estimate:
        lines.append(
            (
                "memory",
                f"about {sum(estimate.values()) / 1e6:,.0f} MB a rank ({parts}), besides the libraries",
            )
        )
    return [(f"task {config.task['name']}" if what == "task" else what, text) for what, text in lines]


def show(plan: RunPlan) -> None:
    """Print the plan."""
    print_facts(rows(plan))
