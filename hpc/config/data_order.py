"""The order that the keys under `data` select, in words. Imports neither torch nor numpy.

What it draws: `hpc/data/orders.py`.
"""

from hpc.config.schema import Data


def describe(data: Data) -> str:
    """Say in a few words which order the keys select, for plan and log."""
    texts = {
        "groups": f"groups of {data.group}",
        "weighted": f"weighted by {data.weights}",
        "balanced": f"balanced over {data.balance}",
        "mixed": f"mixed {data.mix}",
    }
    text = texts.get(data.order, data.order)
    return text if data.rows == Data().rows else f"{text}, rows {data.rows}"
