"""`rostro audit-data`: what packed sets share across a split, hold twice, label both ways, or cannot show."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from launch.options.key_value import is_place, parse
from launch.options.option import Option, option_lines

if TYPE_CHECKING:
    from data_shards.inspect.audit import Audit

OPTIONS = {
    "out": Option(
        "", "folder of audit.json and the contact sheets (default: <first DIR>-audit)", placeholder="FOLDER"
    ),
    "distance": Option(
        48, "bits of 256 in which the hashes of near duplicates may differ", least=0, most=128
    ),
    "correlation": Option(0.8, "of their greys, at least", least=0.0, most=1.0),
    "tolerance": Option(
        0.05, "of a label's range: numbers of one picture that differ by more contradict", least=0.0
    ),
    "tiny": Option(32, "pixels of the shorter side below which an image is tiny", least=0),
    "sharp": Option(
        15.0, "variance of the Laplacian below which an image is blurred, of a shorter side of 96", least=0.0
    ),
    "empty": Option(5.0, "standard deviation of greys below which an image has no content", least=0.0),
    "embedding": Option(
        "", "run of task=siamese: also compare its embeddings of all images", placeholder="RUN"
    ),
    "alike": Option(0.95, "cosine of two embeddings from which a pair is listed", least=-1.0, most=1.0),
    "workers": Option(2, "processes; they change no finding", least=1),
}
HELP = f"""
usage: rostro audit-data DIR... [key=value ...]

Looks at every image of packed sets and lists persons, clips and pictures that are in several of them, equal
and nearly equal pictures, contradictory labels, images that are damaged, empty, tiny or blurred, and how
many images each class and group has. Writes audit.json and a contact sheet of the worst of each kind. They
are images of people: mind where out= puts them.
Exit code 1 if a split leaks: sets of two splits (train and eval) share a person, a clip or a picture.

{option_lines(OPTIONS, {"DIR": "a packed set, or a folder of sets, such as a pack with train, val and eval"})}

example: rostro audit-data shards/utkface
"""


def main(argv: list[str]) -> int:
    places = [word for word in argv if is_place(word) and not word.startswith("-")]
    keys = parse([word for word in argv if word not in places], OPTIONS)
    from data_shards.errors import UserError
    from data_shards.inspect.audit import Limits, audit
    from data_shards.inspect.check import find_sets
    from data_shards.shard_format.shard_set import ShardSet
    from launch.terminal import progress_bar

    if not places:
        raise UserError("DIR is missing: add packed sets, or a folder of them")
    folders = list(dict.fromkeys(folder.absolute() for place in places for folder in find_sets(Path(place))))
    out = Path(keys.out or f"{Path(places[0]).absolute()}-audit")
    if out.exists() and not out.is_dir():
        raise UserError(f"out={out} is not a folder: give another one")
    sets = [ShardSet.open(folder) for folder in folders]
    names = ("distance", "correlation", "tolerance", "tiny", "sharp", "empty")
    limits = Limits(**{name: getattr(keys, name) for name in names})
    found = audit(sets, limits, workers=keys.workers, bar=progress_bar)
    if keys.embedding:
        _add_alike(found, keys.embedding, keys.alike)
    _write(found, out)
    _print(found, out, embedded=bool(keys.embedding))
    if found.leaks:
        print(
            f"error: {found.leaks:,} findings are on both sides of a split: its figures do not say how "
            "new images fare; take them out of one side and pack again",
            file=sys.stderr,
        )
    return 1 if found.leaks else 0


def _add_alike(found: "Audit", run: str, least: float) -> None:
    """Add the pairs that the network of a run finds alike, unless their pictures are known to be equal."""
    from data_shards.inspect.findings import Finding
    from hpc.inference.alike import alike_pairs
    from hpc.inference.predictor import load_run
    from launch.terminal import track

    model = load_run(run, checkpoint="best", weights="auto")
    known = {number: place for place, each in enumerate(found.clusters) for number in each.members}
    for first, second, cosine in alike_pairs(model, found.sets.sets, least=least, progress=track):
        if known.get(first, -1) != known.get(second, -2):
            found.findings.append(Finding("alike", (first, second), f"cosine {cosine:.3f}", cosine))


def _write(found: "Audit", out: Path) -> None:
    from data_shards.files import write_json
    from data_shards.inspect.findings import KINDS, by_kind
    from data_shards.inspect.sheets import finding_sheet
    from data_shards.inspect.summary import write_png

    out.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:  # of an earlier audit
        (out / f"{kind}.png").unlink(missing_ok=True)
    for kind, findings in by_kind(found.findings).items():
        write_png(out / f"{kind}.png", finding_sheet(found.sets, findings))
    write_json(out / "audit.json", found.to_json())


def _print(found: "Audit", out: Path, *, embedded: bool) -> None:
    from data_shards.inspect.findings import KINDS
    from launch.terminal import print_table

    for name, shards in zip(found.sets.names, found.sets.sets, strict=True):
        print(f"{name}: {len(shards):,} images, {shards.folder}")
    rows = [
        (kind, KINDS[kind], *(f"{count:,}" for count in counts))
        for kind, *counts in found.counts()
        if kind != "alike" or embedded
    ]
    print_table(("kind", "what", "found", "images", "in several sets", "leaks"), rows)
    for label, groups in found.balance.items():
        totals = [max(1, len(shards)) for shards in found.sets.sets]
        print_table(
            (label, *found.sets.names),
            [
                (name, *(f"{count:,} ({count / of:.1%})" for count, of in zip(counts, totals, strict=True)))
                for name, counts in groups.items()
            ],
        )
    sheets = [f"{kind}.png" for kind, count, *_ in found.counts() if count]
    print(f"{out}/{', '.join(('audit.json', *sheets))}")
