"""What every key means and may be: declared once, and held by the check."""

import copy
import dataclasses
from typing import Any

import pytest

from data_shards.errors import UserError
from hpc.config.check import all_rules, check, value_of
from hpc.config.rules import Rule, rules
from hpc.config.schema import Config, Data
from hpc.config.types import flatten
from launch.options.compose import known_keys
from launch.options.conf import choices, plan_of_task
from tests.hpc.config.test_config import TASK

RULES = rules(Config)
LIMITS = [
    (key, value)
    for key, rule in RULES.items()
    for value in (
        rule.above,
        None if rule.least is None else rule.least - 1,
        rule.below,
        None if rule.most is None else rule.most + 1,
    )
    if value is not None
]


@pytest.mark.parametrize("task", choices("task"))
def test_every_key_says_what_it_is_and_what_it_may_be(task):
    found = all_rules(plan_of_task(task))
    for key, default in known_keys(task).items():
        if key in ("task.name", "task.kind"):
            continue
        rule = found[key]
        assert len(rule.help) > 3, key
        assert "\n" not in rule.help, key
        assert rule.values(default), key
        if rule.one_of:
            assert default in rule.one_of, key
        else:
            assert not rule.fault(key, default), key
    for key in ("auto", "slurm", "local"):
        assert key in RULES["cluster.name"].one_of


def changed(key: str, value: Any) -> Config:
    config = Config(task=dict(TASK), data=Data(order="groups"))
    *groups, name = key.split(".")
    inner: Any = config
    for group in groups:
        inner = getattr(inner, group)
    default = getattr(inner, name)
    if isinstance(default, list):
        value = [float(value)] * 2
    setattr(inner, name, type(default)(value))
    return config


@pytest.mark.parametrize(("key", "value"), LIMITS)
def test_what_is_outside_of_a_range_is_refused_with_what_to_type(key, value):
    with pytest.raises(UserError) as error:
        check(changed(key, value))
    message = str(error.value)
    assert message.startswith(f"{key}=")
    assert ": use " in message or ": leave it out" in message
    if isinstance(value_of(Config(), key), float) and "above" in RULES[key].range():
        assert "1 or more" not in message  # 0.001 may be typed too


@pytest.mark.parametrize("key", [key for key, rule in RULES.items() if rule.one_of])
def test_what_is_not_a_choice_is_refused_with_all_choices(key):
    rule = RULES[key]
    with pytest.raises(UserError) as error:
        check(changed(key, 9 if isinstance(rule.one_of[0], int) else "garbage"))
    assert all(str(choice) in str(error.value) for choice in rule.one_of)


def test_the_words_of_a_range():
    assert Rule("x", above=0).fault("lr", -1.0, 0.001) == (
        "lr=-1.0 is not positive: use a number above 0, for example lr=0.001"
    )
    assert Rule("x", least=1).fault("n", 0, 4) == "n=0 is not positive: use 1 or more, for example n=4"
    assert Rule("x", least=0).fault("n", -1) == "n=-1 is negative: use 0 or more"
    assert Rule("x", least=0, most=1).fault("p", 2.0) == "p=2.0 is not in [0, 1]: use a number from 0 to 1"
    assert Rule("x", above=0, most=1).fault("a", [0.0, 1.0], [0.5, 1.0]) == (
        "a=[0.0,1.0] is not in (0, 1]: use numbers above 0 to 1, for example a=[0.5,1.0]"
    )
    assert "not a finite number" in Rule("x", above=0).fault("a", [1.0, float("nan")])


def test_lists_and_tables_of_two_configs_are_not_shared():
    one, other = Config(), Config()
    one.optim.betas.append(1.0)
    one.cluster.sbatch["x"] = 1
    assert other == Config()
    assert copy.deepcopy(flatten(dataclasses.asdict(other))) == flatten(dataclasses.asdict(Config()))
