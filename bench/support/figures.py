"""What the benches share that prints and sums up: words, medians, ratios, tables. Imports no torch."""

import argparse
import statistics
from collections.abc import Mapping, Sequence

Rows = Mapping[str, Sequence[float]]  # variant -> one figure a round


def arguments(doc: str | None, **defaults: int | tuple[int, str]) -> argparse.Namespace:
    """Read the command line: whole numbers with their defaults, and what they mean where that is said."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, given in defaults.items():
        default, meaning = given if isinstance(given, tuple) else (given, None)
        parser.add_argument(f"--{name}", type=int, default=default, help=meaning)
    return parser.parse_args()


def medians(rows: Rows) -> dict[str, float]:
    """Return the median of each variant."""
    return {name: statistics.median(values) for name, values in rows.items()}


def medians_of_columns(rows: Mapping[str, Sequence[tuple[float, ...]]]) -> dict[str, list[float]]:
    """Return the medians of each variant that has several figures a round."""
    return {
        name: [statistics.median(column) for column in zip(*values, strict=True)]
        for name, values in rows.items()
    }


def ratio(rows: Rows, above: str, *below: str) -> float:
    """Return the median of the ratios within a round, to the slowest of `below`.

    The machine's speed drifts between rounds.
    """
    pairs = zip(rows[above], *(rows[name] for name in below), strict=True)
    return statistics.median(figure / max(others) for figure, *others in pairs)


def show(
    head: str,
    seconds: Mapping[str, float],
    ratios: Mapping[str, float],
    bars: Mapping[str, float],
    *,
    column: str = "ms a step",
) -> bool:
    """Print a table of seconds, and of ratios with the bars that they may not exceed; return whether all pass."""
    print(f"| {head:<34} | {column} |\n|{'-' * 36}|{'-' * (len(column) + 2)}|")
    for name, value in seconds.items():
        print(f"| {name:<34} | {1000 * value:{len(column)}.1f} |")
    for name, value in ratios.items():
        print(f"| {name:<34} | {value:6.3f}{f' (bar {bars[name]})' if name in bars else ''} |")
    return all(ratios[name] <= bar for name, bar in bars.items())
