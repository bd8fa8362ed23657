"""What holds for the networks of all generative families: memory layout, bf16, copies, repeated passes."""

import copy

import pytest
import torch

from tests.support.generative import FAMILIES


def build(name, dtype=torch.float64):
    torch.manual_seed(0)
    net, inputs, call = FAMILIES[name]()
    net.to(dtype)
    return net, inputs.to(dtype), call


@pytest.mark.parametrize("name", FAMILIES)
def test_the_memory_layout_changes_neither_outputs_nor_gradients(name):
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        net, inputs, call = build(name)
        net.to(memory_format=layout)
        if inputs.dim() == 4:
            inputs = inputs.to(memory_format=layout)
        output = call(inputs.requires_grad_())
        output.square().sum().backward()
        results.append(
            [output.detach(), inputs.grad] + [p.grad for p in net.parameters() if p.grad is not None]
        )
    assert len(results[0]) == len(results[1])
    for plain, last in zip(*results, strict=True):
        torch.testing.assert_close(plain, last, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", FAMILIES)
def test_bf16_is_near_float32(name):
    net, inputs, call = build(name, torch.float32)
    exact = call(inputs).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = call(inputs)
        output.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)
    assert (output.float() - exact).abs().mean() < 0.15 * exact.abs().mean().clamp(min=0.1)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_copy_has_all_that_a_network_is(name):
    net, inputs, call = build(name)
    state = copy.deepcopy(net.state_dict())
    torch.manual_seed(1)
    other, _, other_call = FAMILIES[name]()
    other.double().load_state_dict(state)
    for module in (net, other, copied := copy.deepcopy(net)):
        module.eval()
    with torch.no_grad():
        torch.testing.assert_close(other_call(inputs), call(inputs), rtol=0, atol=0)
    assert [n for n, _ in copied.named_parameters()] == [n for n, _ in net.named_parameters()]
    shared = {id(p) for p in net.parameters()} & {id(p) for p in copied.parameters()}
    assert not shared


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
@pytest.mark.parametrize("name", FAMILIES)
def test_passes_on_a_gpu_repeat_bit_for_bit(name):
    results = []
    was = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(2):
            net, inputs, call = build(name, torch.float32)
            net.cuda()
            x = inputs.cuda().requires_grad_()
            (slope,) = torch.autograd.grad(call(x).sum(), x, create_graph=True)
            slope.square().sum().backward()
            results.append([slope.detach()] + [p.grad for p in net.parameters() if p.grad is not None])
    finally:
        torch.use_deterministic_algorithms(was)
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)
