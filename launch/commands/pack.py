"""`rostro pack`: pack a data set in its original layout into tar shards with index and manifest."""

from pathlib import Path
from typing import TYPE_CHECKING

from data_shards.errors import UserError
from launch.options.key_value import parse, whole_numbers
from launch.options.option import Option, option_lines
from launch.terminal import progress_bar

if TYPE_CHECKING:
    from data_shards.pack.pack import Packed

OPTIONS = {
    "source": Option(
        "",
        "folder (one for each identity) | classes (one for each class) | vggface2 | lfw | orl | utkface | "
        "celeba | fer2013 | affectnet | deepfake | own_face | faces_from | widerface | coco | yolo | masks | "
        "procedural | scenes",
    ),
    "src": Option("", "folder of the data set as published"),
    "out": Option("", "folder of the packed sets"),
    "holdout": Option(
        0.0, "share of the identities, never of the images, that goes to OUT/eval: reported once, at the end"
    ),
    "val": Option(
        0.0,
        "and to OUT/val, which chooses checkpoint and threshold; the rest: OUT/train. A hash of each name "
        "decides, so an identity never moves when others come or leave, and the shares are approximate",
    ),
    "holdout.exact": Option(
        False, "make both shares exact within every class; images may then move when others come or leave"
    ),
    "size": Option(
        0, "store squares of this side in pixels (centre, area filter, quality 95); 0 keeps the files"
    ),
    "split": Option(
        "train", "split of the source (vggface2: train or test); names the set where nothing is held out"
    ),
    "shard_mb": Option(100.0, "about the largest shard; small sets are cut into up to 8 even shards"),
    "workers": Option(2, "processes; they do not change a byte"),
    "verify": Option("decode", "decode every image once; none only copies"),
    "seed": Option(0, "seed of the order of the identities and of the split"),
    "name": Option("", "name of the set and its files (empty = the source's)"),
    "twins": Option(
        "",
        "low-resolution copies beside each set, as [64,256]: their shorter sides in pixels; `rostro twins` "
        "adds them later",
    ),
}
HELP = f"""
usage: rostro pack source=NAME src=DIR out=DIR [key=value ...]

Packs the images of a data set into WebDataset tar shards with index, DALI index and manifest, below
OUT/<split>. Files that are not usable images are listed with the reason in OUT/<split>/rejected.csv. Killed
at any point, the same command continues where it stopped; repeated on a finished set, it changes nothing.

{option_lines(OPTIONS)}

A source may have keys of its own, as vggface2 has crop=true (cut the boxes of loose_bb_<split>.csv) and lfw
crop=150 (pixels of the centre square that holds the face; up to 1 a share of the side; crop=1 is the whole
image): `rostro pack source=NAME --help` lists them.

example: rostro pack source=lfw src=data/lfw out=shards/lfw size=112 holdout=0.1 val=0.1
"""

HELD_OUT = {"val": "val", "eval": "holdout"}  # split: the key of its share
FEW = 10  # people of a held-out split, below which packing says so
OWN_HELP = True  # with source=NAME it lists the keys of that source


def main(argv: list[str]) -> int:
    from data_shards.pack.pack import pack
    from data_shards.pack.request import Request
    from data_shards.pack.twins import add_twins, check_sides
    from data_shards.sources.registry import open_source, source_module

    named = next((word.partition("=")[2] for word in argv if word.startswith("source=")), "")
    asked = any(word in ("-h", "--help") for word in argv)
    if asked and not named:
        print(HELP.strip())
        return 0
    if not named:
        raise UserError("source is missing: add source=folder, or another of `rostro pack --help`")
    module = source_module(named)
    meanings = getattr(module, "HELP", {})
    own = {key: Option(default, meanings.get(key, "")) for key, default in module.OPTIONS.items()}
    if asked:
        print(HELP.strip(), f"\nKeys of source={named}:", option_lines(own) if own else "  none", sep="\n")
        return 0
    needs_folder = getattr(module, "NEEDS_SRC", True)
    required = ("source", "out", *(("src",) if needs_folder else ()))
    args = parse(argv, own | OPTIONS, required=required)
    options = {key: getattr(args, key) for key in module.OPTIONS}
    out = Path(args.out)
    if args.src and Path(args.src).resolve() in (out.resolve(), *out.resolve().parents):
        raise UserError(f"out={out}: lies in src={args.src}; choose a folder outside it")
    twins = check_sides(whole_numbers("twins", args.twins), size=args.size)
    source = open_source(named, args.src, split=args.split, options=options)
    request = Request(
        split=args.split,
        size=args.size,
        holdout=args.holdout,
        val=args.val,
        shard_mb=args.shard_mb,
        verify=args.verify,
        seed=args.seed,
        exact=getattr(args, "holdout.exact"),
        name=args.name,
        options=options,
    )
    with progress_bar("packing") as progress:
        sets = pack(source, out, request, workers=args.workers, progress=progress)
    for made in sets:
        print(_summary(made), flush=True)
        with progress_bar("twins") as progress:
            if added := add_twins(made.folder, twins, workers=args.workers, progress=progress):
                print(f"  twins of {', '.join(map(str, added))} pixels")
    return 0


def _summary(made: "Packed") -> str:
    manifest = made.manifest
    size = sum(shard["bytes"] for shard in manifest["shards"])
    people = f"{manifest['identities']} identities"
    if unknown := manifest.get("unknown", 0):
        people = f"{people} ({unknown} of unknown people)" if manifest["identities"] else "unknown people"
    lines = [
        f"{made.folder}: {'is there already: ' if made.already else ''}"
        f"{manifest['samples']} images of {people} in {len(manifest['shards'])} shards ({size / 1e6:.1f} MB)"
    ]
    converted = sum(manifest["converted"].values())
    kinds = ", ".join(f"{count} {what}" for what, count in manifest["converted"].items())
    lines.append(f"  converted {converted}{f' ({kinds})' if kinds else ''}, rejected {manifest['rejected']}")
    if manifest["rejected"]:
        lines[-1] += f": see {made.folder / 'rejected.csv'}"
    if mended := manifest.get("mended"):
        lines.append(f"  mended {', '.join(f'{count} {what}' for what, count in mended.items())}")
    split = manifest["split"]
    if manifest.get(HELD_OUT.get(split, "")) and manifest["identities"] + unknown < FEW:
        known = manifest["identities"]
        few = f"{known + unknown} people" if known else f"{unknown} images of unknown people"
        lines.append(
            f"  only {few}: figures and thresholds from so few are rough; "
            f"raise {HELD_OUT[split]}= or take another seed="
        )
    return "\n".join(lines)
