"""`rostro info`: print what a run is, or what packed sets hold, and write a contact sheet of each."""

import sys
from collections import Counter
from pathlib import Path

from launch.options.key_value import parse
from launch.options.option import Option, option_lines

OPTIONS = {
    "out": Option(
        "",
        "folder of the contact sheets (-2-contact.png for another set of that name); default: beside each "
        "set",
    )
}
HELP = f"""
usage: rostro info DIR [out=FOLDER]

Prints what a run is: its task, networks, checkpoints, figures, and what `evaluate` and `export` give of it.
Or what a packed set (or each set in a folder) holds, and writes a contact sheet of its images, one row
an identity, beside the set: <name>-<split>-contact.png. They are images of people: mind where out= puts them.
Boxes and masks are drawn on it, ignored ones in grey, and <name>-<split>-<boxes>.png has histograms of their
size, their aspect, and how many an image has.
A set that cannot be opened and damaged images are an error each: exit code 1, after all other sets.

{option_lines(OPTIONS, {"DIR": "a run directory, a packed set, or a folder of sets"})}

example: rostro info shards/lfw
"""


def main(argv: list[str]) -> int:
    from rich.console import Console
    from rich.table import Table

    from data_shards.errors import UserError
    from data_shards.inspect.box_plots import box_lists, plot_boxes
    from data_shards.inspect.check import find_sets
    from data_shards.inspect.summary import contact_sheet, facts, write_png
    from data_shards.shard_format.shard_set import ShardSet

    args = parse(argv, OPTIONS, positional=("DIR",), required=("DIR",))
    if args.out and not Path(args.out).is_dir():
        raise UserError(f"out={args.out} does not exist: make the folder, or choose another")
    if (Path(args.DIR) / "config.yaml").is_file():
        return _show_run(args.DIR)
    console, taken, bad = Console(), Counter[Path](), 0
    for folder in find_sets(Path(args.DIR)):
        try:
            shards = ShardSet.open(folder)
        except UserError as error:  # the others are shown all the same
            print(f"error: {error}", file=sys.stderr)
            bad += 1
            continue
        table = Table(title=f"{shards.name}: {folder}", show_header=False, title_justify="left")
        table.add_column()
        table.add_column(overflow="fold")
        for what, value in facts(shards):
            table.add_row(what, value)
        console.print(table)
        place = Path(args.out or folder.absolute().parent) / f"{shards.name}-{shards.manifest['split']}"
        taken[place] += 1
        number = f"-{taken[place]}" if taken[place] > 1 else ""
        sheet = place.with_name(f"{place.name}{number}-contact.png")
        image, damaged = contact_sheet(shards)
        written = {"contact sheet": (sheet, image)}
        for name in box_lists(shards):
            plot = place.with_name(f"{place.name}{number}-{name}.png")
            written[f"histograms of {name}"] = (plot, plot_boxes(shards, name))
        for what, (path, pixels) in written.items():
            try:
                write_png(path, pixels)
            except OSError as error:
                raise UserError(f"{path} cannot be written ({error.strerror}): type out=FOLDER") from None
            console.print(f"{what}: {path}", soft_wrap=True)
        if damaged:
            print(f"error: {folder}: damaged images: type rostro check {folder}", file=sys.stderr)
            bad += 1
    return 1 if bad else 0


def _show_run(place: str) -> int:
    from hpc.inference.card import facts
    from hpc.runs.run_dir import RunDir
    from launch.terminal import print_table

    run = RunDir.open(place)
    print_table(("run", run.name), facts(run), justify="left")
    return 0
