"""`rostro score`: judge a prediction file of another program by the evaluators of the jobs here."""

import json
import sys
from pathlib import Path
from typing import Any

from hpc.evaluation.keys import BY_GROUP, KINDS, MAX_GAP, Key
from launch.options.key_value import parse
from launch.options.option import Option, of_keys, option_lines
from launch.options.other_words import refuse_old_gate

OF_KIND = {  # the kinds that a word belongs to
    "pairs": ("verification",),
    "field": ("classes", "values"),
    "truth": ("verification", "classes", "values"),
    "ground_truth": ("wider",),
    "groups": ("classes", "values"),
}
GATE = Key(
    0.0,
    "exit code 3 where the largest gap between two groups is beyond it for certain, in the figure's unit",
    least=0,
)
OPTIONS = {
    "predictions": Option(
        "",
        "CSV with a header, JSON list of objects, or npz of columns; wider: a folder of event/name.txt",
        placeholder="FILE|DIR",
    ),
    "truth": Option(
        "", "a packed set, or a file as above; scores of pairs: a pair list", placeholder="SET|FILE"
    ),
    "ground_truth": Option(
        "", "wider: the folder of the official .mat files, eval_tools/ground_truth", placeholder="DIR"
    ),
    "field": Option("", "classes, values: the label (default: the one that both name)", placeholder="NAME"),
    "pairs": Option("", "verification: judge embeddings on this pair list only", placeholder="FILE"),
    "missing": Option("error", "skip: leave out what has no prediction", choices=("error", "skip")),
    "bootstrap": Option(1000, "rounds of the intervals (0 = none)", least=0),
    "out": Option(
        "",
        "folder of the report (default: FILE without its suffix, .FIELD if field= is typed, and .report)",
        placeholder="DIR",
    ),
    "name": Option("", "what tables call it (default: the file's name)", placeholder="TEXT"),
    **of_keys({name: key for name, key in BY_GROUP.items() if name != MAX_GAP}),
    **of_keys({MAX_GAP: GATE}),
}
HELP = f"""
usage: rostro score verification|classes|values predictions=FILE truth=SET|FILE [key=value ...]
       rostro score wider predictions=DIR ground_truth=DIR [key=value ...]

Judges what any program predicted by the same figures as `rostro evaluate`, and writes the same report:
report.json, report.html and pictures. `rostro compare` puts it beside runs. Columns of the predictions:

  verification  a, b, score: pairs of images and their score; truth= is a pair list. Or image, embedding_0,
                embedding_1 ... (npz: image [n], embedding [n, d]); truth= is a packed set
  classes       image, and FIELD (a class by name or number) or FIELD_0, FIELD_1 ... (logits, or
                probabilities that sum to 1; for bits logits)
  values        image, FIELD
  wider         the official text files of WIDER FACE's validation images: the name, how many detections, and
                a line `x y width height score` for each. The last line printed is JSON: easy, medium, hard

An image is named as in the packed set (`tar t`, `rostro predict in=SET`) or as in the truth's column image;
the suffix does not matter. Exit code 3: a gate does not hold.

{option_lines(OPTIONS)}

example: rostro score values predictions=ages.csv truth=shards/utkface/eval field=age
         rostro score wider predictions=widerface_txt ground_truth=eval_tools/ground_truth
"""


def main(argv: list[str]) -> int:
    refuse_old_gate(argv)
    keys = parse(argv, OPTIONS, positional=("kind",), required=("kind", "predictions"))
    from data_shards.errors import UserError
    from hpc.config.types import near

    if keys.kind not in KINDS:
        raise UserError(f"{keys.kind} is not a kind: {near(keys.kind, KINDS, what='kind')}")
    for key, kinds in OF_KIND.items():
        if getattr(keys, key) and keys.kind not in kinds:
            raise UserError(f"{key}={getattr(keys, key)} does not belong to kind {keys.kind}: leave it out")
    needed = "ground_truth" if keys.kind == "wider" else "truth"
    if not getattr(keys, needed):
        raise UserError(f"{needed} is missing: add {OPTIONS[needed].typed(needed)}")
    from hpc.evaluation import report as report_file
    from hpc.evaluation.scored import Asked, score
    from hpc.metrics.wider import SETTINGS
    from launch.terminal import print_report

    predictions = Path(keys.predictions)
    asked = Asked(
        predictions,
        Path(getattr(keys, needed)),
        field=keys.field,
        pairs=Path(keys.pairs) if keys.pairs else None,
        groups=tuple(name.strip() for name in keys.groups.split(",") if name.strip()),
        max_gap=getattr(keys, MAX_GAP),
        support=keys.support,
        skip=keys.missing == "skip",
        rounds=keys.bootstrap,
    )
    evaluator, report = score(keys.kind, asked)
    suffix = f".{keys.field}.report".replace("..", ".")
    beside = predictions.with_name(predictions.name + suffix) if predictions.is_dir() else None
    out = Path(keys.out) if keys.out else beside or predictions.with_suffix(suffix)
    head = {"run": keys.name or predictions.stem, "kind": keys.kind} | _judged_on(asked.truth)
    head |= {"predictions": str(predictions), needed: getattr(keys, needed), "bootstrap": keys.bootstrap}
    content = report_file.write(out, head, {evaluator: report})
    print_report(evaluator, report)
    print(f"{out}/{', '.join(('report.json', 'report.html', *content['pictures_drawn']))}")
    if keys.kind == "wider":
        figures = {name: round(report.scalars[name], 6) for name in SETTINGS if name in report.scalars}
        print(json.dumps(figures | report.facts["wider"]))
    if report.gate:
        print(f"error: {report.gate.strip()}", file=sys.stderr)
    return 3 if report.gate else 0


def _judged_on(truth: Path) -> dict[str, Any]:
    """Return the entries of report.json that say what was judged, as those of a run's report."""
    from data_shards.shard_format.manifest import read_manifest

    if not (truth / "manifest.json").is_file():
        return {"set": truth.name, "split": None}
    manifest, digest = read_manifest(truth)
    return {"set": manifest["name"], "split": manifest.get("split"), "manifest_sha256": digest}
