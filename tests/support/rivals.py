"""A job of two players, each trained through the other one's network."""

from torch import Tensor, nn

from hpc.task import Batch, Phase, Task


class Rivals(Task):
    """Two players with batch norm: each phase passes through both, and the images do so too."""

    def players(self) -> dict[str, nn.Module]:
        return {
            "G": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1)),
            "D": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1)),
        }

    def phases(self, clock: int) -> list[Phase]:
        return [Phase("make", "G"), Phase("judge", "D")]

    def loss(self, phase: Phase, nets: dict[str, nn.Module], batch: Batch, clock: int) -> Tensor:
        score = nets["D"](nets["G"](batch.images["image"])).mean()
        return (score - 1.0 if phase.player == "G" else score).square()

    def images(self, nets: dict[str, nn.Module], batch: Batch, clock: int) -> dict[str, Tensor]:
        nets["D"](nets["G"](batch.images["image"]))
        return {}
