"""Turns the words of the command line into a typed Config, with Hydra's help; every error is one line.

The block `smoke` of a task's yaml is not part of a run's config.
"""

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from data_shards.errors import UserError
from hpc.config.parse import from_dict
from hpc.config.plan import is_task, kind_of, plan_of
from hpc.config.players import merged, own_rules
from hpc.config.rules import WORDS, rules
from hpc.config.schema import Config
from hpc.config.text import check_word
from hpc.config.types import ITEMS, TABLES, as_type, as_typed_tree, common, flatten, near, shown
from launch.options.conf import CONF, GROUPS, choices, chosen_task, smoke_overrides
from launch.options.other_words import answer
from launch.options.site import site_values

BESIDE = ("smoke",)  # blocks of a task's yaml that are not keys of the run
LONGEST = 10_000  # characters of a word


@dataclass
class Schema(Config):
    """The content of a task's yaml: the config of a run, and the blocks beside it."""

    smoke: dict[str, Any] = field(default_factory=dict)


def register() -> None:
    """Make the schema known to Hydra, so that unknown keys and wrong types fail while it composes."""
    ConfigStore.instance().store(name="schema", node=Schema)


@cache
def task_yaml(task: str) -> dict[str, Any]:
    """Return the content of conf/task/<task>.yaml as it stands. It is cached: do not change it."""
    _known("task", task)
    path = CONF / "task" / f"{task}.yaml"
    content = _plain(path)
    for block in ("task", *BESIDE):
        if not isinstance(content.get(block, {}), dict):
            raise UserError(f"{path}: {block} is not a group of keys: write {block}: and the keys below it")
    plain = flatten(dataclasses.asdict(Config(task={})))
    shared = {key: value for key, value in content.items() if key not in ("task", "defaults", *BESIDE)}
    for key, value in flatten(shared).items():
        try:
            as_type(key, value, plain.get(key))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
    return content


