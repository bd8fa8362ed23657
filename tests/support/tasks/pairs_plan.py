"""Pairs of two domains, each with labels of its own."""

roles = {"a": ("age", "breed"), "b": ("breed",), "eval": ()}
engines = ("flat", "ddp")
players = ("G", "D")
