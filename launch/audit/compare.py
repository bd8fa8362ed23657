"""Two runs side by side: files of their last checkpoints, their TensorBoard series, their metrics."""

import json
from pathlib import Path
from typing import Any

from hpc.checkpoints import manifest

WALL_CLOCK = "perf"  # the only group of scalars that may differ


def last_checkpoint(run: Path) -> Path:
    return sorted(path for path in (run / "checkpoints").iterdir() if path.name.isdigit())[-1]


def series(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Scalars of the run's event files by tag: (images seen, value)."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith(f"{WALL_CLOCK}/")]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def records(run: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl without the wall-clock ones."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line.get("group") != WALL_CLOCK]


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two finished runs, in words; empty: equal bit for bit."""
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
    return wrong


def _first_tensor(one: Path, other: Path) -> str:
    """Name the first tensor in which two files differ."""
    if one.suffix == ".safetensors" and one.exists() and other.exists():
        from safetensors.numpy import load_file

        mine, theirs = load_file(one), load_file(other)
        for name in sorted(mine.keys() | theirs.keys()):
            if name not in mine or name not in theirs:
                return f"{one.name}: {name} is in one of them only"
            if mine[name].tobytes() != theirs[name].tobytes():
                return f"{one.name}: {name} differs by up to {abs(mine[name] - theirs[name]).max():.2e}"
    return f"{one.name} differs"


def _curve(tag: str, mine: list[tuple[int, float]], theirs: list[tuple[int, float]]) -> list[str]:
    steps = [step for step, _ in theirs]
    if steps != sorted(set(steps)):
        return [f"TensorBoard series {tag} is not single-valued"]
    for a, b in zip(mine, theirs, strict=False):
        if a != b:
            return [f"TensorBoard series {tag} differs at {a[0]} images: {a[1]!r} and {b[1]!r}"]
    return [f"TensorBoard series {tag} has {len(mine)} and {len(theirs)} points"] * (len(mine) != len(theirs))


def state_parts(run: Path) -> set[str]:
    """Which of optim, ema and task the last checkpoint holds anything of."""
    from safetensors.numpy import load_file

    folder = last_checkpoint(run)
    held = {path.name.partition("-")[0] for path in folder.glob("*-*.safetensors") if load_file(path)}
    if json.loads((folder / "state.json").read_text())["task"] or load_file(folder / "task.safetensors"):
        held.add("task")
    return held & {"optim", "ema", "task"}


def elastic_differences(one: Path, other: Path, tolerance: float) -> tuple[list[str], float]:
    """Same sample ids at the same positions, and weights within `tolerance`; (what is wrong, distance)."""
    import numpy as np
    from safetensors.numpy import load_file

    seen = [[line for line in records(run) if line["group"] == "data"] for run in (one, other)]
    wrong = [] if seen[0] and seen[0] == seen[1] else ["the runs saw other samples"]
    distance = 0.0
    for file in sorted(last_checkpoint(one).glob("player-*.safetensors")):
        mine, theirs = load_file(file), load_file(last_checkpoint(other) / file.name)
        flat = [
            np.concatenate([t[name].astype("f8").ravel() for name in sorted(mine)]) for t in (mine, theirs)
        ]
        distance = max(distance, float(np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[0])))
    if distance > tolerance:
        wrong.append(f"weights differ by {distance:.1e}, allowed {tolerance:.0e}")
    return wrong, distance
