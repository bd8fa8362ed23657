"""The identity of a run's sets: digests of manifests, kept in the run and compared when it is resumed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_shards.errors import UserError
from data_shards.files import MissingFile, read_json
from hpc.config import held_out
from hpc.config.schema import Config
from hpc.config.types import shown
from hpc.runs.run_dir import RunDir


def digests(config: Config) -> dict[str, str]:
    """Return the identity of the sets of a located config, wherever they are: sha256 of their manifests.

    `twins`, `twins_b`: of the twins that training reads.
    """
    from data_shards.shard_format.manifest import read_manifest

    folders = {split: getattr(config.data, split) for split in held_out.SPLITS}
    folders |= {"train": ""} if config.data.stream else {}
    read = {split: read_manifest(Path(folder)) for split, folder in folders.items() if folder}
    found = {split: digest for split, (_, digest) in read.items()}
    return found | of_twins(config, {split: manifest for split, (manifest, _) in read.items()})


def of_twins(config: Config, manifests: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """Return the identity of the twins that training reads: `twins`, and `twins_b` of data.train_b."""
    from data_shards.shard_format.manifest import twins_digest

    names = {"train": "twins", "train_b": "twins_b"} if config.data.twins else {}
    return {
        name: twins_digest(manifests[split], config.data.twins)
        for split, name in names.items()
        if split in manifests
    }


def recorded(run: RunDir) -> dict[str, str]:
    """Return the digests of the sets that a run began with, by split; {} for a run of an earlier version."""
    try:
        recorded_digests: dict[str, str] = read_json(
            run.data_file, {str: str}, remedy="restore it; it names the sets that the run began with"
        )
    except MissingFile:
        return {}
    return recorded_digests


def check_digests(run: RunDir, config: Config) -> None:
    """Refuse other sets than the run began with."""
    before = recorded(run)
    now = digests(config)
    if before and ("train_b" in before) != ("train_b" in now):
        had = "with one" if "train_b" in before else "without one"
        raise UserError(
            f"data.train_b={config.data.train_b}: run {run.name} began {had}: type it as it was, or start "
            "another run"
        )
    for split, digest in now.items():
        if split == "val" and before and split not in before:
            raise UserError(
                f"data.val={config.data.val}: run {run.name} began without one, and its best checkpoint is "
                "that of data.eval: leave the key out, or start another run"
            )
        if before.get(split, digest) != digest:
            if split in ("twins", "twins_b"):
                folder = config.data.train if split == "twins" else config.data.train_b
                raise UserError(
                    f"data.twins={shown(config.data.twins)}: those of {folder} are not the ones "
                    f"that run {run.name} began with: restore them, or start another run"
                )
            folder = getattr(config.data, split)
            raise UserError(
                f"data.{split}={folder} is not the set that run {run.name} began with (its manifest "
                "differs): give that one, or start another run"
            )
