"""Answers to the keys of other training programs: `epochs=10` is not a spelling mistake.

The answers are whole lines to type. Nothing is translated silently: a number means something else in another
unit.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from data_shards.errors import UserError
from data_shards.files import read_json

GUESS = 50_000  # images of a set whose size is not known

OURS = {  # key of another program: what to type here
    "accumulate_grad_batches": "micro_batch=16, the images of a rank at a time; accumulation follows from it",
    "accelerator": "procs=RANKS, and gpus=N on a cluster",
    "amp": "precision=bf16",
    "backbone": "task.trunk=googlenet",
    "batch_size": "batch=64, the images of all ranks in an update",
    "checkpoint_every": "save.every=50_000, in images",
    "data_dir": "data.train=FOLDER, a packed set",
    "dataset": "data.set=NAME, or data.train=FOLDER",
    "devices": "procs=RANKS, and gpus=N on a cluster",
    "dropout": "optim.weight_decay=0.05, the networks here have no dropout",
    "fp16": "precision=bf16",
    "gpus_per_node": "gpus=N, on a cluster",
    "grad_clip": "optim.clip=1.0",
    "gradient_accumulation_steps": "micro_batch=16, the images of a rank at a time; accumulation follows",
    "gradient_clip_val": "optim.clip=1.0",
    "img_size": "data.size=112",
    "image_size": "data.size=112",
    "learning_rate": "optim.lr=0.001",
    "log_every": "log.every=2_000, in images",
    "lr": "optim.lr=0.001",
    "lr_scheduler": "optim.schedule=cosine",
    "max_grad_norm": "optim.clip=1.0",
    "mixed_precision": "precision=bf16",
    "model": "task=NAME, and task.KEY=VALUE for its network",
    "momentum": "optim.momentum=0.9",
    "nproc_per_node": "procs=RANKS",
    "num_gpus": "procs=RANKS, and gpus=N on a cluster",
    "num_nodes": "nodes=N",
    "num_workers": "data.threads=2, of each rank",
    "optimizer": "optim.name=adamw",
    "output": "runs=FOLDER",
    "output_dir": "runs=FOLDER",
    "partition": "cluster.partition=NAME",
    "resume": "rostro resume RUN, a command of its own",
    "save_dir": "runs=FOLDER",
    "scheduler": "optim.schedule=cosine",
    "strategy": "engine=ddp",
    "time": "hours=24",
    "val_every": "eval.every=50_000, in images",
    "warmup_steps": "optim.warmup=3_000, in images",
    "wd": "optim.weight_decay=0.05",
    "weight_decay": "optim.weight_decay=0.05",
    "workers": "data.threads=2, of each rank",
    "world_size": "procs=RANKS, of each of nodes=N",
}
SAME = {"lr_schedule": "lr_scheduler", "bs": "batch_size", "n_epochs": "epochs", "num_epochs": "epochs"}
SAME |= {"max_epochs": "epochs", "max_steps": "steps", "num_steps": "steps", "iterations": "steps"}
SAME |= {"total_steps": "steps", "train_batch_size": "batch_size", "log_dir": "output_dir"}


def answer(key: str, value: str, words: Sequence[str] = ()) -> str:
    """Return what to type instead of a key of another program (empty = unknown). words: the whole line."""
    name = key.lower().replace("-", "_").lstrip("_")
    name = SAME.get(name, name)
    if name == "epochs":
        return _epochs(value, words)
    if name == "steps":
        return _steps(value, words)
    return f"type {OURS[name]}" if name in OURS else ""


def _epochs(value: str, words: Sequence[str]) -> str:
    count = (
        int(value) if value.isascii() and value.isdigit() and int(value[:5]) > 0 and len(value) < 5 else 10
    )
    size = _set_size(words)
    if size:
        epochs = f"{count} epochs of this set of {size:,} images"
        return f"lengths are in images: images={count * size:_} is {epochs}"
    epochs = f"about {count} epochs of a set of {GUESS:,} images"
    return f"lengths are in images: images={count * GUESS:_} is {epochs}"


def _steps(value: str, words: Sequence[str]) -> str:
    count = int(value) if value.isascii() and value.isdigit() and 0 < len(value) < 9 else 1000
    typed = _last(words, "batch")
    batch = int(typed) if typed.isascii() and typed.isdigit() and 0 < len(typed) < 7 else 64
    updates = f"{max(1, count):,} updates of batch={batch}"
    return f"lengths are in images: images={max(1, count) * batch:_} is {updates}"


def _set_size(words: Sequence[str]) -> int:
    """Return the number of images of the set that the words name; 0 if there is no such set."""
    folder = _last(words, "data.train")
    if not folder and os.environ.get("ROSTRO_SHARDS"):
        folder = os.path.join(os.environ["ROSTRO_SHARDS"], _last(words, "data.set"), "train")
    try:
        return int(read_json(Path(folder).expanduser() / "manifest.json", {"samples": int})["samples"])
    except (UserError, RuntimeError):  # RuntimeError: a home that cannot be found
        return 0


def _last(words: Sequence[str], key: str) -> str:
    return next((word.partition("=")[2] for word in reversed(words) if word.startswith(f"{key}=")), "")


def refuse_old_gate(words: Sequence[str]) -> None:
    """Refuse `gate=`, which was one number for figures of different units."""
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key == "gate":
            raise UserError(
                f"{word} has another name: type gate.max_gap={value} of shares such as accuracy, or the "
                f"evaluator before it, as in age.gate.max_gap={value} (years)"
            )
