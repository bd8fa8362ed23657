"""Turn values into words of a shell script: quoted, as arguments, never inside text that is already quoted.

Only a `Variable` is expanded by a node. What a value may hold is checked in `hpc/config/text.py` before a run
is made, and here once more, since a path also comes from the folder in which a command is typed.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_shards.errors import UserError
from hpc.config.text import VARIABLE
from hpc.config.types import shown

# Loads the module that its first argument names, so that no name stands inside the text of the message.
LOADER = (
    'rostro_module() { module load "$1" || '
    "{ printf 'error: module load %s failed: see cluster.modules\\n' \"$1\" >&2; exit 2; }; }"
)


@dataclass(frozen=True)
class Variable:
    """A word that a node replaces by the value of its environment variable."""

    name: str

    def __post_init__(self) -> None:
        if not re.fullmatch(VARIABLE, self.name, re.ASCII):
            raise UserError(f"{shown(self.name)} is not the name of a variable: use letters, digits and _")


Word = str | Variable


def quoted(word: Word) -> str:
    """Return one word of a script; UserError for a character that would end its line."""
    if isinstance(word, Variable):
        return f'"${{{word.name}}}"'
    return shlex.quote(_on_a_line(word))


def joined(words: Sequence[Word]) -> str:
    """Return words of a script, separated by blanks."""
    return " ".join(map(quoted, words))


def module_lines(modules: Sequence[str]) -> list[str]:
    """Return lines that load the modules in turn and end the script at the first failure."""
    return [LOADER, *(f"rostro_module {quoted(module)}" for module in modules)] if modules else []


def plan_lines(run: Path, ranks: Sequence[str], program: Sequence[Word], setup: Sequence[str]) -> list[str]:
    """Return what `slurm/job.sh` reads, a kind and a value a line; it evaluates only those of `setup`."""
    lines = [f"run {_on_a_line(str(run))}", *(f"ranks {_on_a_line(word)}" for word in ranks)]
    for word in program:
        lines.append(f"variable {word.name}" if isinstance(word, Variable) else f"program {_on_a_line(word)}")
    return [*lines, *(f"setup {line}" for text in setup for line in text.split("\n"))]


def _on_a_line(word: str) -> str:
    if not word.isprintable():
        raise UserError(f"{shown(word)} holds a character that cannot be printed: use another name or folder")
    return word
