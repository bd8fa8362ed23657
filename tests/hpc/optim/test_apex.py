"""NVIDIA Apex: told from its namesakes, equal to torch's optimizers, with state under our names."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from data_shards.errors import UserError
from hpc.config import apex
from hpc.config.check import check
from hpc.config.identity import is_free
from hpc.config.optimizers import OPTIMIZERS
from hpc.config.schema import Config, Data, Engine, Optim
from hpc.optim import apex as apex_optim
from hpc.optim import build
from hpc.optim.state import export_state, import_state
from tests.support import apexes

NAMES = [name for name, optimizer in OPTIMIZERS.items() if optimizer.apex]
REAL = apex.installation() == "nvidia" and torch.cuda.is_available()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Puts an `apex` of a kind in front of any other."""

    def forget() -> None:
        for name in [name for name in sys.modules if name.split(".")[0] in ("apex", "amp_C")]:
            del sys.modules[name]

    def install(kind: str) -> None:
        forget()
        monkeypatch.syspath_prepend(str(apexes.install(tmp_path / kind.replace(" ", "-"), kind=kind)))

    yield install
    forget()


@pytest.mark.parametrize(
    ("kind", "verdict", "message"),
    [
        ("nvidia", "nvidia", None),
        ("no kernels", "no kernels", "built without its kernels .no module amp_C.: build NVIDIA's"),
        (
            "unrelated",
            "unrelated",
            "is not NVIDIA's .PyPI's apex is a toolkit for web logins.: `pip uninstall",
        ),
        ("overwritten", "unrelated", "is not NVIDIA's"),  # amp_C of an earlier build is still there
        ("namespace", "unrelated", "is not NVIDIA's"),  # a folder without __init__.py
    ],
)
def test_every_kind_of_apex_is_recognised_without_importing_it(
    installed: Callable[[str], None], kind: str, verdict: str, message: str | None
) -> None:
    installed(kind)
    assert apex.installation() == verdict
    assert not {"apex", "amp_C"} & sys.modules.keys()
    if message is None:
        apex.refuse("lamb")
        return
    with pytest.raises(UserError, match=message) as caught:
        apex.refuse("lamb")
    assert "\n" not in str(caught.value)
    assert "or use optim.impl=torch" in str(caught.value)


def test_a_machine_without_apex_says_what_to_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    for name in ("apex", "amp_C"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert apex.installation() == "missing"
    with pytest.raises(UserError, match=r"is not installed on .*APEX_CUDA_EXT=1 pip install"):
        build.build_optimizer(Optim(impl="apex"), [("p", nn.Parameter(torch.ones(2)))])


def test_parameters_outside_a_gpu_are_refused(installed: Callable[[str], None]) -> None:
    installed("nvidia")
    with pytest.raises(UserError, match=r"p is torch\.float32 on cpu, .* want fp32 on a GPU"):
        build.build_optimizer(Optim(impl="apex"), [("p", nn.Parameter(torch.ones(2)))])


def _named(seed: int = 0, device: str = "cpu") -> list[tuple[str, nn.Parameter]]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"0.weight": (4, 3, 2, 2), "1.weight": (5,), "1.bias": (5,), "2.weight": (3, 4)}
    return [
        (name, nn.Parameter(torch.randn(shape, generator=generator).to(device)))
        for name, shape in shapes.items()
    ]


def _steps(optimizer: torch.optim.Optimizer, named: list[tuple[str, nn.Parameter]], numbers: range) -> None:
    for number in numbers:
        optimizer.zero_grad(set_to_none=True)
        generator = torch.Generator().manual_seed(100 + number)
        for _, p in named:
            p.grad = (3 * torch.randn(p.shape, generator=generator)).to(p.device)
        optimizer.step()


