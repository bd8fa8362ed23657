"""`rostro twins`: add low-resolution copies of its images to a packed set."""

from pathlib import Path

from launch.options.key_value import parse, whole_numbers
from launch.options.option import Option, option_lines
from launch.terminal import progress_bar

OPTIONS = {
    "sizes": Option("", "shorter sides in pixels, as [64,256]: PNG up to 64, JPEG of quality 99 above"),
    "workers": Option(2, "processes; they do not change a byte", least=1),
}
HELP = f"""
usage: rostro twins DIR sizes=[64,256] [workers=2]

Writes every image of a packed set (or of all sets in a folder) again, reduced to each of these sizes, as
tars beside the set's own, DIR/twins/<size>. A training at a low resolution reads them with
data.twins=[64,256]. The set itself does not change, and runs that began without twins resume as before.
Sizes that are there stay. Killed at any point, the same command continues where it stopped.

{option_lines(OPTIONS, {"DIR": "a packed set, or a folder of them"})}

example: rostro twins shards/faces/train sizes=[64,256]
"""


def main(argv: list[str]) -> int:
    from data_shards.errors import UserError
    from data_shards.inspect.check import find_sets
    from data_shards.pack.twins import add_twins, check_sides

    args = parse(argv, OPTIONS, positional=("DIR",), required=("DIR", "sizes"))
    sizes = check_sides(whole_numbers("sizes", args.sizes), key="sizes")
    if not sizes:
        raise UserError("sizes= is empty: type for example sizes=[64,256]")
    for folder in find_sets(Path(args.DIR)):
        with progress_bar("twins") as progress:
            added = add_twins(folder, sizes, workers=args.workers, progress=progress)
        made = f"twins of {', '.join(map(str, added))} pixels" if added else "has them already"
        print(f"{folder}: {made}", flush=True)
    return 0
