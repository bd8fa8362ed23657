"""Mosaics of four: partners from the aligned unit, or `task.own`: the members of the slot."""

from hpc.config.rules import Rule

KEYS = {"own": Rule("mosaics of the slot's own members")}
roles = {"train": ("boxes:boxes", "colour", "parts:mask"), "eval": ("parts:mask",)}


def members(config):
    return 4 if config.task["own"] else 1


def unit(config):
    return 1 if config.task["own"] else 4
