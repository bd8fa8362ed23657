"""A detector that needs no training."""

KEYS: dict = {}
roles = {"train": ("boxes:boxes",), "eval": ("boxes:boxes",)}
