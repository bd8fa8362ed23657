"""The `rostro` command: a table of subcommands, each loaded only when it is called.

A subcommand is a module of this package with `HELP` (its usage text) and `main(argv) -> exit code`.
"""

import contextlib
import os
import sys
from collections.abc import Sequence

from launch.options.command_table import COMMANDS, load
from launch.start.snapshot import version

CUT_SHORT = 128 + 13  # exit code of a command whose reader left early


def usage() -> str:
    """Return the help page of `rostro` itself."""
    rows = "\n".join(f"  {name:<14}{text}" for name, (_, text) in COMMANDS.items())
    return (
        "usage: rostro COMMAND [key=value ...]\n\n"
        f"{rows}\n\n"
        "`rostro COMMAND --help` shows the keys of a command. All of them are typed key=value.\n"
        "`rostro --version` prints the version.\n"
        "Start here: rostro demo"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors that a user can fix are one line on stderr.

    A reader that leaves early (`rostro status | head`) gets no message; the command then ends as by SIGPIPE.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    code = CUT_SHORT
    try:
        code = _run(words)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, since a closed pipe makes noise when the interpreter ends
    except BrokenPipeError:
        for stream in (sys.stdout, sys.stderr):  # what is still buffered is dropped
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
        print(
            f"error: {where}{error.strerror or error}: free space there, or give yourself the rights",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
