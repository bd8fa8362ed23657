"""A player: what one optimizer updates, with its engine, its average and its batch norm layers."""

import torch
from torch import Tensor, nn

from hpc import checkpoint, engine, faults, norm, optim
from hpc.config import Config
from hpc.dist import Dist
from hpc.ema import Ema


class Player:
    """One network of a task, ready to be trained on this rank."""

    def __init__(self, name: str, module: nn.Module, config: Config, here: Dist) -> None:
        self.name, self.config, self.here = name, config, here
        norm.convert(module, mode=config.norm_stats, group=config.norm_group, here=here)
        module = module.to(here.device)
        if config.channels_last:
            for tensor in (*module.parameters(), *module.buffers()):
                if tensor.dim() == 4:
                    tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
        self.module = module.train()
        self.layers = norm.norms(module)
        self.ema = Ema(module, config.ema.half_life, config.ema.rampup) if config.ema.half_life else None
        if config.compile:
            module.compile()
        self.engine = engine.build(config.engine.name, module, here, bucket_mb=config.engine.bucket_mb)
        self.named = self.engine.named
        self.optimizer = optim.build(config.optim, self.named)

    @property
    def evaluated(self) -> nn.Module:
        """The module that evaluations see: the average where one is kept."""
        return self.ema.module if self.ema else self.module

    def norm_of_gradient(self) -> Tensor:
        """Euclidean norm over all gradients, a scalar on the device; the same on all ranks after
        `engine.reduce`.
        """
        grads = self.engine.gradients()
        return torch.nn.utils.get_total_norm(grads) if grads else torch.zeros((), device=self.here.device)

    def update(self, rate: float, gradient_norm: Tensor) -> None:
        """Clip, step, and commit the batch norm statistics of the passes that led here."""
        if self.config.optim.clip:
            parameters = [p for _, p in self.named if p.grad is not None]
            torch.nn.utils.clip_grads_with_norm_(parameters, self.config.optim.clip, gradient_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        norm.commit(self.layers, self.here)

    def forget_pass(self) -> None:
        """Drop gradients and statistics of a pass that was only a warm-up."""
        self.optimizer.zero_grad(set_to_none=True)
        norm.discard(self.layers)

    def save_to(self, target: checkpoint.Checkpoint) -> None:
        target.players[self.name] = self.module.state_dict()
        target.optim[self.name] = optim.export_state(self.optimizer, self.named)
        if self.ema:
            target.ema[self.name] = self.ema.state()

    def load_from(self, source: checkpoint.Checkpoint) -> None:
        checkpoint.load_module(self.module, source.players[self.name], f"player {self.name}")
        if not faults.forgotten("optim"):
            optim.import_state(self.optimizer, self.named, source.optim[self.name])
        if self.ema and not faults.forgotten("ema"):
            self.ema.load_state(source.ema[self.name])

    def checksums(self) -> list[int]:
        """One integer for each tensor of the module: equal on ranks that are in step."""
        sums = []
        for tensor in self.module.state_dict().values():
            raw = tensor.detach().contiguous().reshape(-1)
            raw = raw.view(torch.int32) if raw.dtype == torch.float32 else raw.to(torch.int64)
            sums.append(raw.sum(dtype=torch.int64))
        return torch.stack(sums).tolist()

    def tensor_names(self) -> list[str]:
        return [f"{self.name}.{name}" for name in self.module.state_dict()]
