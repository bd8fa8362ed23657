"""The subcommands of `rostro`: where each is, and what it does. A module is imported only when it is called."""

import importlib
from types import ModuleType

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
    "logs": ("launch.commands.logs", "the end of a rank's log; rank=failed is the one that ended the run"),
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


def load(command: str) -> ModuleType:
    """The module of a command."""
    return importlib.import_module(COMMANDS[command][0])
