"""Compare two runs: the files of their last checkpoints, their series, their metrics, kept images."""

import json
from pathlib import Path
from typing import Any

from hpc.checkpoints import manifest

WALL_CLOCK = "perf"  # the only group of scalars that may differ


def last_checkpoint(run: Path) -> Path:
    """Return the folder of the newest checkpoint."""
    return sorted(path for path in (run / "checkpoints").iterdir() if path.name.isdigit())[-1]


def series(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the scalars of the run's event files by tag: (images seen, value)."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith(f"{WALL_CLOCK}/")]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def records(run: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl without the wall-clock ones."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line.get("group") != WALL_CLOCK]


def samples(run: Path) -> dict[str, bytes]:
    """Return the grids of images that a run has kept, by their place in it."""
    return {str(path.relative_to(run)): path.read_bytes() for path in (run / "samples").glob("*/*.png")}


def differences(one: Path, other: Path) -> list[str]:
    """Return what differs between two finished runs, in words (empty = equal bit for bit)."""
    wrong = []
    first, second = last_checkpoint(one), last_checkpoint(other)
    if first.name != second.name:
        return [f"the last checkpoints are of clocks {first.name} and {second.name}"]
    hashes = [manifest.read(path)["files"] for path in (first, second)]
    for name in sorted(hashes[0].keys() | hashes[1].keys()):
        if hashes[0].get(name) != hashes[1].get(name):
            wrong.append(_first_tensor(first / name, second / name))
    curves = [series(one), series(other)]
    for tag in sorted(curves[0].keys() | curves[1].keys()):
        wrong += _curve(tag, curves[0].get(tag, []), curves[1].get(tag, []))
    if records(one) != records(other):
        wrong.append("metrics.jsonl differs")
    shown = [samples(one), samples(other)]
    wrong += [f"{name} differs" for name in sorted(dict(shown[0].items() ^ shown[1].items()))]
    return wrong


def _first_tensor(one: Path, other: Path) -> str:
    """Name the first tensor in which two files differ."""
    if one.suffix == ".safetensors" and one.exists() and other.exists():
        from safetensors.numpy import load_file

        first, second = load_file(one), load_file(other)
        for name in sorted(first.keys() | second.keys()):
            if name not in first or name not in second:
                return f"{one.name}: {name} is in one of them only"
            if first[name].tobytes() != second[name].tobytes():
                return f"{one.name}: {name} differs by up to {abs(first[name] - second[name]).max():.2e}"
    return f"{one.name} differs"


def _curve(tag: str, one: list[tuple[int, float]], other: list[tuple[int, float]]) -> list[str]:
    """Name the first point in which two series differ."""
    steps = [step for step, _ in other]
    if steps != sorted(set(steps)):
        return [f"TensorBoard series {tag} is not single-valued"]
    for a, b in zip(one, other, strict=False):
        if a != b:
            return [f"TensorBoard series {tag} differs at {a[0]} images: {a[1]!r} and {b[1]!r}"]
    return [f"TensorBoard series {tag} has {len(one)} and {len(other)} points"] * (len(one) != len(other))


def state_parts(run: Path) -> set[str]:
    """Return which of optim, ema and task have state in the last checkpoint."""
    from safetensors.numpy import load_file

    folder = last_checkpoint(run)
    parts = {path.name.partition("-")[0] for path in folder.glob("*-*.safetensors") if load_file(path)}
    if json.loads((folder / "state.json").read_text())["task"] or load_file(folder / "task.safetensors"):
        parts.add("task")
    return parts & {"optim", "ema", "task"}


def _other_samples(one: Path, other: Path) -> list[str]:
    seen = [[line for line in records(run) if line["group"] == "data"] for run in (one, other)]
    return [] if seen[0] and seen[0] == seen[1] else ["the runs saw other samples"]


def first_differences(one: Path, other: Path, tolerance: float) -> tuple[list[str], float]:
    """Compare sample ids by position, and each loss where it first differs, within `tolerance` of its value.

    Those are the first updates after a resume on another number of ranks: of a chaotic task no more can be
    compared. Returns (what differs, distance).
    """
    wrong, distance = _other_samples(one, other), 0.0
    curves = [series(run) for run in (one, other)]
    for tag in sorted(tag for tag in curves[0] if tag.startswith("loss/")):
        pairs = zip(curves[0][tag], curves[1].get(tag, []), strict=False)
        (_, a), (_, b) = next((pair for pair in pairs if pair[0] != pair[1]), ((0, 0.0), (0, 0.0)))
        distance = max(distance, abs(a - b) / max(abs(a), 1e-12))
        if not distance <= tolerance:
            wrong.append(f"{tag} differs by {distance:.1e} at once, allowed {tolerance:.0e}")
    return wrong, distance


def elastic_differences(one: Path, other: Path, tolerance: float) -> tuple[list[str], float]:
    """Compare sample ids by position, and weights within `tolerance`; return (what differs, distance)."""
    import numpy as np

    from hpc.checkpoints import store

    wrong = _other_samples(one, other)
    distance = 0.0
    first, second = (
        store.read(last_checkpoint(run), verified=True, parts=["player"]).players for run in (one, other)
    )
    for player in sorted(first):
        pair = first[player], second[player]
        flat = [
            np.concatenate([t[name].double().flatten().numpy() for name in sorted(pair[0])]) for t in pair
        ]
        distance = max(distance, float(np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[0])))
    if distance > tolerance:
        wrong.append(f"weights differ by {distance:.1e}, allowed {tolerance:.0e}")
    return wrong, distance
