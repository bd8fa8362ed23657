"""The plan of the bench's two players. Imports no torch."""

roles = {"train": ()}
players = ("G", "D")
elastic = False
