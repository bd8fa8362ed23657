"""`rostro completion`: what the TAB key offers in bash and zsh. Imports neither torch nor Hydra: it must be quick.

The keys of `submit` and what they may be come from their rules, those of other commands from their help pages.
"""

import dataclasses
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from data_shards.errors import UserError
from data_shards.sources.registry import source_names
from hpc.config.check import all_rules
from hpc.config.identity import is_free
from hpc.config.parse import CONF
from hpc.config.rules import WORDS, Rule, rules
from hpc.config.schema import Config
from hpc.config.types import flatten

HELP = """
usage: rostro completion bash|zsh

Prints the lines that make the TAB key complete commands, keys, their choices and names of runs.

example: eval "$(rostro completion bash)"      in ~/.bashrc; zsh: the same in ~/.zshrc, behind compinit
"""
BASH = """
_rostro() {
    mapfile -t COMPREPLY < <(rostro completion words bash "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
    if [[ ${COMPREPLY[0]-} == *= ]]; then compopt -o nospace; fi
}
complete -o bashdefault -o default -F _rostro rostro
"""
ZSH = """
_rostro() {
    local -a found
    found=(${(f)"$(rostro completion words zsh "$LBUFFER" 2>/dev/null)"})
    if (( $#found )); then
        compadd -S '' -- ${(M)found:#*=}
        compadd -- ${found:#*=}
    else
        compset -P '*='
        _files
    fi
}
compdef _rostro rostro
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH}
RUN_COMMANDS = (
    "status",
    "logs",
    "stop",
    "resume",
    "evaluate",
    "verify",
    "export",
)  # their first word is a run
NAME = re.compile(r"[\w.+=,@%-]+")  # what the shell takes as it stands


def main(argv: Sequence[str]) -> int:
    if len(argv) == 3 and argv[0] == "words":
        return _offer(argv[1], argv[2])
    if len(argv) != 1 or argv[0] not in SCRIPTS:
        given = " ".join(argv) or "nothing"
        raise UserError(f"completion: {given} is not a shell: type rostro completion bash, or zsh")
    print(SCRIPTS[argv[0]].strip())
    return 0


def _offer(shell: str, line: str) -> int:
    words = line.split(" ")
    found = sorted(set(candidates([word for word in words[1:-1] if word], words[-1])))
    # bash takes what is behind the last = as a word of its own
    cut = words[-1].rfind("=") + 1 if shell == "bash" else 0
    sys.stdout.writelines(f"{word[cut:]}\n" for word in found)
    return 0


def candidates(before: Sequence[str], word: str) -> Iterable[str]:
    """Whole words that may stand where `word` begins, behind the words `before` (without `rostro`)."""
    from launch.options.command_table import COMMANDS

    if not before:
        offered: Iterable[str] = [*COMMANDS, "--help", "--version"]
    elif before[0] == "submit":
        offered = _of_run(before[1:], word)
    elif before[0] == "completion":
        offered = SCRIPTS
    elif before[0] in COMMANDS:
        offered = _of_command(before[0], before[1:], word)
    else:
        return []
    return [found for found in offered if found.startswith(word)]


def _of_run(before: Sequence[str], word: str) -> Iterable[str]:
    tasks = sorted(path.stem for path in (CONF / "task").glob("*.yaml"))
    groups = {
        name: sorted(path.stem for path in (CONF / name).glob("*.yaml")) for name in ("engine", "cluster")
    }
    groups["task"] = tasks
    key = word.partition("=")[0]
    if "=" in word and key in groups:
        return [f"{_begun(word)}{choice}" for choice in groups[key]]
    task = next((given[5:] for given in reversed(before) if given.startswith("task=")), tasks[0])
    known = all_rules(task) if task in tasks else rules(Config) | WORDS
    if "=" not in word:
        return [*(f"{name}=" for name in (*groups, *known)), "-m", "--help"]
    if key == "after":
        return [f"after={name}" for name in _runs(before)]
    return _choices(word, known.get(key), _defaults(task if task in tasks else "").get(key))


def _defaults(task: str) -> dict[str, object]:
    path = CONF / "task" / f"{task}.yaml"
    content = yaml.safe_load(path.read_text()) if path.is_file() else {}
    return (
        flatten(dataclasses.asdict(Config()))
        | dict.fromkeys(WORDS, False)
        | {f"task.{key}": value for key, value in content.get("task", {}).items()}
    )


def _choices(word: str, rule: Rule | None, default: object) -> list[str]:
    if rule is not None and rule.one_of:
        return [f"{_begun(word)}{choice}" for choice in rule.one_of]
    return [f"{_begun(word)}true", f"{_begun(word)}false"] if isinstance(default, bool) else []


def _begun(word: str) -> str:
    """What stays of a word: its key, and in a sweep the values before the last comma."""
    return word[: max(word.rfind(","), word.find("=")) + 1]


def _of_command(command: str, before: Sequence[str], word: str) -> Iterable[str]:
    """Keys of the help page, names of runs where one may stand, true and false."""
    from launch.options.command_table import load

    page = load(command).HELP
    keys = {found[1]: found[2] for found in re.finditer(r"^  ([a-z_.]+)=(\S*)", page, re.MULTILINE)}
    key = word.partition("=")[0]
    if "=" in word:
        if command == "resume" and key not in keys:
            return _of_run(["task=siamese", *before], word)
        if command == "pack" and key == "source":
            return [f"source={name}" for name in source_names()]
        return [f"{key}=true", f"{key}=false"] if keys.get(key) in ("true", "false") else []
    offered = [f"{name}=" for name in keys]
    if command == "resume":
        offered += [f"{name}=" for name in rules(Config) if is_free(name, Config()) and name not in keys]
    if command in RUN_COMMANDS and not any("=" not in given for given in before):
        offered += _runs(before)
    return [*offered, "--help"]


def _runs(before: Sequence[str]) -> list[str]:
    """Names of the runs in the folder that the line names."""
    folder = next((given[5:] for given in reversed(before) if given.startswith("runs=")), "runs")
    found = Path(folder).expanduser().glob("[!.]*/config.yaml")
    return [path.parent.name for path in found if NAME.fullmatch(path.parent.name)]
