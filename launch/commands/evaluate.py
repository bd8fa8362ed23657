"""`rostro evaluate`: the figures of a run on held-out people or a pair list, beside two baselines."""

from pathlib import Path
from typing import Any

from launch.options.key_value import parse
from launch.start import data as plan

HELP = """
usage: rostro evaluate RUN [key=value ...]

Judges the siamese network of a run on people it has not seen: EER and AUC with 95 % intervals, accuracy by
LFW's 10-fold protocol, TAR at fixed FAR, beside the untrained network and plain pixels. Checkpoint and threshold
are chosen on the run's data.val, data.eval is reported. Writes RUN/evaluations/<set>/report.json, roc.png and
scores.png, and RUN/threshold.json for `rostro verify`.

  RUN                 a run directory, e.g. runs/faces
  data=DIR            a packed set                                (default: the run's data.eval)
  pairs=FILE          a pair list: LFW's formats, lines `person/picture person/picture 0|1`, or those as CSV;
                      `rostro pairs` makes one                    (default: all pairs of the set)
  missing=error       skip: leave out listed pairs whose pictures are not in the set
  overlap=refuse      allow: judge people of the training set too
  keep=false          true: keep the threshold of these pairs for `rostro verify`, in place of data.val's
  checkpoint=best     best | last | a clock
  weights=auto        ema | raw | auto: the average where the run kept one
  bootstrap=1000      rounds of the intervals; 0: none

example: rostro evaluate runs/faces
         rostro evaluate runs/faces data=shards/lfw_all/train pairs=pairs.txt missing=skip
"""
SPEC = {
    "data": "",
    "pairs": "",
    "missing": "error",
    "overlap": "refuse",
    "keep": False,
    "checkpoint": "best",
    "weights": "auto",
    "bootstrap": 1000,
}


def main(argv: list[str]) -> int:
    keys = parse(argv, SPEC, positional=("run",), required=("run",))
    from data_shards.errors import UserError

    if keys.missing not in ("error", "skip"):
        raise UserError(f"missing={keys.missing} is not known: use error or skip")
    if keys.overlap not in ("refuse", "allow"):
        raise UserError(f"overlap={keys.overlap} is not known: use refuse or allow")
    if keys.bootstrap < 0:
        raise UserError(f"bootstrap={keys.bootstrap} is negative: use 0 for no intervals, or 1000")
    from data_shards.shard_format.shard_set import ShardSet
    from hpc.evaluation.verification import assess
    from hpc.inference.predictor import load_run
    from hpc.runs.run_dir import RunDir

    data = RunDir.open(keys.run).config().data
    judged = keys.data or data.eval or data.val
    if not judged:
        raise UserError(f"data is missing: {keys.run} held no people out; add data=DIR, a packed set")
    if not keys.data and not Path(judged, "manifest.json").is_file():
        raise UserError(
            f"{judged}, the held-out set of {keys.run}, lies there no more: give data=DIR, where it is now"
        )
    shards = ShardSet.open(judged, fields=("identity",))
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
    """Who chooses the threshold of a run's evaluation, and who chose its checkpoint."""
    from data_shards.shard_format.shard_set import ShardSet
    from hpc.config import held_out
    from hpc.data import known_people
    from hpc.evaluation.verification import Choice

    data = run.config().data
    split = held_out.validation(data)
    if not split:
        return Choice(keep=keep)
    folder = Path(getattr(data, split))
    here = ShardSet.open(folder, fields=("identity",)) if folder.is_dir() else None
    if here and plan.recorded(run).get(split, here.digest) != here.digest:
        here = None  # another set lies there now
    people = known_people.read(run.path, str(folder), role=known_people.CHOSEN)
    return Choice(here, people, unknown=people is None, anew=anew, keep=keep)


def progress(text: str, blocks: Any) -> Any:
    """A bar on stderr where a person looks on."""
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
    """Which threshold, from where, what it does here, and whether the figures are those of a choice."""
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
        lines.append("note: nobody knows who chose checkpoint and threshold: they may be among these people")
    if report["people_of_training"]:
        lines.append(f"note: {report['people_of_training']} of these people are of the training")
    if report["people_of_training"] is None:
        lines.append("note: nobody knows whom this run was trained on: its people could not be compared")
    return lines


def title(report: dict[str, Any]) -> str:
    trial = report["trial"]
    genuine, impostors = trial["genuine"], trial["impostors"]
    drawn = f" drawn of {trial['impostors_in_all']:,}" if trial["impostors_in_all"] > impostors else ""
    text = f"{report['set']} {report['split'] or ''}".strip()
    text += f": {report['pictures']:,} pictures of {report['identities']:,} people, "
    text += f"{genuine:,} genuine and {impostors:,} impostor pairs{drawn}"
    if "listed" in trial:
        text += f"; {trial['usable']:,} of {trial['listed']:,} pairs of {trial['file']} ({trial['format']}) are usable"
    return text


def figure(row: dict[str, Any], name: str) -> str:
    interval = row["intervals_95"].get(name)
    spread = f" \\[{interval[0]:.3f} {interval[1]:.3f}]" if interval else ""
    return f"{row[name]:.3f}{spread}"


def accuracy(row: dict[str, Any]) -> str:
    found = row["accuracy"]
    return f"{found['mean']:.3f} ± {found['std']:.3f}" if found else "-"
