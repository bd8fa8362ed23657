"""`rostro info`: what packed sets hold, and a contact sheet of each."""

from pathlib import Path

from launch.args import parse

HELP = """
usage: rostro info DIR [out=FOLDER]

Prints what a packed set (or each set in a folder) holds, and writes a contact sheet of its pictures, one row
an identity: <name>-<split>-contact.png.

  out=    folder of the contact sheets; default: the current one

example: rostro info shards/lfw
"""


def main(argv: list[str]) -> int:
    from rich.console import Console
    from rich.table import Table

    from data_shards.check import find_sets
    from data_shards.errors import UserError
    from data_shards.index import ShardSet
    from data_shards.info import contact_sheet, facts, write_png

    args = parse(argv, {"out": "."}, positional=("DIR",), required=("DIR",))
    out = Path(args.out)
    if not out.is_dir():
        raise UserError(f"out={out}: no such folder; make it or choose another")
    console = Console()
    for folder in find_sets(Path(args.DIR)):
        shards = ShardSet.open(folder)
        table = Table(title=f"{shards.name}: {folder}", show_header=False, title_justify="left")
        table.add_column()
        table.add_column(overflow="fold")
        for what, value in facts(shards):
            table.add_row(what, value)
        console.print(table)
        sheet = out / f"{shards.name}-{shards.manifest['split']}-contact.png"
        write_png(sheet, contact_sheet(shards))
        console.print(f"contact sheet: {sheet}", soft_wrap=True)
    return 0
