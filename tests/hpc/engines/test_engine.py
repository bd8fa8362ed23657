"""Every engine, world size and accumulation equals one plain process on the global batch."""

import functools

import pytest
import torch
from torch import Tensor

from data_shards.errors import UserError
from hpc.distributed.comm import Comm
from hpc.engines.factory import build_engine
from tests.support import engines
from tests.support.ranks import launch

LIMIT = 1e-5  # relative, fp32


@functools.cache
def reference(job: str, optimizer: str) -> dict[str, Tensor]:
    return engines.by_plain_torch(job, optimizer)


def difference(found: list[Tensor], wanted: list[Tensor]) -> float:
    """Relative distance of two lists of tensors, each taken as one vector."""
    one, other = (torch.cat([t.double().reshape(-1) for t in tensors]) for tensors in (found, wanted))
    return float((one - other).norm() / other.norm().clamp(min=1e-12))


def kind(name: str) -> str:
    """What an entry of `engines.by_runtime` is."""
    for word in ("gradient", "loss", "running", "num_batches"):
        if word in name:
            return word
    return "parameter"


@pytest.mark.parametrize("world", [1, 2, 4])
def test_engines_equal_a_plain_process(world: int) -> None:
    ranks = [engines.every_way(Comm())] if world == 1 else launch(engines.every_way, world)
    wrong = []
    for case in ranks[0]:
        wanted = reference(case[0], case[1])
        for rank in ranks:
            found = rank[case]
            assert found.keys() == wanted.keys()
            for what in {kind(name) for name in found}:
                names = [name for name in found if kind(name) == what]
                distance = difference([found[name] for name in names], [wanted[name] for name in names])
                if distance > LIMIT:
                    wrong.append((case, what, distance))
            # A single tensor may hold little but rounding (a bias that started at zero): a wider limit.
            for name in found:
                if (distance := difference([found[name]], [wanted[name]])) > 10 * LIMIT:
                    wrong.append((case, name, distance))
    assert not wrong, f"{len(wrong)} of {len(ranks[0])} cases x 5: {wrong[:10]}"


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(UserError, match="engine=horovod"):
        build_engine("horovod", torch.nn.Linear(1, 1), Comm())
