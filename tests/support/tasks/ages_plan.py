"""The plan of the ages job. Imports no torch."""

roles = {"train": ("age", "gender"), "val": ("age", "gender"), "eval": ("age", "gender")}
