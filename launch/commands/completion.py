"""`rostro completion`: print what makes the TAB key complete commands, keys and values in bash and zsh.

It imports neither torch nor Hydra, since it must be quick. The keys of `submit` and their values come from
the rules of the config, those of other commands from their declared options.
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
from hpc.config.rules import WORDS, Rule, rules
from hpc.config.schema import Config
from hpc.config.types import flatten
from launch.options.conf import CONF, choices, plan_of_task
from launch.options.option import Option

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
    local -a offers
    offers=(${(f)"$(rostro completion words zsh "$LBUFFER" 2>/dev/null)"})
    if (( $#offers )); then
        compadd -S '' -- ${(M)offers:#*=}
        compadd -- ${offers:#*=}
    else
        compset -P '*='
        _files
    fi
}
compdef _rostro rostro
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH}
# The commands whose first word is a run.
RUN_COMMANDS = (
    "status",
    "logs",
    "stop",
    "resume",
    "evaluate",
    "predict",
    "generate",
    "compare",
    "verify",
    "export",
)
NAME = re.compile(r"[\w.+=,@%-]+")  # a name that needs no quotes in a shell


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
    offers = sorted(set(candidates([word for word in words[1:-1] if word], words[-1])))
    # bash takes the text behind the last = as a word of its own
    cut = words[-1].rfind("=") + 1 if shell == "bash" else 0
    sys.stdout.writelines(f"{word[cut:]}\n" for word in offers)
    return 0


def candidates(before: Sequence[str], word: str) -> Iterable[str]:
    """Return the words that may complete `word`, behind the words `before` (without `rostro`)."""
    from launch.options.command_table import COMMANDS

    if not before:
        offers: Iterable[str] = [*COMMANDS, "--help", "--version"]
    elif before[0] == "submit":
        offers = _of_run(before[1:], word)
    elif before[0] == "completion":
        offers = SCRIPTS
    elif before[0] in COMMANDS:
        offers = _of_command(before[0], before[1:], word)
    else:
        return []
    return [offer for offer in offers if offer.startswith(word)]


def _of_run(before: Sequence[str], word: str) -> Iterable[str]:
    groups = {name: choices(name) for name in ("engine", "cluster", "task")}
    tasks = groups["task"]
    key = word.partition("=")[0]
    if "=" in word and key in groups:
        return [f"{_begun(word)}{choice}" for choice in groups[key]]
    task = next((given[5:] for given in reversed(before) if given.startswith("task=")), "")
    known = all_rules(plan_of_task(task)) if task in tasks else rules(Config) | WORDS
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
    """Return the part of a word that stays: its key, and in a sweep the values before the last comma."""
    return word[: max(word.rfind(","), word.find("=")) + 1]


def _of_command(command: str, before: Sequence[str], word: str) -> Iterable[str]:
    """Return the keys of a command, or the values of one key, and names of runs where one may stand."""
    from launch.options.command_table import load

    options = getattr(load(command), "OPTIONS", {})
    key = word.partition("=")[0]
    if "=" in word:
        if command == "resume" and key not in options:
            return _of_run(before, word)
        if command == "pack" and key == "source":
            return [f"source={name}" for name in source_names()]
        return _values(key, options[key]) if key in options else []
    offers = [f"{name}=" for name in options]
    if command == "resume":
        offers += [f"{name}=" for name in rules(Config) if is_free(name, Config()) and name not in options]
    first = not any("=" not in typed for typed in before)
    if command in RUN_COMMANDS and (first or command == "compare"):
        offers += [run for run in _runs(before) if run not in before]
    return [*offers, "--help"]


def _values(key: str, option: Option) -> list[str]:
    choices = ("true", "false") if isinstance(option.default, bool) else option.choices
    return [f"{key}={choice}" for choice in choices]


def _runs(before: Sequence[str]) -> list[str]:
    """Return the names of the runs in the folder that the line names."""
    folder = next((given[5:] for given in reversed(before) if given.startswith("runs=")), "runs")
    configs = Path(folder).expanduser().glob("[!.]*/config.yaml")
    return [path.parent.name for path in configs if NAME.fullmatch(path.parent.name)]
