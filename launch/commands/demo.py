"""`rostro demo`, `make demo`: run a whole job by the real commands: pack, submit, evaluate.

Without data it draws faces of people who do not exist and fails unless the network is at least twice as good
as plain pixels on people that it has not seen. The figures are those of `rostro evaluate`.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from launch.options.key_value import parse
from launch.options.option import Option, option_lines

OPTIONS = {
    "data": Option(
        "", "your own images: a folder with one folder a person, or LFW as unpacked; no verdict then"
    ),
    "identities": Option(250, "people drawn: a tenth chooses checkpoint and threshold, a tenth is judged"),
    "per_identity": Option(12, "images of each"),
    "images": Option(32_000, "length of the training, in images seen"),
    "procs": Option(2, "ranks"),
    "seed": Option(0, "seed of the split and of the training"),
    "out": Option("demo", "folder of the packed sets; a set that is there is used again"),
    "runs": Option("runs", "folder of the run directories"),
}
HELP = f"""
usage: rostro demo [key=value ...]                            (the same: make demo, make demo DATA=FOLDER)

Draws faces, packs them, trains the siamese network on them with 2 ranks, and evaluates it on people that it
has not seen. It takes a few minutes on 2 cores. The exit code is 1 unless the network's equal error rate is
at most half that of plain pixels.

{option_lines(OPTIONS)}

example: rostro demo images=64_000
"""
HELD_OUT = ("holdout=0.1", "val=0.1")
HARD_ENOUGH = 0.25  # EER of the pixels below which the faces would prove nothing
BETTER = 0.5  # of the pixels' EER


def main(argv: Sequence[str]) -> int:
    keys = parse(argv, OPTIONS)
    started = time.perf_counter()
    shards = pack(keys)
    trained, code = train(keys, shards)
    if code:
        return code
    report = evaluate(trained)
    print(f"\n{summary(report, trained, time.perf_counter() - started)}")
    return 0 if keys.data else verdict(report)


def pack(keys: SimpleNamespace) -> Path:
    """Pack the data; return the folder of the train, val and eval sets."""
    if keys.data:
        out = Path(keys.out) / Path(keys.data).resolve().name
        words = [f"source={layout(keys.data)}", f"src={keys.data}"]
    else:
        out = Path(keys.out) / f"faces-{keys.identities}x{keys.per_identity}"
        words = ["source=procedural", f"identities={keys.identities}", f"per_identity={keys.per_identity}"]
    step(f"pack: {'images of ' + keys.data if keys.data else 'draw faces'}")
    rostro("pack", *words, f"out={out}", "size=112", *HELD_OUT, f"seed={keys.seed}")
    return out


def layout(folder: str) -> str:
    """Return the source of this folder: `lfw` if it is LFW as unpacked, else `folder`."""
    from data_shards.sources.base import folders_of
    from data_shards.sources.lfw import FOLDERS

    names = {Path(folder).resolve().name, *folders_of(folder)}
    return "folder" if names.isdisjoint(FOLDERS) else "lfw"


def train(keys: SimpleNamespace, shards: Path) -> tuple[Path, int]:
    """Train; return the run directory and the exit code of `launch/submit.py`."""
    name = f"demo-{time.strftime('%Y%m%d-%H%M%S')}"
    step(f"train: the siamese network, {keys.procs} ranks, {keys.images:,} images")
    words = [
        "task=siamese",
        f"name={name}",
        f"runs={keys.runs}",
        f"procs={keys.procs}",
        f"images={keys.images}",
        f"seed={keys.seed}",
        f"data.train={shards / 'train'}",
        f"data.val={shards / 'val'}",
        f"data.eval={shards / 'eval'}",
        *RECIPE,
        f"optim.warmup={keys.images // 16}",
        f"save.every={max(1, keys.images // 4)}",
        f"eval.every={max(1, keys.images // 4)}",
        "wait=true",
    ]
    script = Path(__file__).parents[1] / "submit.py"
    child = subprocess.Popen([sys.executable, str(script), *words])
    while True:
        try:
            return Path(keys.runs) / name, child.wait()
        except KeyboardInterrupt:  # submit.py received it too: the run saves, then it ends
            continue


# Small images and a hot softmax: what learns most in a few minutes on two cores.
RECIPE = (
    "batch=64",
    "data.size=64",
    "data.group=4",
    "data.augment.crop_area=[0.7,1.0]",
    "task.loss=supcon",
    "optim.lr=0.001",
    "ema.half_life=1_500",
    "log.every=640",
)


def evaluate(run: Path) -> dict[str, Any]:
    """Run `rostro evaluate` on the people of `eval` and return its report."""
    step("evaluate: on people that it has not seen, and on whom nothing was chosen")
    rostro("evaluate", str(run))
    reports = (run / "evaluations").glob("*/report.json")
    return json.loads(max(reports, key=lambda path: path.stat().st_mtime).read_text())


def summary(report: dict[str, Any], run: Path, seconds: float) -> str:
    """Return the figures that count, side by side, and where to look next."""
    names = ["on held-out people", *(f"  {row['name']}" for row in report["rows"])]
    figures = ["    EER     AUC", *(f"{row['eer']:>7.3f} {row['auc']:>7.3f}" for row in report["rows"])]
    wide = max(map(len, names))
    lines = [f"{name:<{wide}}  {figure}" for name, figure in zip(names, figures, strict=True)]
    lines += [
        f"run          {run}",
        f"curves       {report['folder']}/roc.png, scores.png",
        f"TensorBoard  tensorboard --logdir {run.parent}",
        f"took         {seconds / 60:.1f} minutes",
    ]
    return "\n".join(lines)


def verdict(report: dict[str, Any]) -> int:
    """Return 0 if the network beats the pixels by far and pixels alone do not solve it, else 1."""
    network, pixels = report["rows"][0]["eer"], report["rows"][-1]["eer"]
    failed = ""
    if pixels < HARD_ENOUGH:
        failed = (
            f"the pixels' EER {pixels:.3f} is below {HARD_ENOUGH}: these faces prove nothing, "
            "draw more people"
        )
    elif network > BETTER * pixels:
        failed = (
            f"the network's EER {network:.3f} is above half the pixels' {pixels:.3f}: "
            "train longer, images=64_000"
        )
    if failed:
        print(f"error: {failed}", file=sys.stderr)
        return 1
    print(f"passed       EER {network:.3f} is at most half the pixels' {pixels:.3f}")
    return 0


def rostro(*words: str) -> None:
    """Run a command as a user would; a refusal ends the demo."""
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    code = subprocess.call(
        [sys.executable, "-m", "launch.cli", *words], env=os.environ | {"PYTHONPATH": path}
    )
    if code:
        raise SystemExit(code)


def step(text: str) -> None:
    print(f"\n== {text}", flush=True)


if __name__ == "__main__":
    from launch.cli import main as run_command

    sys.exit(run_command(["demo", *sys.argv[1:]]))