@pytest.fixture
def fused(installed: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in for NVIDIA's Apex, allowed on the CPU."""
    installed("nvidia")
    monkeypatch.setattr(apex_optim, "refuse", lambda named_parameters: None)


def _pair(name: str, device: str = "cpu") -> dict[str, tuple[torch.optim.Optimizer, list]]:
    """impl -> (optimizer, named parameters): the same start, and settings that all matter."""
    made = {}
    for impl in ("torch", "apex"):
        config = Optim(name=name, impl=impl, lr=0.05, momentum=0.8, nesterov=True, betas=[0.8, 0.9])
        config.eps, config.weight_decay = 1e-3, 0.1
        named = _named(device=device)
        made[impl] = (build.build_optimizer(config, named), named)
    return made


def _assert_close(one: list[tuple[str, nn.Parameter]], other: list[tuple[str, nn.Parameter]]) -> None:
    for (name, mine), (_, theirs) in zip(one, other, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-5, atol=2e-6, msg=lambda m, w=name: f"{w}: {m}")


def _assert_same_as_torch(name: str, device: str) -> None:
    pair = _pair(name, device)
    for optimizer, named in pair.values():
        _steps(optimizer, named, range(4))
    _assert_close(pair["torch"][1], pair["apex"][1])
    exported = [export_state(*pair[impl]) for impl in ("torch", "apex")]
    assert exported[0].keys() == exported[1].keys()
    for key, tensor in exported[0].items():
        torch.testing.assert_close(exported[1][key].to(tensor), tensor, rtol=2e-5, atol=2e-6)


def _assert_crosses_over(name: str, source: str, device: str) -> None:
    """A state saved under `source` goes on under the other implementation, and bit for bit under its own."""
    target = "torch" if source == "apex" else "apex"
    pair, again = _pair(name, device), _pair(name, device)
    optimizer, named = pair[source]
    _steps(optimizer, named, range(3))
    state = {key: value.cpu().clone() for key, value in export_state(optimizer, named).items()}
    weights = {key: p.detach().clone() for key, p in named}
    _steps(optimizer, named, range(3, 6))
    for resumed, parameters in (again[source], again[target]):
        _steps(resumed, parameters, range(9, 10))  # something to be overwritten
        for key, p in parameters:
            p.data.copy_(weights[key])
        import_state(resumed, parameters, state)
        _steps(resumed, parameters, range(3, 6))
        _assert_close(named, parameters)
    for (key, mine), (_, theirs) in zip(named, again[source][1], strict=True):
        assert torch.equal(mine, theirs), key


@pytest.mark.parametrize("name", NAMES)
def test_the_fused_optimizer_is_set_up_to_compute_what_torchs_does(name: str, fused: None) -> None:
    _assert_same_as_torch(name, "cpu")


@pytest.mark.parametrize("source", ["torch", "apex"])
@pytest.mark.parametrize("name", NAMES)
def test_a_state_passes_between_apex_and_torch(name: str, source: str, fused: None) -> None:
    _assert_crosses_over(name, source, "cpu")


def test_kernels_that_do_not_load_are_one_line(fused: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def built_for_another_torch(*arguments: object, **keys: object) -> None:
        raise RuntimeError("apex.optimizers.FusedAdam\nrequires cuda extensions")

    monkeypatch.setattr(importlib.import_module("apex.optimizers"), "FusedAdam", built_for_another_torch)
    with pytest.raises(
        UserError, match=r"does not load .*requires cuda extensions.: build it again"
    ) as caught:
        _pair("adam")
    assert "\n" not in str(caught.value)


def test_before_the_first_step_and_for_parameters_left_out(fused: None) -> None:
    optimizer, named = _pair("lamb")["apex"]
    state = export_state(optimizer, named)
    assert set(state) == {f"{name}/unstepped" for name, _ in named}
    import_state(optimizer, named, state)
    _steps(optimizer, named, range(1))
    whole = export_state(optimizer, named)
    named[3][1].grad = None
    with pytest.raises(UserError, match=r"2\.weight has no gradient in this step: use optim\.impl=torch"):
        optimizer.step()
    whole = {key: value for key, value in whole.items() if not key.startswith("2.weight/")}
    with pytest.raises(UserError, match=r"never stepped 2\.weight"):
        import_state(optimizer, named, whole | {"2.weight/unstepped": state["2.weight/unstepped"]})


def test_steps_that_differ_within_a_group_are_refused(fused: None) -> None:
    optimizer, named = _pair("adam")["apex"]
    _steps(optimizer, named, range(2))
    state = export_state(optimizer, named) | {"0.weight/step": torch.tensor(1.0)}
    with pytest.raises(UserError, match="counts 1 steps of some parameters and 2 of others"):
        import_state(optimizer, named, state)


def test_the_config_refuses_what_apex_has_not_and_may_change_on_resume() -> None:
    task = {"name": "siamese", "trunk": "small", "embedding": 16, "loss": "contrastive", "margin": 1.0}
    task |= {"temperature": 0.1, "mirror": False}
    base = {"task": task, "data": Data(order="groups")}
    check(Config(**base, optim=Optim(name="novograd", impl="apex")))
    with pytest.raises(UserError, match=r"optim\.name=rmsprop: NVIDIA Apex has no such optimizer"):
        check(Config(**base, optim=Optim(name="rmsprop", impl="apex")))
    with pytest.raises(UserError, match=r"optim\.impl=apex .* engine=deepspeed"):
        check(Config(**base, optim=Optim(impl="apex"), engine=Engine(name="deepspeed")))
    assert is_free("optim.impl", Config())


@pytest.mark.gpu
@pytest.mark.skipif(not REAL, reason="no NVIDIA Apex with a GPU here")
@pytest.mark.parametrize("name", NAMES)
def test_the_real_apex_agrees_with_torch(name: str) -> None:
    _assert_same_as_torch(name, "cuda")
    for source in ("torch", "apex"):
        _assert_crosses_over(name, source, "cuda")
