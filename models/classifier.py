"""A classifier: one backbone, dropout, and a linear head for each label."""

from collections.abc import Mapping

from torch import Tensor, nn


class Classifier(nn.Module):
    """Images [n, 3, h, w] in [-1, 1] -> {head: outputs [n, k]}, in fp32.

    backbone: images -> features [n, features]; heads: name -> k
    """

    def __init__(
        self, backbone: nn.Module, features: int, heads: Mapping[str, int], *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleDict({name: nn.Linear(features, outputs) for name, outputs in heads.items()})
        for head in self.heads.values():
            nn.init.normal_(head.weight, std=0.01)  # type: ignore[arg-type]
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.dropout(self.backbone(images))
        return {name: head(features).float() for name, head in self.heads.items()}
