"""Parameters by name pattern: what a group gives them, and patterns that match nothing."""

import pytest
import torch
from torch import nn

from data_shards.errors import UserError
from hpc.config.schema import Optim
from hpc.optim.build import build_optimizer
from hpc.optim.groups import digest, freeze, split
from hpc.task import Group


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False), nn.Linear(4, 2)
    )


def test_without_patterns_the_groups_are_those_of_before() -> None:
    found = split(list(net().named_parameters()), {}, 0.1)
    assert [(group["name"], group["weight_decay"], group["scale"]) for group in found] == [
        ("decayed", 0.1, 1.0),
        ("undecayed", 0.0, 1.0),
    ]


def test_the_first_pattern_that_matches_decides() -> None:
    groups = {"3.bias": Group(lr=2.0, decay=0.5), "3.*": Group(lr=0.1), "*": Group(decay=0.3)}
    optimizer = build_optimizer(Optim(weight_decay=0.1), list(net().named_parameters()), groups)
    found = {
        name: (group["scale"], group["weight_decay"])
        for group in optimizer.param_groups
        for name in group["param_names"]
    }
    assert found["3.bias"] == (2.0, 0.5)
    assert found["3.weight"] == (0.1, 0.1)
    assert found["0.weight"] == found["0.bias"] == found["1.weight"] == (1.0, 0.3)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            {"head.*": Group()},
            "the pattern head.* matches no parameter of player G: use names such as 0.weight",
        ),
        ({"*": Group(frozen=True)}, "everything of player G is frozen: leave a parameter to be trained"),
    ],
)
def test_patterns_without_a_meaning_are_refused(groups: dict[str, Group], message: str) -> None:
    with pytest.raises(UserError) as error:
        freeze(net(), groups, "G")
    assert str(error.value) == message


def test_frozen_layers_keep_their_statistics() -> None:
    module = net()
    freeze(module, {"[12].*": Group(frozen=True)}, "G")
    assert [p.requires_grad for p in module.parameters()] == [True, True, False, False, True, True]
    assert [layer.training for layer in module] == [True, False, False, True]


def test_a_digest_sees_names_types_and_numbers() -> None:
    one = nn.Linear(2, 2)
    other = nn.Linear(2, 2)
    other.load_state_dict(one.state_dict())
    assert digest(one) == digest(other)
    with torch.no_grad():
        other.bias[1] += 1e-6
    assert len({digest(one), digest(other), digest(one.double()), digest(nn.Sequential(one))}) == 4


def test_a_tied_weight_is_frozen_by_each_of_its_names() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1))
    module[1].weight = module[0].weight
    freeze(module, {"1.weight": Group(frozen=True)}, "G")
    assert [name for name, p in module.named_parameters() if not p.requires_grad] == ["0.weight"]
    with pytest.raises(UserError, match=r"the pattern 1\.weight matches no parameter"):
        freeze(module, {"1.weight": Group(lr=2.0)}, "G")  # an optimizer knows the weight by its first name


def test_biases_have_groups_of_their_own_where_their_warm_up_is_another() -> None:
    config = Optim(name="sgd", weight_decay=0.1, warmup=100, warmup_bias=0.1)
    optimizer = build_optimizer(config, list(net().named_parameters()))
    found = {group["name"]: (group["weight_decay"], group["param_names"]) for group in optimizer.param_groups}
    assert found == {
        "decayed": (0.1, ["0.weight", "3.weight"]),
        "undecayed": (0.0, ["1.weight"]),
        "biases": (0.0, ["0.bias", "1.bias", "3.bias"]),
    }
    assert [bool(group.get("bias")) for group in optimizer.param_groups] == [False, False, True]
