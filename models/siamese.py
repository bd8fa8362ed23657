"""The siamese network: one trunk for both images (Chopra et al. 2005), a linear embedding of length 1.

Losses over pairs are in `hpc/losses/pairs.py`. The optional head judges |a - b| (Koch et al. 2015).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PairScore(nn.Module):
    """Scores embeddings a and b [n, d] -> [n]: the probability of `head`, or the cosine."""

    def __init__(self, head: nn.Linear | None) -> None:
        super().__init__()
        self.head = head

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        if self.head is None:
            return F.cosine_similarity(a, b, dim=1)
        return torch.sigmoid(self.head((a - b).abs())).squeeze(1)


class SiameseNet(nn.Module):
    """Images [n, 3, h, w] in [-1, 1] -> unit embeddings [n, embedding], float32 also under autocast."""

    def __init__(self, trunk: nn.Module, features: int, embedding: int = 128, *, head: bool = False) -> None:
        super().__init__()
        self.trunk = trunk
        self.embed = nn.Linear(features, embedding)
        nn.init.xavier_normal_(self.embed.weight)  # no ReLU behind it
        nn.init.zeros_(self.embed.bias)
        self.head = nn.Linear(embedding, 1) if head else None
        if self.head is not None:
            # |a - b|_1 is near 1.13 sqrt(embedding) for random unit vectors, 0 for equal ones.
            nn.init.constant_(self.head.weight, -1.0)
            nn.init.constant_(self.head.bias, 0.5 * embedding**0.5)

    def forward(self, images: Tensor) -> Tensor:
        # A bf16 embedding would round cosines to 1/256: the normalisation runs in float32.
        return F.normalize(self.embed(self.trunk(images)).float(), dim=1)

    def same(self, a: Tensor, b: Tensor) -> Tensor:
        """Logits [...] of "one person" for embeddings a and b [..., embedding], which broadcast."""
        if self.head is None:
            raise ValueError("this network has no head: build it with head=True (task.loss=bce)")
        with torch.autocast(a.device.type, enabled=False):
            return self.head((a.float() - b.float()).abs()).squeeze(-1)
