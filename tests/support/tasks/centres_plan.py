"""A softmax over centres of which each rank holds some: `flat` alone carries them."""

roles = {"train": ("identity",), "eval": ("identity",)}
engines = ("flat",)
