"""Small packed sets for tests: coloured blobs, one pattern for each identity, varied within it."""

import contextlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg

from data_shards.errors import UserError
from data_shards.pack.layout import split_identities


def write_folders(folder: Path, *, identities: int, each: int, size: int = 40) -> Path:
    """Identity folders of JPEGs of `size` x `size` pixels."""
    for identity in range(identities):
        fixed = np.random.default_rng(identity)
        pattern = cv2.resize(fixed.uniform(40, 215, (5, 5, 3)), (size, size), interpolation=cv2.INTER_CUBIC)
        (folder / f"person{identity:03d}").mkdir(parents=True, exist_ok=True)
        for number in range(each):
            varied = np.random.default_rng((identity, number))
            light = varied.uniform(0.6, 1.4) * (
                1 + 0.3 * varied.standard_normal((1, size, 1)).cumsum(1) / size
            )
            image = np.clip(pattern * light + varied.normal(0, 8, pattern.shape), 0, 255).astype(np.uint8)
            data = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=92)
            (folder / f"person{identity:03d}" / f"person{identity:03d}_{number:04d}.jpg").write_bytes(data)
    return folder


def pack_set(
    folder: Path,
    *,
    identities: int = 20,
    each: int = 5,
    holdout: float = 0.25,
    val: float = 0.0,
    size: int = 40,
    shard_mb: float = 100.0,
) -> Path:
    """Pack a set under `folder`/shards, with train/ and eval/, and val/ where asked for; shares are exact."""
    from launch.commands import pack

    source = write_folders(folder / "pictures", identities=identities, each=each, size=size)
    words = ["source=folder", f"src={source}", f"out={folder / 'shards'}", f"holdout={holdout}", "workers=1"]
    words += [f"val={val}", f"seed={exact_seed(identities, holdout, val)}"]
    assert pack.main([*words, f"shard_mb={shard_mb}"]) == 0
    return folder / "shards"


def pack_faces(
    folder: Path, *jobs: str, identities: int = 10, each: int = 3, size: int = 16, holdout: float = 0.4
) -> Path:
    """Pack procedural faces with all labels of the classifiers `jobs`: `folder`/train and `folder`/eval.

    For a job of pairs each stands beside a picture of its parts.
    """
    from data_shards.pack.pack import pack
    from data_shards.pack.request import Request
    from data_shards.sources.registry import open_source, source_module
    from launch.audit.faces import OF_PAIRS, FacePairs, LabelledFaces, pieces_of
    from launch.options.compose import composed
    from launch.options.conf import plan_of_task

    options = source_module("procedural").OPTIONS
    options = options | {"identities": identities, "per_identity": each, "size": size}
    source: Any = open_source("procedural", "", options=options)
    if any(composed([f"task={job}"]).data.halves for job in jobs):
        pack(FacePairs(source), folder, Request(holdout=holdout, options=OF_PAIRS), workers=1)
        return folder
    labels = {name: field for job in jobs for name, field in plan_of_task(job).labels.items()}
    size = 0 if pieces_of(labels) else size  # they are drawn at it
    pack(LabelledFaces(source, labels), folder, Request(size=size, holdout=holdout), workers=1)
    return folder


def exact_seed(identities: int, holdout: float, val: float) -> int:
    """The first seed by which the hashes of the names give exactly these shares."""
    names = [f"person{number:03d}" for number in range(identities)]
    wanted = {"eval": round(holdout * identities), "val": round(val * identities)}
    for seed in range(1000):
        with contextlib.suppress(UserError):
            parts = dict(split_identities(names, holdout=holdout, val=val, split="train", seed=seed))
            if all(len(parts.get(part, ())) == count for part, count in wanted.items()):
                return seed
    raise AssertionError("no seed cuts the people exactly")
