"""A player: the network that one optimizer updates, with its engine, average and batch norm layers."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hpc.config.players import ema_of, optim_of
from hpc.config.schema import Config
from hpc.distributed.comm import Comm
from hpc.engines import batch_norm, factory, sharded
from hpc.engines.sharded import Rows
from hpc.optim import build
from hpc.optim.ema import Ema
from hpc.optim.groups import Groups, freeze
from hpc.optim.state import reset_state
from hpc.training import fault_injection


class PlayerState(NamedTuple):
    """What a checkpoint keeps of a player: tensors by parameter name."""

    weights: dict[str, Tensor]
    optim: dict[str, Tensor]
    ema: dict[str, Tensor] | None  # None = no average is kept
    rows: dict[str, Rows] = {}  # noqa: RUF012 - of sharded tensors, of which the others hold this rank's rows


class Player:
    """One network of a task, ready to be trained on this rank."""

    def __init__(
        self, name: str, module: nn.Module, config: Config, comm: Comm, groups: Groups | None = None
    ) -> None:
        """groups: settings of parameters by patterns of their names (None = none)"""
        self.name, self.config, self.comm = name, config, comm
        groups = groups or {}
        batch_norm.convert(module, mode=config.norm_stats, group=config.norm_group, comm=comm)
        freeze(module, groups, name)
        module = module.to(comm.device)
        if config.channels_last and config.engine.name != "deepspeed":  # DeepSpeed stores parameters flat
            for tensor in (*module.parameters(), *module.buffers()):
                if tensor.dim() == 4:
                    tensor.data = _channels_last(tensor.data)
        self.module = module  # each layer keeps its mode: one that the task put into eval mode stays frozen
        self.layers = batch_norm.norms(module)
        self._trainable = [p for p in module.parameters() if p.requires_grad]
        self.optim, average = optim_of(config, name), ema_of(config, name)
        self.ema = Ema(module, average.half_life, average.rampup) if average.half_life else None
        if config.compile:
            module.compile()
        self.engine = factory.build_engine(
            config.engine.name, module, comm, bucket_mb=config.engine.bucket_mb, config=config
        )
        self.named = self.engine.named
        self.size = sharded.size(module, self.engine.rows)
        self.optimizer = build.build_optimizer(self.optim, self.named, groups)
        self.engine.attach(self.optimizer)
        self.rate = 0.0  # of the last update, whether it had a step of this player or not

    @property
    def evaluated(self) -> nn.Module:
        """Return the module that evaluations use: the average where one is kept. All ranks ask for it."""
        if self.ema is None:
            return self.engine.whole()
        self.engine.sync_full(self.ema)
        return self.ema.module

    def receive_gradients(self, on: bool) -> None:
        """Let passes leave gradients in the parameters, or not; parameters that the task froze get none."""
        for p in self._trainable:
            p.requires_grad_(on)

    def norm_of_gradient(self) -> Tensor:
        """Return the Euclidean norm over all gradients (`Engine.norm`); all ranks call it."""
        return self.engine.norm()

    def update(
        self,
        rate: float,
        gradient_norm: Tensor,
        decays: Mapping[str, Any] | None = None,
        biases: float | None = None,
    ) -> None:
        """Clip, step, and commit the batch norm statistics of the passes that led here.

        decays: betas, momentum or alpha of this step (None = as they are)
        biases: their learning rate, where they have groups of their own (None = as of all others)
        Where the norm, which is equal on all ranks, is not finite, weights, moments and statistics stay
        finite. The average follows them.
        """
        finite = torch.isfinite(gradient_norm)
        for group in self.optimizer.param_groups:
            group.update(decays or {})
            own = biases if biases is not None and group.get("bias") else rate
            group["lr"] = own * group.get("scale", 1.0)
        self.engine.step(self.optimizer, self.optim.clip, gradient_norm, finite)
        batch_norm.commit(self.layers, self.comm, finite)

    def average(self, clock: int, batch: int) -> None:
        """Move the average, if one is kept, after an update of `batch` images that ended at `clock`."""
        if self.ema:
            self.engine.average(self.ema, clock, batch)

    def reset_moments(self) -> None:
        """Let the optimizer forget its moments and step counts, as before the first update."""
        reset_state(self.optimizer)

    def forget_pass(self) -> None:
        """Drop the gradients and statistics of a pass that was only a warm-up."""
        self.optimizer.zero_grad(set_to_none=True)
        batch_norm.discard(self.layers)

    def state(self) -> PlayerState:
        """Return the whole state on rank 0, and this rank's part of it elsewhere; all ranks call it.

        Of sharded tensors every rank returns its own rows.
        """
        weights, optim = self.engine.whole().state_dict(), self.engine.export_optim(self.optimizer)
        if self.ema:
            self.engine.sync_full(self.ema)
        return PlayerState(weights, optim, self.ema.state() if self.ema else None, self.engine.rows)

    def load_state(self, state: PlayerState) -> None:
        """Restore what `state` returned, less the parts that a negative control leaves out."""
        self.engine.load(state.weights, f"player {self.name}")
        if not fault_injection.skip_restore("optim"):
            self.engine.import_optim(self.optimizer, state.optim)
        if self.ema and state.ema is not None and not fault_injection.skip_restore("ema"):
            self.ema.load_state(state.ema)

    def checksums(self) -> dict[str, int]:
        """Return one integer for each tensor that is the same on ranks that are in step, by its full name."""
        return {f"{self.name}.{name}": value for name, value in self.engine.checksums().items()}


def _channels_last(tensor: Tensor) -> Tensor:
    """Return a copy with channels-last strides, those of a 1x1 kernel included.

    `contiguous` leaves a 1x1 kernel as it is, since its memory is the same in both layouts; its gradient has
    the other strides, and DDP then warns and copies it piece by piece.
    """
    return torch.empty_like(tensor, memory_format=torch.channels_last).copy_(tensor)
