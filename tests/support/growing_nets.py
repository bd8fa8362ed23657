"""What holds for networks that grow, whichever family they are of."""

from torch import Tensor, nn

from models.equalised import double


def gap_below(make: object, level: int) -> Tensor:
    """Return by how much a level at fade 0 differs from the finished one below it, doubled: a maximum.

    make: (level, fade) -> images [n, 3, s, s]
    """
    return (make(level, 0.0) - double(make(level - 1, 1.0))).abs().max()  # type: ignore[operator]


def without_gradient(net: nn.Module) -> set[str]:
    """Names of the parts, such as `blocks.2`, none of whose parameters has a gradient."""
    parts: dict[str, bool] = {}
    for name, parameter in net.named_parameters():
        words = name.split(".")
        part = ".".join(words[:2]) if words[1:] and words[1].isdigit() else words[0]
        parts[part] = parts.get(part, False) or parameter.grad is not None
    return {part for part, has in parts.items() if not has}
