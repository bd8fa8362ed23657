"""A regression of the identity's number on a frozen trunk, beside a frozen teacher."""

from hpc.config.rules import Rule

KEYS = {"width": Rule("channels of the trunk", least=1), "teacher": Rule("seed of the teacher", least=0)}
roles = {"train": ("identity",), "eval": ("identity",)}
