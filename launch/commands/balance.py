"""`rostro balance`: a part of a packed set with as many images or persons of each group, and weights."""

from pathlib import Path

from launch.options.key_value import parse
from launch.options.option import Option, option_lines

OPTIONS = {
    "by": Option(
        "",
        "labels that make the groups together: classes, age (in bands), few numbers, or a bit as "
        "attributes.Male",
        placeholder="LABEL,...",
    ),
    "per_group": Option(
        0, "images of each group (0 = as many as the smallest has, or all of identities=)", least=0
    ),
    "identities": Option(0, "persons of each group (0 = persons do not count)", least=0),
    "least": Option(1, "groups with fewer images are left out", least=1),
    "seed": Option(0, "of who is chosen"),
    "out": Option("", "new folder of rows.csv, weights.csv and balance.json", placeholder="FOLDER"),
}
HELP = f"""
usage: rostro balance SET by=LABEL,... out=FOLDER [key=value ...]

Chooses as many images, or persons, of each group of a packed set, by a hash: the same set and keys give the
same list. A run trains on it by

    data.rows=@FOLDER/rows.csv                                  the chosen part
    data.order=weighted data.weights=@FOLDER/weights.csv        the whole set, each group equally often

{option_lines(OPTIONS, {"SET": "a packed set, e.g. shards/utkface/train"})}

example: rostro balance shards/utkface/train by=race,gender per_group=200 out=balanced
"""


def main(argv: list[str]) -> int:
    keys = parse(argv, OPTIONS, positional=("set",), required=("set", "by", "out"))
    from data_shards.errors import UserError
    from data_shards.inspect.balance import balance, write_balance
    from data_shards.shard_format.shard_set import ShardSet
    from launch.terminal import print_table

    by = list(dict.fromkeys(name.strip() for name in keys.by.split(",") if name.strip()))
    if not by:
        raise UserError("by= is empty: type for example by=race,gender")
    out = Path(keys.out)
    if out.exists():
        raise UserError(f"out={out} exists: remove it, or choose another name")
    shards = ShardSet.open(keys.set)
    asked = {name: getattr(keys, name) for name in ("per_group", "identities", "least", "seed")}
    part = balance(shards, by, **asked)
    try:
        write_balance(out, shards, by, part, asked)
    except OSError as error:
        raise UserError(f"out={out} cannot be written ({error.strerror}): choose another place") from None
    titles = [",".join(by), "images", "share", "chosen", "share", "weight of an image"]
    titles += ["persons", "chosen persons"] if part.people else []
    before, after = sum(part.before), sum(part.after)
    rows = []
    for code, name in enumerate(part.names):
        images, chosen = part.before[code], part.after[code]
        row = [name, f"{images:,}", f"{images / before:.1%}", f"{chosen:,}", f"{chosen / after:.1%}"]
        row.append(f"{min(part.before) / images:.3g}")
        rows.append(row + [f"{count:,}" for count in (part.people[code] if part.people else ())])
    print_table(titles, rows)
    for name, images in part.left_out.items():
        print(f"left out: {name}, {images:,} images")
    if part.unknown:
        print(f"left out: {part.unknown:,} images whose group is not known")
    print(
        f"{out}/rows.csv, weights.csv, balance.json: {after:,} of {len(shards):,} images of {shards.folder}"
    )
    return 0
