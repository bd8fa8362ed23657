"""An embedder that was trained here, as a network of features: `features=run:RUN`, a run of siamese."""

import hashlib

from torch import Tensor

from data_shards.errors import UserError
from hpc.evaluation.features import FeatureNetwork, open_features
from hpc.inference.embedder import EMBEDDING, embeds
from hpc.inference.predictor import Predictor, load_run
from hpc.optim.groups import digest
from hpc.task import Batch


def open_any(word: str, sha256: str = "") -> FeatureNetwork:
    """Open what `features=` names, a run too. Raises UserError."""
    kind, _, run = word.partition(":")
    if kind != "run" or not run:
        return open_features(word, sha256)
    network = of_run(load_run(run))
    if sha256 and not network.digest.startswith(sha256.lower()):
        raise UserError(
            f"features={word}: the digest of its weights is {network.digest}, but features_sha256={sha256}: "
            "give the run that was meant, or leave features_sha256 out"
        )
    return network


def of_run(model: Predictor) -> FeatureNetwork:
    """Return the embeddings of a run as features. UserError where its task gives none."""
    task, nets, side = model.task, model.nets, model.config.data.size

    def compute(images: Tensor) -> tuple[Tensor, None]:
        return task.predict(nets, Batch.of_images(images))[EMBEDDING], None

    if not embeds(model):
        raise UserError(
            f"features=run:{model.run}: task {model.config.task['name']} gives no embedding: give a run of "
            "task=siamese"
        )
    hashed = hashlib.sha256("".join(digest(nets[name]) for name in sorted(nets)).encode()).hexdigest()
    return FeatureNetwork(f"run {model.name}", hashed, compute, side=side, nets=tuple(nets.values()))
