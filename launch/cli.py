"""The `rostro` command: a table of subcommands, each loaded only when it is called.

A subcommand is a module of this package with `HELP` (its usage text) and `main(argv) -> exit code`.
"""

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from launch.start.snapshot import version

COMMANDS = {  # name: (module, one line)
    "demo": ("launch.commands.demo", "faces from nothing: generate, pack, train, evaluate"),
    "pack": (
        "launch.commands.pack",
        "a data set in its original layout -> tar shards with index and manifest",
    ),
    "check": ("launch.commands.check", "verify hashes and decode every sample of a packed set"),
    "info": ("launch.commands.info", "what a packed set holds, and a contact sheet of it"),
    "pairs": ("launch.commands.pairs", "a pair list of a packed set, for `rostro evaluate pairs=`"),
    "submit": ("launch.submit", "start a training run; `python launch/submit.py` is the same"),
    "status": ("launch.commands.status", "list runs: state, images, rate, time left, last metrics"),
    "logs": ("launch.commands.logs", "the end of a rank's log; rank=guilty is the one that ended the run"),
    "stop": ("launch.commands.stop", "ask a run to save and leave"),
    "resume": ("launch.commands.resume", "go on with a run that stopped, in its directory and with its code"),
    "evaluate": (
        "launch.commands.evaluate",
        "held-out identities or a pair list: EER, AUC, accuracy, curves",
    ),
    "verify": ("launch.commands.verify", "are two pictures of the same person?"),
    "export": ("launch.commands.export", "the network of a run as safetensors and ONNX"),
    "doctor": (
        "launch.commands.doctor",
        "what this machine and its SLURM have, what harms runs, what to type about it",
    ),
    "audit-resume": (
        "launch.commands.audit_resume",
        "prove that a killed and resumed run equals a straight one",
    ),
    "completion": ("launch.commands.completion", "what makes TAB complete all of this in bash and zsh"),
}
CUT_SHORT = 128 + 13  # exit code of a command whose reader left before it was done


def usage() -> str:
    rows = "\n".join(f"  {name:<14}{text}" for name, (_, text) in COMMANDS.items())
    return (
        "usage: rostro COMMAND [key=value ...]\n\n"
        f"{rows}\n\n"
        "`rostro COMMAND --help` shows the keys of a command. All of them are typed key=value.\n"
        "`rostro --version` prints the version.\n"
        "Start here: rostro demo"
    )


def load(command: str) -> ModuleType:
    """The module of a command."""
    return importlib.import_module(COMMANDS[command][0])


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors that a user can mend are one line on stderr.

    A reader that leaves early (`rostro status | head`) is not told anything; what it interrupts ends as by SIGPIPE.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    code = CUT_SHORT
    try:
        code = _run(words)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, since a closed pipe is noise at the interpreter's end
    except BrokenPipeError:
        for stream in (sys.stdout, sys.stderr):  # what is still buffered goes nowhere
            with contextlib.suppress(OSError, ValueError, AttributeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return code


def _run(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if words else 2
    if words[0] in ("-V", "version") or "--version" in words:
        print(f"rostro {version()}")
        return 0
    name, rest = words[0], words[1:]
    from data_shards.errors import UserError
    from hpc.cluster import slurm_env

    slurm_env.no_rank()
    try:
        if name not in COMMANDS:
            from hpc.config.types import near

            raise UserError(f"unknown command {name}: {near(name, COMMANDS, what='command')}")
        module = load(name)
        if any(word in ("-h", "--help") for word in rest) and not getattr(module, "OWN_HELP", False):
            print(module.HELP.strip())
            return 0
        return int(module.main(rest) or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}: free space or give rights there", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
