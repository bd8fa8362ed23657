"""`rostro evaluate`: judge a run on a held-out set by the evaluators of its task, and write the report."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpc.evaluation import keys as evaluators
from launch.options.key_value import parse, typed
from launch.options.option import Option, of_keys, option_lines
from launch.options.other_words import refuse_old_gate
from launch.start import set_digests

COMMON = {
    "data": Option("", "a packed set (default: the run's data.eval)", placeholder="DIR"),
    "checkpoint": Option("best", "best | last | a clock"),
    "weights": Option(
        "auto", "ema | raw | auto: the average where the run kept one", choices=("ema", "raw", "auto")
    ),
    "bootstrap": Option(1000, "rounds of the intervals (0 = none)", least=0),
}
GATE_FAILED = 3  # exit code
OPTIONS = COMMON | of_keys(evaluators.all_keys())
HELP = f"""
usage: rostro evaluate RUN [key=value ...]

Judges a run on a set it has not seen, by the evaluators of its task: figures with 95 % intervals, and by
groups of people where the set has labels for them. What is chosen (checkpoint, threshold, temperature) is
chosen on the run's data.val, data.eval is reported. Writes RUN/evaluations/<set>/report.json, report.html
and pictures; TensorBoard shows it too. Exit code 3: a gate does not hold.

{option_lines(COMMON, {"RUN": "a run directory, e.g. runs/faces"})}

verification (task=siamese): EER and AUC, accuracy by LFW's 10-fold protocol, TAR at fixed FAR, beside the
untrained network and plain pixels; the threshold goes to RUN/threshold.json for `rostro verify`.

{option_lines(of_keys(evaluators.VERIFICATION))}

classes, values: accuracy, F1, AUC, confusion and calibration; MAE; all by group and by two labels together,
with the gap between groups, beside baselines. A word may be meant for one evaluator: age.support=30.

{option_lines(of_keys(evaluators.CLASSES))}

wider (task=yolov5): easy, medium and hard by the official protocol of WIDER FACE; missing=skip judges
only the images that are there, not all 3,226 of the official set.

{option_lines(of_keys({name: evaluators.WIDER[name] for name in ("ground_truth", "written")}))}

objects (task=yolov5): AP and AR by COCO's protocol, precision and recall; recall by group as above.

{option_lines(of_keys({"least": evaluators.DETECTIONS["least"]}))}

generated (task=dcgan and others that make images): Frechet distance, KID, precision and recall of features,
and the nearest training images beside samples.

{option_lines(of_keys(evaluators.GENERATED))}

ab, ba (task=cyclegan): the distance of translated images of one domain from real ones of the other. They take
the words of `generated` but samples=, such as features=.

cycles (task=cyclegan): L1 of images that went there and back, and what identity a translated face keeps.

{option_lines(of_keys(evaluators.CYCLES))}

example: rostro evaluate runs/faces
         rostro evaluate runs/faces data=shards/lfw_all/train pairs=pairs.txt missing=skip
         rostro evaluate runs/gender gate.max_gap=0.1
"""


def main(argv: list[str]) -> int:
    refuse_old_gate(argv)
    options = _options(argv)
    keys = parse(argv, options, positional=("run",), required=("run",))
    from data_shards.errors import UserError
    from data_shards.shard_format.shard_set import ShardSet
    from hpc.inference.judge import judge
    from hpc.inference.predictor import load_run
    from hpc.runs.run_dir import RunDir
    from launch.terminal import print_report

    run = RunDir.open(keys.run)
    data = run.config().data
    folder = keys.data or data.eval or data.val
    if not folder:
        raise UserError(f"data is missing: {keys.run} held no people out; add data=DIR, a packed set")
    if not keys.data and not Path(folder, "manifest.json").is_file():
        raise UserError(
            f"{folder}, the held-out set of {keys.run}, is not there any more: give data=DIR, where it is now"
        )
    words = {name: getattr(keys, name) for name in typed(argv, options) if name not in COMMON}
    model = load_run(keys.run, checkpoint=keys.checkpoint, weights=keys.weights, helpers=True)
    shards = ShardSet.open(folder, fields=model.task.plan.roles.get("eval", ()))
    request = _request(run, shards, own=not keys.data, rounds=keys.bootstrap)
    content, reports = judge(model, request, words)
    for name, report in reports.items():
        print_report(name, report)
    files = ("report.json", "report.html", *content["pictures_drawn"])
    print(f"{content['folder']}/{', '.join(files)}")
    failed = [f"{name}: {report.gate.strip()}" for name, report in reports.items() if report.gate]
    for text in failed:
        print(f"error: {text}", file=sys.stderr)
    return GATE_FAILED if failed else 0


def _options(argv: Sequence[str]) -> dict[str, Option]:
    """Return all options; where a word is none of them, the run's task may have evaluators of its own."""
    unknown = [word for word in argv if "=" in word and word.partition("=")[0] not in (*OPTIONS, "run")]
    runs = [word for word in argv if Path(word, "config.yaml").is_file()]
    if not unknown or not runs:
        return OPTIONS
    from hpc.runs.run_dir import RunDir
    from hpc.task import build_task

    own = build_task(RunDir.open(runs[0]).config()).judged_by
    found = dict(OPTIONS)
    for name, make in own.items():
        keys = of_keys(make().KEYS)
        found |= keys | {f"{name}.{word}": key for word, key in keys.items()}
    return found


def _request(run: Any, shards: Any, *, own: bool, rounds: int) -> Any:
    """Return what is judged, and who chose the run's threshold and checkpoint."""
    from hpc.config import held_out
    from hpc.data import known_people
    from hpc.evaluation.base import Request

    data = run.config().data
    request = Request(shards, {}, rounds=rounds, own=own, progress=progress)
    request.training = _own_set(run, "train")
    split = held_out.validation(data)
    if not split:
        return request
    request.validation = _own_set(run, split)
    request.people = known_people.read(run.path, getattr(data, split), role=known_people.CHOSEN)
    request.unknown = request.people is None
    return request


def _own_set(run: Any, split: str) -> Any:
    """Return a set of the run; None where it is not there any more, or its folder holds another one now."""
    from data_shards.shard_format.shard_set import ShardSet

    folder = getattr(run.config().data, split)
    if not folder or not Path(folder, "manifest.json").is_file():
        return None
    shards = ShardSet.open(Path(folder))
    return shards if set_digests.recorded(run).get(split, shards.digest) == shards.digest else None


def progress(text: str, blocks: Any) -> Any:
    """Return the blocks, with a progress bar on stderr if that is a terminal."""
    from launch.terminal import track

    return track(text, blocks)
