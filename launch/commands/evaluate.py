"""`rostro evaluate`: compute the figures of a run on held-out people or a pair list, beside two baselines."""

from pathlib import Path
from typing import Any

from launch.options.key_value import parse
from launch.options.option import Option, option_lines
from launch.start import set_digests

OPTIONS = {
    "data": Option("", "a packed set (default: the run's data.eval)", placeholder="DIR"),
    "pairs": Option(
        "",
        "a pair list: LFW's formats, lines `person/image person/image 0|1`, or those as CSV;\n"
        "`rostro pairs` makes one (default: all pairs of the set)",
        placeholder="FILE",
    ),
    "missing": Option(
        "error", "skip: leave out listed pairs whose images are not in the set", choices=("error", "skip")
    ),
    "overlap": Option("refuse", "allow: judge people of the training set too", choices=("refuse", "allow")),
    "keep": Option(
        False, "true: keep the threshold of these pairs for `rostro verify`, in place of data.val's"
    ),
    "checkpoint": Option("best", "best | last | a clock"),
    "weights": Option(
        "auto", "ema | raw | auto: the average where the run kept one", choices=("ema", "raw", "auto")
    ),
    "bootstrap": Option(1000, "rounds of the intervals (0 = none)", least=0),
}
HELP = f"""
usage: rostro evaluate RUN [key=value ...]

Judges the siamese network of a run on people it has not seen: EER and AUC with 95 % intervals, accuracy by
LFW's 10-fold protocol, TAR at fixed FAR, beside the untrained network and plain pixels. Checkpoint and
threshold are chosen on the run's data.val, data.eval is reported. Writes RUN/evaluations/<set>/report.json,
roc.png and scores.png, and RUN/threshold.json for `rostro verify`.

{option_lines(OPTIONS, {"RUN": "a run directory, e.g. runs/faces"})}

example: rostro evaluate runs/faces
         rostro evaluate runs/faces data=shards/lfw_all/train pairs=pairs.txt missing=skip
"""


def main(argv: list[str]) -> int:
    keys = parse(argv, OPTIONS, positional=("run",), required=("run",))
    from data_shards.errors import UserError
    from data_shards.shard_format.shard_set import ShardSet
    from hpc.evaluation.verification import assess
    from hpc.inference.predictor import load_run
    from hpc.runs.run_dir import RunDir

    data = RunDir.open(keys.run).config().data
    folder = keys.data or data.eval or data.val
    if not folder:
        raise UserError(f"data is missing: {keys.run} held no people out; add data=DIR, a packed set")
    if not keys.data and not Path(folder, "manifest.json").is_file():
        raise UserError(
            f"{folder}, the held-out set of {keys.run}, is not there any more: give data=DIR, where it is now"
        )
    shards = ShardSet.open(folder, fields=("identity",))
    model = load_run(keys.run, checkpoint=keys.checkpoint, weights=keys.weights)
    report = assess(
        model,
        shards,
        pairs=Path(keys.pairs) if keys.pairs else None,
        skip=keys.missing == "skip",
        rounds=keys.bootstrap,
        overlap=keys.overlap == "allow",
        choice=choice(RunDir.open(keys.run), anew=not keys.data and not keys.pairs, keep=keys.keep),
        progress=progress,
    )
    show(report)
    return 0


def choice(run: Any, *, anew: bool, keep: bool) -> Any:
    """Return who chooses the threshold of a run's evaluation, and who chose its checkpoint."""
    from data_shards.shard_format.shard_set import ShardSet
    from hpc.config import held_out
    from hpc.data import known_people
    from hpc.evaluation.verification import Choice

    data = run.config().data
    split = held_out.validation(data)
    if not split:
        return Choice(keep=keep)
    folder = Path(getattr(data, split))
    shards = ShardSet.open(folder, fields=("identity",)) if folder.is_dir() else None
    if shards and set_digests.recorded(run).get(split, shards.digest) != shards.digest:
        shards = None  # the folder holds another set now
    people = known_people.read(run.path, str(folder), role=known_people.CHOSEN)
    return Choice(shards, people, unknown=people is None, anew=anew, keep=keep)


