"""Age and gender from one image: a value and a class, judged by the library's evaluators."""

from typing import Any

from torch import Tensor, nn

from hpc.evaluation.classes import Classes
from hpc.evaluation.values import Values
from hpc.task import Batch, Phase, Task
from models.backbones import build_trunk


class Ages(Task):
    """Predicts an age, and the logits of two genders."""

    metric = ("age/mae", "min")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.evaluators = {
            "age": lambda: Values("age", unit="years"),
            "gender": lambda: Classes("gender", names=("female", "male")),
        }

    def players(self) -> dict[str, nn.Module]:
        trunk, features = build_trunk("small")
        return {"net": nn.Sequential(trunk, nn.Linear(features, 3))}

    def phases(self, clock: int) -> list[Phase]:
        return [Phase("age", "net")]

    def loss(self, phase: Phase, nets: dict[str, nn.Module], batch: Batch, clock: int) -> Tensor:
        found = self.predict(nets, batch)
        return nn.functional.l1_loss(found["age"], batch.labels["age"].float())

    def predict(self, nets: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        found = nets["net"](batch.images["image"]).float()
        return {"age": 30 + 10 * found[:, 0], "gender": found[:, 1:]}


def build(config: Any) -> Ages:
    """Build the task; `hpc.task.build_task` calls it."""
    return Ages(config)
