"""The identity of a run's sets: digests of manifests, kept in the run and compared when it is resumed."""

from pathlib import Path

from data_shards.errors import UserError
from data_shards.files import MissingFile, read_json
from hpc.config import held_out
from hpc.config.schema import Config
from hpc.config.types import shown
from hpc.runs.run_dir import RunDir


def digests(config: Config) -> dict[str, str]:
    """Return the identity of the sets of a located config, wherever they are: sha256 of their manifests.

    `twins`: of the twins that training reads.
    """
    from data_shards.shard_format.manifest import read_manifest, twins_digest

    folders = {split: getattr(config.data, split) for split in held_out.SPLITS}
    folders |= {"train": ""} if config.data.stream else {}
    read = {split: read_manifest(Path(folder)) for split, folder in folders.items() if folder}
    found = {split: digest for split, (_, digest) in read.items()}
    if config.data.twins:
        found["twins"] = twins_digest(read["train"][0], config.data.twins)
    return found


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
    for split, digest in digests(config).items():
        if split == "val" and before and split not in before:
            raise UserError(
                f"data.val={config.data.val}: run {run.name} began without one, and its best checkpoint is "
                "that of data.eval: leave the key out, or start another run"
            )
        if before.get(split, digest) != digest:
            if split == "twins":
                raise UserError(
                    f"data.twins={shown(config.data.twins)}: those of {config.data.train} are not the ones "
                    f"that run {run.name} began with: restore them, or start another run"
                )
            folder = getattr(config.data, split)
            raise UserError(
                f"data.{split}={folder} is not the set that run {run.name} began with (its manifest "
                "differs): give that one, or start another run"
            )
