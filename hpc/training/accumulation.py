"""The forward and backward passes of one phase: micro batches, and gradient caching for coupled losses.

A per-sample loss is accumulated with the weight of each micro batch. A coupled loss looks at the whole global
batch; over several micro batches it runs twice (Gao et al. 2021, "Scaling deep contrastive learning batch
size under memory limited setup"): all outputs without a graph, the loss and its gradient with respect to the
outputs, then each micro batch again with that gradient. A counted seed for each micro batch gives both passes
the same dropout.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from data_shards.errors import UserError
from hpc.engines.base import Engine
from hpc.engines.batch_norm import collecting, norms
from hpc.task import Batch, Phase, Task


class BackwardPass:
    """The passes of one phase over this rank's share of a batch."""

    def __init__(
        self,
        task: Task,
        phase: Phase,
        engines: dict[str, Engine],
        *,
        clock: int,
        seed: Callable[[int], None],
        autocast: Callable[[], AbstractContextManager],
        set_loss_weight: Callable[[float], None] = lambda share: None,
        helpers: Mapping[str, nn.Module] | None = None,
    ) -> None:
        """`set_loss_weight` receives the share of the batch that the next reported scalars stand for.

        `helpers` are the networks of the task that nothing trains (None = it has none).
        """
        self.task, self.phase, self.clock, self.seed, self.autocast = task, phase, clock, seed, autocast
        self.set_loss_weight = set_loss_weight
        self.engine = engines[phase.player]
        if phase.second_order and not self.engine.second_order:
            raise UserError(
                f"phase {phase.name} differentiates twice, which this engine computes wrongly: use "
                "engine=flat"
            )
        self.raw: dict[str, nn.Module] = {name: engine.module for name, engine in engines.items()}
        self.raw |= helpers or {}
        self.nets = self.raw | {phase.player: self.engine.net}  # other players' networks are called unwrapped
        collect = not phase.second_order if phase.collect is None else phase.collect
        # Only the phase's own player collects: statistics of another would be committed after they are saved.
        self.layers = norms(self.engine.module) if collect else []

    def backward(self, batch: Batch, blocks: list[slice]) -> Tensor:
        """Leave the gradients of this rank's share in the parameters; return its loss, detached."""
        self.set_loss_weight(1.0)
        with collecting(self.layers):
            if self.phase.coupled and len(blocks) > 1:
                return self._cached(batch, blocks)
            if self.phase.coupled:
                return self._coupled(batch)
            return self._summed(batch, blocks)

    def _summed(self, batch: Batch, blocks: list[slice]) -> Tensor:
        total = torch.zeros((), device=batch.device)
        for index, block in enumerate(blocks):
            self.seed(index)
            part = batch[block]
            share = len(part) / len(batch)
            self.set_loss_weight(share)
            with self.engine.micro(last=index == len(blocks) - 1):
                with self.autocast():
                    loss = self.task.loss(self.phase, self.nets, part, self.clock)
                loss = loss * share
                self.engine.backward(loss)
            total += loss.detach()
        return total

    def _coupled(self, batch: Batch) -> Tensor:
        self.seed(0)
        with self.engine.micro(last=True):
            with self.autocast():
                outputs = self.task.forward(self.phase, self.nets, batch, self.clock)
            loss = self.task.couple(self.phase, self.nets, outputs.float(), batch, self.clock)
            self.engine.backward(loss)
        return loss.detach()

    def _cached(self, batch: Batch, blocks: list[slice]) -> Tensor:
        outputs = []
        for index, block in enumerate(blocks):
            self.seed(index)
            self.set_loss_weight(len(batch[block]) / len(batch))
            with torch.no_grad(), self.autocast():
                outputs.append(self.task.forward(self.phase, self.raw, batch[block], self.clock).float())
        leaf = torch.cat(outputs).requires_grad_()
        self.set_loss_weight(1.0)
        loss = self.task.couple(self.phase, self.raw, leaf, batch, self.clock)
        rest = self.engine.backward_cached(loss, leaf)
        assert leaf.grad is not None
        self.set_loss_weight(0.0)  # what is reported in the second pass was counted in the first one
        with collecting(self.layers, on=False):
            for index, block in enumerate(blocks):
                self.seed(index)
                last = index == len(blocks) - 1
                with self.engine.micro(last=last):
                    with self.autocast():
                        again = self.task.forward(self.phase, self.nets, batch[block], self.clock)
                    surrogate = (again.float() * leaf.grad[block]).sum()
                    if last:
                        surrogate = surrogate + rest()
                    self.engine.backward(surrogate)
        return loss.detach()


def blocks_of(count: int, micro: int) -> list[slice]:
    """Cover `count` rows with consecutive slices of at most `micro` rows (0 = one slice)."""
    size = micro or count
    return [slice(first, min(first + size, count)) for first in range(0, count, size)]
