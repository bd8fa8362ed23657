"""The subcommands of `rostro`: the module of each, imported only when called, and its one line of help."""

import importlib
from types import ModuleType

COMMANDS = {  # name: (module, one line)
    "demo": (
        "launch.commands.demo",
        "run a whole job on faces from nothing: generate, pack, train, evaluate",
    ),
    "pack": (
        "launch.commands.pack",
        "pack a data set in its original layout into tar shards with index and manifest",
    ),
    "twins": ("launch.commands.twins", "add low-resolution copies of its images to a packed set"),
    "check": ("launch.commands.check", "verify hashes and decode every sample of a packed set"),
    "info": ("launch.commands.info", "print what a packed set holds, and write a contact sheet of it"),
    "audit-data": (
        "launch.commands.audit_data",
        "find leaks, duplicates, contradictory labels and unusable images in packed sets",
    ),
    "balance": (
        "launch.commands.balance",
        "choose as many images or persons of each group of a packed set, and weigh the groups equally",
    ),
    "pairs": ("launch.commands.pairs", "write a pair list of a packed set, for `rostro evaluate pairs=`"),
    "submit": ("launch.submit", "start a training run; `python launch/submit.py` is the same"),
    "status": ("launch.commands.status", "list runs: state, images, rate, time left, last metrics"),
    "logs": (
        "launch.commands.logs",
        "print the end of a rank's log; rank=failed is the one that ended the run",
    ),
    "stop": ("launch.commands.stop", "ask a run to save and leave"),
    "resume": ("launch.commands.resume", "resume a run that stopped, in its directory and with its code"),
    "evaluate": (
        "launch.commands.evaluate",
        "judge a run on a held-out set, with intervals and by groups; JSON, pictures and a page",
    ),
    "predict": ("launch.commands.predict", "write what a run says of loose images or a packed set"),
    "generate": ("launch.commands.generate", "make images of latents by a run that was trained to"),
    "score": ("launch.commands.score", "judge another program's predictions by the same figures"),
    "compare": (
        "launch.commands.compare",
        "put the runs of each job into a table, mean and spread over seeds",
    ),
    "verify": ("launch.commands.verify", "tell whether two images show the same person"),
    "export": ("launch.commands.export", "write the network of a run as safetensors and ONNX"),
    "convert": ("launch.commands.convert", "make a run of weights that were published elsewhere"),
    "doctor": (
        "launch.commands.doctor",
        "report what this machine and its SLURM have, what harms runs, what to type",
    ),
    "audit-resume": (
        "launch.commands.audit_resume",
        "prove that a killed and resumed run equals a straight one",
    ),
    "completion": ("launch.commands.completion", "print what makes TAB complete all of this in bash and zsh"),
}


def load(command: str) -> ModuleType:
    """Import and return the module of a command."""
    return importlib.import_module(COMMANDS[command][0])
