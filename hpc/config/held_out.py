"""The held-out sets of a run: `data.val` chooses checkpoint and threshold, `data.eval` is reported once.

A run with one held-out set has both done by it. Its figures are then those of the people who chose the best
of many checkpoints, and every report says so. Imports no torch.
"""

from hpc.config.schema import Data

SPLITS = ("train", "train_b", "val", "eval")  # the sets of a run, by their key under `data`
CHOSEN = "checkpoint and threshold were chosen on these people"
UNKNOWN = "it is not known who chose checkpoint and threshold: they may be among these people"


def validation(data: Data) -> str:
    """Return the split that is evaluated while training: `val`, or else `eval`; empty without either."""
    return "val" if data.val else "eval" if data.eval else ""


def statement(data: Data) -> str:
    """State what the figures of a training are worth, for the head of the log and TensorBoard's text."""
    shared = "; data.allow_shared=true: people of the training may be among them" if data.allow_shared else ""
    return _judges(data) + shared


def _judges(data: Data) -> str:
    if data.val:
        report = (
            "eval is reported by `rostro evaluate`"
            if data.eval
            else f"there is no eval beside it, so {CHOSEN}"
        )
        return f"judged on val, by which checkpoint and threshold are chosen; {report}"
    if data.eval:
        return f"judged on eval alone: {CHOSEN}; pack with holdout=0.1 val=0.1 for figures of others"
    return "judged on nobody: no set is held out"
