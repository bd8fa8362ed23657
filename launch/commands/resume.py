"""`rostro resume`: resume a run in its directory, with the code that it keeps."""

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from data_shards.errors import UserError
from hpc.checkpoints import manifest
from hpc.config.check import check, check_values
from hpc.config.identity import is_free
from hpc.config.parse import from_dict, task_defaults, update_config
from hpc.config.schema import Config, Data, DeepSpeed
from hpc.config.types import flatten, near
from hpc.runs import requeue, restart
from hpc.runs.run_dir import RunDir
from launch.options import key_value
from launch.options.option import Option, option_lines
from launch.start import data as plan
from launch.start import set_digests, weights
from launch.start.create import on_cluster, refuse_unused
from launch.start.undo import OldRun

OPTIONS = {
    "runs": Option("runs", "folder of the run directories"),
    "wait": Option(False, "follow the run to its end"),
    "from": Option(
        "",
        "from=0 starts again from 0 images: what the run has made so far is moved to RUN/before-1",
        placeholder="0",
    ),
}
HELP = f"""
usage: rostro resume RUN [key=value ...]

Resumes a run from its newest good checkpoint. The run keeps its code; edits in the checkout do not reach it.

{option_lines(OPTIONS, {"RUN": "a name or a run directory"})}

Keys that change no numbers may be given a new value, and keep it: nodes, procs, hours, cluster, engine.name,
log.every, save.last, data.train (the same set at another place; the held-out one beside it is taken too), ...
All others are refused by name.
Example: rostro resume siamese-20260101-120000 procs=4 wait=true
"""
ONE_OFF = {"wait": False, "dry_run": False, "prepare": False}  # of one start, not of the run


def main(argv: list[str]) -> int:
    from launch.start.start import start_run

    place = [word for word in argv if word.startswith("runs=")]
    words = [word for word in argv if word not in place and not word.startswith("from=")]
    if not words or not key_value.is_place(words[0]):
        raise UserError("RUN is missing: type rostro resume RUN; `rostro status` lists them")
    run = RunDir.open(words[0], runs=place[-1][5:] if place else OPTIONS["runs"].default)
    again = _again([word for word in argv if word.startswith("from=")])
    before = run.config()
    manifest.check_config(run.path, before)
    run.resolved()  # its ranks could not read it either
    config = changed_config(run, before, words[1:])
    if requeue.newest_clock(run) >= 0 and not any(word.startswith("after=") for word in words):
        config = dataclasses.replace(config, after="")  # the run it waited for has ended
    if run.ownership.in_use():
        raise UserError(run.ownership.refusal())
    status = run.status()
    if status["state"] == "finished":
        raise UserError(
            f"run {run.name} is finished ({status.get('clock', 0):,} of {before.images:,} images): a longer "
            f"one is another run, type `rostro submit task={config.task['name']} images=...`"
        )
    examples = task_defaults(run.code, config.task["name"])
    check_values(config, examples)
    config = on_cluster(config)
    refuse_unused(config, words)
    check(config, examples)
    config = plan.locate_data(config, siblings=list(set_digests.recorded(run)) or ("eval",))
    config = weights.with_helpers(config)
    plan.check_data(config)
    set_digests.check_digests(run, config)
    if not again and (why := restart.gone(run)):
        raise UserError(why)
    if config.cluster.name == "slurm":
        from launch.start import slurm

        slurm.preflight(config)
    as_it_was = OldRun(run)
    if again:
        _set_aside(run)
    update_config(dataclasses.replace(config, **ONE_OFF), run.config_file)
    return start_run(run, config, as_it_was)


def _again(words: list[str]) -> bool:
    """Return whether `from=0` was typed."""
    for word in words:
        if word != "from=0":
            raise UserError(
                f"{word}: a run resumes from its newest good checkpoint: leave it out, or type from=0 to "
                "start again"
            )
    return bool(words)


def _set_aside(run: RunDir) -> None:
    run.ownership.acquire()
    try:
        folder = run.path / restart.set_aside(run)
    except BaseException:
        run.ownership.release()
        raise
    print(f"run {run.name} starts again from 0; what it had made is in {folder}", flush=True)


def changed_config(run: RunDir, before: Config, words: list[str]) -> Config:
    """Return the run's config with the given free keys changed; UserError for any other key."""
    values = dataclasses.asdict(before) | ONE_OFF
    known = flatten(values) | {"cluster.sbatch": before.cluster.sbatch}  # a table is one key
    for word in words:
        key, equals, text = word.partition("=")
        key = {"engine": "engine.name", "cluster": "cluster.name"}.get(key, key)
        if not equals:
            raise UserError(f"{word}: one word too many: keys are typed key=value")
        if key in ("name", "runs") or (key in known and not is_free(key, before)):
            raise UserError(
                f"{word} would change run {run.name}, where it is {key}={known[key]}: leave it out, or start "
                "another run by `rostro submit`"
            )
        if key not in known:
            raise UserError(f"unknown key {key} in {word}: {near(key, known)}")
        if key in ("dry_run", "prepare"):
            raise UserError(f"{word} belongs to `rostro submit`: leave it out")
        table = isinstance(known[key], dict)
        _put(values, key, _table(key, text) if table else key_value.convert(key, text, known[key]))
    given = {word.partition("=")[0] for word in words}
    if values["engine"]["name"] != "deepspeed":  # another engine does not know the settings of DeepSpeed
        plain = dataclasses.asdict(DeepSpeed())
        typed = {
            key: values["engine"]["deepspeed"][key] for key in plain if f"engine.deepspeed.{key}" in given
        }
        values["engine"]["deepspeed"] = plain | typed
    # Another set takes the place of the folders that the old one stood for.
    for key in ("train", "val", "eval"):
        if "data.set" in given and f"data.{key}" not in given:
            values["data"][key] = ""
    if "data.train" in given:
        _follow(values["data"], before.data, given)
    config: Config = from_dict(values)
    return config


def _follow(data: dict[str, Any], before: Data, given: Collection[str]) -> None:
    """Follow held-out sets that moved with the training set: they are gone and are beside it again."""
    new = Path(data["train"]).expanduser()
    for split in ("val", "eval"):
        old = Path(getattr(before, split, "") or "")
        if (
            f"data.{split}" in given
            or not old.name
            or old.parent != Path(before.train).parent
            or old.is_dir()
        ):
            continue
        if not (new.parent / old.name / "manifest.json").is_file():
            raise UserError(
                f"data.train={new}: the run's data.{split}={old} is gone too, and {new.parent / old.name} is "
                f"not a packed set: type data.train=FOLDER data.{split}=FOLDER"
            )
        data[split] = str(new.parent / old.name)


def _table(key: str, text: str) -> dict[str, Any]:
    """Return `{hold: true}` as a dict."""
    try:
        table = yaml.safe_load(text)
    except yaml.YAMLError:
        table = None
    if not isinstance(table, dict):
        raise UserError(f"{key}={text} is not a table: type for example {key}='{{exclusive: true}}'")
    return table


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        values = values[part]
    values[last] = value
