"""What `rostro predict` learns of a run besides its network: names of classes, and what val has chosen."""

from pathlib import Path

from data_shards.shard_format.manifest import read_manifest, schema_of
from hpc.evaluation import chosen
from hpc.evaluation.base import Evaluator
from hpc.inference.predictor import Predictor


def learn_names(model: Predictor) -> None:
    """Tell the task the names of classes, from the first set of the run that is still there."""
    data = model.config.data
    for folder in filter(None, (data.train, data.val, data.eval)):
        if "://" not in folder and (Path(folder) / "manifest.json").is_file():
            schema = schema_of(read_manifest(Path(folder))[0])
            model.task.known_fields = dict(schema.fields)
            return


def learn_chosen(model: Predictor) -> list[str]:
    """Give the task the temperatures and thresholds that its evaluators chose on val; return notes."""
    choosing = [
        name for name, make in model.task.evaluators.items() if type(make()).choose is not Evaluator.choose
    ]
    if not choosing:
        return []
    kept = chosen.stored(model)
    if kept is None:
        return [
            f"note: {', '.join(choosing)}: confidences are as the network gives them; `rostro evaluate "
            f"{model.run}` calibrates them on val"
        ]
    model.task.chosen = kept["evaluators"]
    return [f"  confidences are calibrated: {chosen.in_words(kept)}"]
