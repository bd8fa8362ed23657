"""`rostro pairs`: write a list of pairs of a packed set, for `rostro evaluate pairs=` and other programs."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from launch.options.key_value import parse
from launch.options.option import Option, option_lines

if TYPE_CHECKING:
    import numpy as np

    from data_shards.shard_format.shard_set import ShardSet

OPTIONS = {
    "out": Option("", "file of the list"),
    "n": Option(500, "pairs of each kind", least=1, most=1_000_000),
    "seed": Option(0, "seed of the draw"),
    "format": Option(
        "lfw",
        "LFW's pairsDevTest (`n`, then `Name n1 n2` and `Name1 n1 Name2 n2`); or paths: `a/1 b/2 0|1`",
        choices=("lfw", "paths"),
    ),
}
HELP = f"""
usage: rostro pairs SET out=FILE [key=value ...]

Draws pairs of images of one person and of two people, as many of each. People are drawn first, then their
images, so that a person with more images does not count more. The same set and keys give the same list.

{option_lines(OPTIONS, {"SET": "a packed set, e.g. shards/people/eval"})}

example: rostro pairs shards/lfw/eval out=pairs.txt n=300
"""
TRIES = 100  # draws for each pair before the set is called too small


def main(argv: list[str]) -> int:
    from data_shards.errors import UserError
    from data_shards.files import write_bytes
    from data_shards.shard_format.shard_set import ShardSet

    keys = parse(argv, OPTIONS, positional=("set",), required=("set", "out"))
    out = Path(keys.out)
    if out.exists():
        raise UserError(f"out={out} exists: remove it, or choose another name")
    shards = ShardSet.open(keys.set, fields=("identity",))
    lines = lines_of(shards, n=keys.n, seed=keys.seed, lfw=keys.format == "lfw")
    try:
        write_bytes(out, "".join(f"{line}\n" for line in lines).encode())
    except OSError as error:
        raise UserError(f"out={out} cannot be written ({error.strerror}): choose another place") from None
    print(f"{out}: {keys.n:,} pairs of one person and {keys.n:,} of two, of {shards.folder}")
    return 0


def lines_of(shards: "ShardSet", *, n: int, seed: int, lfw: bool) -> list[str]:
    """Return the lines of the list, sorted within each kind."""
    genuine, impostors = draw(shards, n=n, seed=seed, same=True), draw(shards, n=n, seed=seed, same=False)
    if not lfw:
        named = [(pair, 1) for pair in genuine] + [(pair, 0) for pair in impostors]
        return [f"{_path(shards, a)} {_path(shards, b)} {label}" for (a, b), label in named]
    written = [str(n)]
    for a, b in genuine:
        (name, first), (_, second) = _numbered(shards, a), _numbered(shards, b)
        written.append(f"{name}\t{first}\t{second}")
    return written + ["\t".join((*_numbered(shards, a), *_numbered(shards, b))) for a, b in impostors]


def draw(shards: "ShardSet", *, n: int, seed: int, same: bool) -> list[tuple[int, int]]:
    """Draw n different pairs of rows: of one person, or of two."""
    import numpy as np

    from data_shards import counter_rng
    from data_shards.errors import UserError

    start = np.asarray(shards.identity_start).astype(np.int64)
    sizes = np.diff(start)
    people = np.flatnonzero(sizes >= (2 if same else 1))
    pairs: set[tuple[int, int]] = set()
    stream = counter_rng.key(seed, "genuine list" if same else "impostor list")
    for number in range(TRIES * n if len(people) >= (1 if same else 2) else 0):
        drawn = counter_rng.uniform(stream, np.array([number]), 4)[0]
        one = _pick(people, drawn[0])
        two = one if same else _pick(people[people != one], drawn[1])
        a = int(drawn[2] * sizes[one])
        b = int(drawn[3] * (sizes[two] - same))
        b += same and b >= a  # another image of the same person
        pairs.add(tuple(sorted((int(start[one]) + a, int(start[two]) + b))))  # type: ignore[arg-type]
        if len(pairs) == n:
            return sorted(pairs)
    what = "of one person" if same else "of two people"
    raise UserError(f"n={n}: {shards.folder} gave only {len(pairs)} pairs {what}: type a smaller n=")


def _pick(people: "np.ndarray", share: float) -> int:
    return int(people[int(share * len(people))])


def _path(shards: "ShardSet", row: int) -> str:
    from data_shards.errors import UserError

    name = shards.identity_names()[int(shards.labels["identity"][row])]
    if re.search(r"\s", name):
        raise UserError(f"format=paths: the name `{name}` holds a blank: pack the set with plain names")
    return f"{name}/{shards.member(row).partition('/')[2]}"


def _numbered(shards: "ShardSet", row: int) -> tuple[str, str]:
    """Return (name, number) of an image that is called `<name>_<number>`, as LFW's are."""
    from data_shards.errors import UserError
    from data_shards.shard_format.keys import member_key

    name = shards.identity_names()[int(shards.labels["identity"][row])]
    member = shards.member(row).removesuffix(".jpg")
    number = re.search(r"_([0-9]{4,9})$", member)
    if re.search(r"\s", name) or not number or member_key(name, f"{name}_{int(number[1]):04d}") != member:
        raise UserError(f"format=lfw: `{member}` is not called `Name_0001` as LFW's are: type format=paths")
    return name, str(int(number[1]))
