"""Bits and a number of the same image; mixup takes partners from units of four."""

from hpc.config.rules import Rule

KEYS = {"alpha": Rule("of the Beta distribution of the shares", above=0)}
roles = dict.fromkeys(("train", "val", "eval"), ("marks:bits", "age:value"))


def unit(config):
    return 4