def _plain(path: Path) -> dict[str, Any]:
    """Return the content of a yaml file of ours, in plain values."""
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(
            f"{path} cannot be read ({shown(' '.join(str(error).split()))}): correct it"
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no keys: restore it")
    return {str(key): value for key, value in content.items()}


def task_keys(task: str) -> dict[str, Any]:
    """Return the dotted keys `task.*` of a task with their defaults."""
    return flatten(task_yaml(task).get("task", {}), "task.")


def shared_keys() -> dict[str, Any]:
    """Return every dotted key that may be typed for any task, with its default."""
    plain = flatten(dataclasses.asdict(Config(task={})))
    return plain | {"cluster.sbatch": {}} | dict.fromkeys(WORDS, False)


def known_keys(task: str) -> dict[str, Any]:
    """Return every dotted key that may be typed for this task, with its default."""
    content = {key: value for key, value in task_yaml(task).items() if key not in (*BESIDE, "defaults")}
    known = {**shared_keys(), **flatten(content)}
    keys = {"name": task} | content.get("task", {})
    players = plan_of(keys).players if is_task(kind_of(keys)) else ()
    return {key: known[common(key)] for key in own_rules(players)} | known


def composed(words: Sequence[str]) -> Config:
    """Return the config that the words ask for, typed, not yet checked. UserError for what cannot be read.

    What comes later wins: the defaults, the task's yaml, the site file (but for a typed cluster=), the yaml's
    smoke block if smoke=true, the words. `engine=X` and `cluster=X` are short for `engine.name=X` and
    `cluster.name=X`.
    """
    task = _check_words(words)
    known = known_keys(task)
    values = copy.deepcopy(_tree(task))
    smoke = smoke_overrides(task) if smoke_asked(words) else []
    for key, value in [*_typed_groups(words), *_site(words), *_typed([*smoke, *words], known)]:
        _put(values, key, value)
    return finish(values, task=task)


@cache
def _tree(task: str) -> dict[str, Any]:
    """Compose the defaults and the task's yaml by Hydra. The result is cached: do not change it."""
    register()
    try:
        with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
            values = OmegaConf.to_container(compose("config", overrides=[f"task={task}"]), resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        text = " ".join(f"{error} {error.__cause__ or ''}".split())
        raise UserError(f"{CONF}, task={task}: {shown(text)}: correct these files") from None
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def smoke_asked(words: Sequence[str]) -> bool:
    """Return whether the last `smoke=` of the words is true."""
    last = next((word[6:] for word in reversed(words) if word.startswith("smoke=")), "false")
    asked = last.lower()  # a sweep's words have gone through Hydra, which writes True
    if asked not in ("true", "false"):
        raise UserError(f"smoke={last} is not true or false: type for example smoke=true")
    return asked == "true"


def _typed_groups(words: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield the key that a typed engine=X or cluster=X stands for."""
    for word in words:
        group, _, choice = word.partition("=")
        if group in ("engine", "cluster"):
            yield f"{group}.name", choice


def _site(words: Sequence[str]) -> Iterator[tuple[str, Any]]:
    typed = any(word.startswith("cluster=") for word in words)
    yield from ((key, value) for key, value in site_values().items() if key != "cluster.name" or not typed)


def _typed(words: Sequence[str], known: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for word in words:
        key = word.partition("=")[0]
        if key in known and key not in WORDS:
            yield key, as_type(key, typed_value(word, known[key]), known[key])


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key; a table, which is open, keeps what it had."""
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})  # a player's block is there once it is typed
    values[last] = {**values[last], **value} if isinstance(value, Mapping) else value


def finish(values: Mapping[str, Any], *, task: str) -> Config:
    """Return the Config of a composed tree without the blocks beside it; defaults type the task's keys."""
    config: Config = from_dict({key: value for key, value in values.items() if key not in BESIDE})
    config.players = merged(config)
    config.task = as_typed_tree("task.", config.task, task_yaml(task).get("task", {}))
    return config


def _check_words(words: Sequence[str]) -> str:
    """Refuse what is not `key=value` of a known key; return the task."""
    for word in words:
        key, equals, value = word.partition("=")
        check_word(key, value)
        if not equals or not key.isprintable():
            raise UserError(f"{shown(word)} is not key=value: `--help` lists the keys")
        if len(word) > LONGEST:
            raise UserError(f"{key} has {len(word):,} characters: use at most {LONGEST:,}")
        if key in GROUPS:
            _known(key, value)
    task = chosen_task(words)
    known = known_keys(task)
    groups = {".".join(name.split(".")[:depth]) for name in known for depth in range(1, name.count(".") + 1)}
    for word in words:
        key, _, value = word.partition("=")
        bare = key.lstrip("+~")
        if bare != key:
            raise UserError(
                f"{shown(word)}: keys are neither added nor removed here: write {bare}={shown(value)}"
            )
        if key in known or key in GROUPS:
            continue
        if key in groups:
            raise UserError(
                f"{shown(word)}: {key} is a group of keys: write {key}.KEY=VALUE, keys: {_below(key, known)}"
            )
        remedy = answer(key, value, words) or near(key, [*known, *GROUPS])
        raise UserError(f"unknown key {key} in {shown(word)}: {remedy}")
    return task


def _known(group: str, choice: str) -> None:
    if choice not in choices(group):
        choice = shown(choice)
        remedy = near(choice, choices(group), what=group)
        if group != "task":  # few: all of them are named
            *first, last = [f"{group}={name}" for name in rules(Config)[f"{group}.name"].one_of]
            remedy = f"use {', '.join(first)} or {last}"
        raise UserError(f"{group}={choice} is not known: {remedy}")


def _below(group: str, known: Mapping[str, Any]) -> str:
    return ", ".join(key for key in known if key.startswith(f"{group}."))


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


def typed_value(word: str, like: Any) -> Any:
    """Return the value of `key=value` by Hydra's grammar; text is kept as it is, a path may hold anything."""
    key, _, text = word.partition("=")
    if isinstance(like, str) and text[:1] not in ("'", '"'):
        return text
    try:
        parsed = _parser().parse_override(word)
        value = parsed.value()
    except (HydraException, RecursionError, ValueError):  # ValueError: a whole number of 5,000 digits
        example = TABLES.get(key) or (ITEMS.get(common(key)) if isinstance(like, list) and not like else like)
        raise UserError(f"{shown(word)} cannot be read: type for example {key}={shown(example)}") from None
    if parsed.is_sweep_override():
        raise UserError(f"{shown(word)} is several values: `rostro submit -m ...` starts a run for each")
    if parsed.type is not OverrideType.CHANGE:
        raise UserError(f"{shown(word)} cannot be read: type for example {key}={shown(like)}")
    return value