def progress(text: str, blocks: Any) -> Any:
    """Return the blocks, with a progress bar on stderr if that is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(blocks, description=text, console=console, transient=True, disable=not console.is_terminal)


def show(report: dict[str, Any]) -> None:
    """Print the report as one table and a few lines."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    trial = report["trial"]
    console.print(title(report))
    table = Table()
    table.add_column("", no_wrap=True)
    rates = list(report["rows"][0]["tar"])
    for head in ("EER", "AUC", "accuracy", *(f"TAR@{rate.removeprefix('far=')}" for rate in rates)):
        table.add_column(head, justify="right", no_wrap=True)
    for row in report["rows"]:
        tars = [f"{row['tar'][rate]:.3f}" if row["tar"][rate] is not None else "-" for rate in rates]
        table.add_row(row["name"], figure(row, "eer"), figure(row, "auc"), accuracy(row), *tars)
    wide = Console(highlight=False, width=max(console.width, 150))
    wide.print(table)
    notes = [f"accuracy: {trial['accuracy']}, threshold from the other folds"]
    few = "; -: fewer impostor pairs than 10 / FAR" if None in report["rows"][0]["tar"].values() else ""
    notes.append(f"TAR@x: true accept rate where the false accept rate is x{few}")
    if report["bootstrap"]:
        notes.append(f"[lo hi]: 95 %, {report['bootstrap']} resamples of the people")
    for line in notes:
        console.print(f"  {line}", markup=False)
    for line in (*threshold_lines(report), f"{report['folder']}/report.json, roc.png, scores.png"):
        console.print(line, markup=False)


def threshold_lines(report: dict[str, Any]) -> list[str]:
    """Return the lines on the threshold: its origin, its effect, and whether these people chose it."""
    from hpc.config.held_out import CHOSEN

    origin, rates = report["threshold_from"], report["at_threshold"]
    place = f"{origin['set']} {origin['split'] or ''}".strip()
    source = (
        "of these pairs" if origin["these_pairs"] else f"chosen on {place}, EER {origin['eer']:.3f} there"
    )
    lines = [
        f"threshold {report['threshold']:.4f} ({report['score']}), {source}"
        + ("; kept for `rostro verify`" if report["kept"] else ""),
        f"  it accepts {rates['false_accepts']:.1%} of the impostor pairs here "
        f"and rejects {rates['false_rejects']:.1%} of the genuine ones",
    ]
    if report["chosen_on_these_people"]:
        some = report["people_of_validation"], report["identities"]
        lines.append(f"note: {CHOSEN}" + (f" ({some[0]} of {some[1]})" if some[0] < some[1] else ""))
    if report["chosen_on_these_people"] is None:
        lines.append(
            "note: it is not known who chose checkpoint and threshold: they may be among these people"
        )
    if report["people_of_training"]:
        lines.append(f"note: {report['people_of_training']} of these people are in the training set")
    if report["people_of_training"] is None:
        lines.append("note: it is not known whom this run was trained on: its people could not be compared")
    return lines


def title(report: dict[str, Any]) -> str:
    """Return the first line of the report: the set, its people and its pairs."""
    trial = report["trial"]
    genuine, impostors = trial["genuine"], trial["impostors"]
    drawn = f" drawn of {trial['impostors_in_all']:,}" if trial["impostors_in_all"] > impostors else ""
    text = f"{report['set']} {report['split'] or ''}".strip()
    text += f": {report['pictures']:,} images of {report['identities']:,} people, "
    text += f"{genuine:,} genuine and {impostors:,} impostor pairs{drawn}"
    if "listed" in trial:
        text += f"; {trial['usable']:,} of {trial['listed']:,} pairs of {trial['file']} "
        text += f"({trial['format']}) are usable"
    return text


def figure(row: dict[str, Any], name: str) -> str:
    """Return a figure with its interval."""
    interval = row["intervals_95"].get(name)
    spread = f" \\[{interval[0]:.3f} {interval[1]:.3f}]" if interval else ""
    return f"{row[name]:.3f}{spread}"


def accuracy(row: dict[str, Any]) -> str:
    """Return the mean accuracy of the folds and its deviation."""
    folds = row["accuracy"]
    return f"{folds['mean']:.3f} ± {folds['std']:.3f}" if folds else "-"
