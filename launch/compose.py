"""Words of the command line -> a checked Config. Hydra composes; the messages are ours, one line each.

The blocks `smoke` and `memory` of a task's yaml are no part of a run's config.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from data_shards.errors import UserError
from hpc.config import CONF, Config, as_type, flatten, from_dict, near
from launch.site import site_words

GROUPS = ("task", "engine", "cluster")
BESIDE = ("smoke", "memory")  # blocks of a task's yaml that are no keys of the run
NEXT = {
    "cluster": "use cluster=auto, cluster=slurm or cluster=local",
    "engine": "use engine=ddp, engine=deepspeed or engine=flat",
}


@dataclass
class Schema(Config):
    """What a task's yaml may hold: the config of a run, and the blocks beside it."""

    smoke: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)


def register() -> None:
    """Make the schema known to Hydra, so that unknown keys and wrong types fail while it composes."""
    ConfigStore.instance().store(name="schema", node=Schema)


def choices(group: str) -> list[str]:
    """What may be written after `task=`, `engine=` or `cluster=`."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@cache
def task_yaml(task: str) -> dict[str, Any]:
    """The content of conf/task/<task>.yaml, as it stands. Read only: the answer is kept."""
    _known("task", task)
    return dict(OmegaConf.to_container(OmegaConf.load(CONF / "task" / f"{task}.yaml")))  # type: ignore[arg-type]


def chosen_task(words: Sequence[str]) -> str:
    """The task that the words name."""
    return next((word[5:] for word in reversed(words) if word.startswith("task=")), "siamese")


def known_keys(task: str) -> dict[str, Any]:
    """Every dotted key that may be typed for this task, with its default."""
    plain = flatten(dataclasses.asdict(Config(task={}))) | {"cluster.sbatch": {}}
    content = {key: value for key, value in task_yaml(task).items() if key not in (*BESIDE, "defaults")}
    return {**plain, **flatten(content)}


def composed(words: Sequence[str]) -> Config:
    """The config that the words ask for, typed, not yet checked for sense. UserError for what cannot be read."""
    chosen = _check_words(words)
    known = known_keys(chosen["task"])
    register()
    try:
        with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
            tree = compose(
                "config", overrides=[_quoted(word, known) for word in [*site_words(words), *words]]
            )
        values = OmegaConf.to_container(tree, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error, words, chosen["task"])) from None
    assert isinstance(values, Mapping)
    return finish({str(key): value for key, value in values.items()}, task=chosen["task"])


def finish(values: Mapping[str, Any], *, task: str) -> Config:
    """The Config of a composed tree: without the blocks beside it, the task's keys typed by their defaults."""
    config: Config = from_dict({key: value for key, value in values.items() if key not in BESIDE})
    defaults = dict(task_yaml(task).get("task", {}))
    for key, value in config.task.items():
        if key not in defaults:
            raise UserError(f"unknown key task.{key}={value}: {near(key, defaults)}")
        config.task[key] = as_type(f"task.{key}", value, defaults[key])
    return config


def _check_words(words: Sequence[str]) -> dict[str, str]:
    """Refuse what is not `key=value` of a known key; returns the choice of every group."""
    chosen = {"task": "siamese", "engine": "ddp", "cluster": "auto"}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{word} is not key=value: `--help` lists the keys")
        if key in GROUPS:
            _known(key, value)
            chosen[key] = value
    known = known_keys(chosen["task"])
    for word in words:
        key, _, value = word.partition("=")
        bare = key.lstrip("+~")
        if bare != key:
            raise UserError(f"{word}: keys are neither added nor removed here: write {bare}={value}")
        groups = {
            ".".join(name.split(".")[:depth]) for name in known for depth in range(1, name.count(".") + 1)
        }
        if key not in known and key not in GROUPS and not key.startswith("hydra."):
            if key in groups:
                raise UserError(
                    f"{word}: {key} is a group of keys: write {key}.KEY=VALUE, keys: {_below(key, known)}"
                )
            raise UserError(f"unknown key {key} in {word}: {near(key, [*known, *GROUPS])}")
    return chosen


def _known(group: str, choice: str) -> None:
    if choice not in choices(group):
        remedy = NEXT.get(group) or near(choice, choices(group), what=group)
        raise UserError(f"{group}={choice} is not known: {remedy}")


def _below(group: str, known: Mapping[str, Any]) -> str:
    return ", ".join(key for key in known if key.startswith(f"{group}."))


def _quoted(word: str, known: Mapping[str, Any]) -> str:
    """Text as Hydra's grammar wants it: a path may hold `=`, braces and blanks."""
    key, _, value = word.partition("=")
    if key == "cluster.sbatch":  # an open table: Hydra must be allowed to add to it
        return f"++{word}"
    if not isinstance(known.get(key), str) or value[:1] in ("'", '"'):
        return word
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


def _explain(error: Exception, words: Sequence[str], task: str) -> str:
    """Hydra's refusal in one line: the word that it is about, and what type its key has."""
    text = re.sub(r"\s+", " ", f"{error} {error.__cause__ or ''}").strip()
    known = known_keys(task)
    named = re.search(r"full_key: ([\w.]+)", text)
    for word in words:
        key, _, value = word.partition("=")
        if key in known and named and (named[1] == key or named[1].startswith(f"{key}[")):
            return _type_error(key, value, known[key])
    return f"{' '.join(words)}: {text[:200]}; `--help` shows how keys are written"


def _type_error(key: str, value: str, like: Any) -> str:
    try:
        as_type(key, yaml.safe_load(value) if isinstance(like, list) else value, like)
    except UserError as error:
        return str(error)
    except yaml.YAMLError:
        pass
    return f"{key}={value} cannot be read: {key} is {like!r} by default"
