"""Packages called `apex` for tests, of every kind that a machine may have.

The stand-in for NVIDIA's computes the same updates in plain torch on the CPU, behind the interface that its
documentation states: one step count for a group, NovoGrad's norms in a list, a zero_grad without arguments,
gradient clipping and other defaults that differ from ours.
"""

from pathlib import Path

OPTIMIZERS = """
import torch


class _Fused(torch.optim.Optimizer):
    def zero_grad(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            for place, p in enumerate(group["params"]):
                if p.grad is not None:
                    self.one(group, place, p, p.grad)

    def moments(self, group, p, grad):
        state, (beta1, beta2), t = self.state[p], group["betas"], group["step"]
        if not state:
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
        m, v = state["exp_avg"], state["exp_avg_sq"]
        m.mul_(beta1).add_(grad, alpha=1 - beta1)
        v.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        return m / (1 - beta1**t) / ((v / (1 - beta2**t)).sqrt() + group["eps"])


class FusedAdam(_Fused):
    def __init__(self, params, lr=1e-3, bias_correction=True, betas=(0.9, 0.999), eps=1e-8, adam_w_mode=True,
                 weight_decay=0.0, amsgrad=False, set_grad_none=True):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))
        self.adam_w_mode = adam_w_mode

    def one(self, group, place, p, grad):
        if self.adam_w_mode:
            step = self.moments(group, p, grad) + group["weight_decay"] * p
        else:
            step = self.moments(group, p, grad + group["weight_decay"] * p)
        p.sub_(step, alpha=group["lr"])


class FusedLAMB(_Fused):
    def __init__(self, params, lr=1e-3, bias_correction=True, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.01,
                 amsgrad=False, adam_w_mode=True, grad_averaging=True, set_grad_none=True, max_grad_norm=1.0,
                 use_nvlamb=False):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))
        self.max_grad_norm, self.use_nvlamb = max_grad_norm, use_nvlamb

    def one(self, group, place, p, grad):
        everything = torch.cat([q.grad.flatten() for g in self.param_groups for q in g["params"]])
        clip = max(everything.norm().item() / self.max_grad_norm, 1.0)
        step = self.moments(group, p, grad / clip) + group["weight_decay"] * p
        ratio = 1.0
        if (self.use_nvlamb or group["weight_decay"]) and p.norm() > 0 and step.norm() > 0:
            ratio = p.norm() / step.norm()
        p.sub_(ratio * step * group["lr"])


class FusedSGD(_Fused):
    def __init__(self, params, lr, momentum=0, dampening=0, weight_decay=0, nesterov=False,
                 wd_after_momentum=False):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov))

    def one(self, group, place, p, grad):
        grad = grad + group["weight_decay"] * p
        momentum, state = group["momentum"], self.state[p]
        state.setdefault("momentum_buffer", torch.zeros_like(p)).mul_(momentum).add_(grad)
        p.sub_(grad + momentum * state["momentum_buffer"] if group["nesterov"] else state["momentum_buffer"],
               alpha=group["lr"])


class FusedNovoGrad(_Fused):
    def __init__(self, params, lr=1e-3, bias_correction=True, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0,
                 amsgrad=False, reg_inside_moment=False, grad_averaging=True, norm_type=2, init_zero=False,
                 set_grad_none=True):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))
        self.correct, self.inside, self.averaging, self.zero = (
            bias_correction, reg_inside_moment, grad_averaging, init_zero)

    def one(self, group, place, p, grad):
        beta1, beta2 = group["betas"]
        t = group["step"] if self.correct else 1e9
        if "exp_avg_sq" not in group:
            first = torch.stack([q.grad.norm() * (not self.zero) for q in group["params"]])
            group["exp_avg_sq"] = [first[:0], first]
        norms = group["exp_avg_sq"][1]
        norms[place] = (beta2 * norms[place] ** 2 + (1 - beta2) * grad.norm() ** 2).sqrt()
        scale = norms[place] / (1 - beta2**t) ** 0.5 + group["eps"]
        state, factor = self.state[p], 1 - beta1 if self.averaging else 1.0
        m = state.setdefault("exp_avg", torch.zeros_like(p))
        if self.inside:
            step = m.mul_(beta1).add_(grad / scale + group["weight_decay"] * p, alpha=factor) / (1 - beta1**t)
        else:
            step = m.mul_(beta1).add_(grad, alpha=factor) / (1 - beta1**t) / scale + group["weight_decay"] * p
        p.sub_(step, alpha=group["lr"])
"""


def install(folder: Path, *, kind: str) -> Path:
    """Make a folder for sys.path. kind: nvidia | no kernels | unrelated | overwritten | namespace."""
    package = folder / "apex"
    package.mkdir(parents=True)
    if kind != "namespace":
        text = "raise ImportError('must not be imported')\n" if kind == "unrelated" else ""
        (package / "__init__.py").write_text(text)
    if kind in ("nvidia", "no kernels"):
        for name in ("optimizers", "multi_tensor_apply"):
            (package / name).mkdir()
        (package / "multi_tensor_apply" / "__init__.py").write_text("")
        (package / "optimizers" / "__init__.py").write_text(OPTIMIZERS)
    if kind in ("nvidia", "overwritten"):
        (folder / "amp_C.py").write_text("raise ImportError('needs a GPU')\n")
    return folder
