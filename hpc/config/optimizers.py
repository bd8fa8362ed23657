"""The one table of optimizers: what each is called, reads and keeps. Imports no torch.

The choices of `optim.name`, the memory line of the plan, the refusals of DeepSpeed and Apex, and the layout
of the state in a checkpoint are taken from it. Construction: `hpc/optim/build.py`, `hpc/optim/apex.py`.
"""

from dataclasses import dataclass

MOMENTUM = "momentum_buffer"


@dataclass(frozen=True)
class Optimizer:
    """One optimizer. Its state in a checkpoint has torch's names."""

    name: str  # optim.name
    kind: str  # name of the class in torch.optim, or in hpc/optim
    reads: tuple[str, ...]  # keys of `optim` besides lr and weight_decay, which every optimizer reads
    moments: tuple[str, ...] = ()  # state as large as the parameter; MOMENTUM comes on top
    norms: tuple[str, ...] = ()  # state of one number for a whole tensor
    counts: bool = False  # keeps a step count for each parameter
    kernels: str = ""  # argument that selects torch's fast kernels: fused | foreach (empty = it has none)
    apex: str = ""  # name of the class in apex.optimizers (empty = Apex has none)
    # One norm of a whole tensor decides the step: ZeRO, which cuts tensors between the ranks, is refused.
    whole_tensors: bool = False

    def moments_with(self, momentum: float) -> tuple[str, ...]:
        """Return the state as large as the parameter under this `optim.momentum`."""
        return (*self.moments, MOMENTUM) if "momentum" in self.reads and momentum else self.moments

    def state_keys(self, momentum: float) -> set[str]:
        """Return the keys of a parameter's state once it was stepped."""
        return {*self.moments_with(momentum), *self.norms, *(("step",) if self.counts else ())}


ADAM = ("exp_avg", "exp_avg_sq")
TABLE = (
    Optimizer("sgd", "SGD", ("momentum", "nesterov"), kernels="fused", apex="FusedSGD"),
    Optimizer("adam", "Adam", ("betas", "eps"), ADAM, counts=True, kernels="fused", apex="FusedAdam"),
    Optimizer("adamw", "AdamW", ("betas", "eps"), ADAM, counts=True, kernels="fused", apex="FusedAdam"),
    Optimizer("lamb", "Lamb", ("betas", "eps"), ADAM, counts=True, apex="FusedLAMB", whole_tensors=True),
    Optimizer(
        "novograd",
        "NovoGrad",
        ("betas", "eps"),
        ("exp_avg",),
        norms=("exp_avg_sq",),
        apex="FusedNovoGrad",
        whole_tensors=True,
    ),
    Optimizer(
        "rmsprop", "RMSprop", ("alpha", "eps", "momentum"), ("square_avg",), counts=True, kernels="foreach"
    ),
)
OPTIMIZERS = {optimizer.name: optimizer for optimizer in TABLE}


def readers(key: str) -> str:
    """Return the names of the optimizers that read a key of `optim`, for its help."""
    return ", ".join(optimizer.name for optimizer in TABLE if key in optimizer.reads)


def of_class(kind: str) -> Optimizer:
    """Return the optimizer whose class, torch's, ours or Apex's, is called `kind`.

    Adam and AdamW share a class in Apex; their state is the same.
    """
    return next(optimizer for optimizer in TABLE if kind in (optimizer.kind, optimizer.apex))
