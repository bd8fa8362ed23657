"""How far are generated images from real ones? Frechet distance, KID, precision, recall, Inception Score.

The task's `predict` answers a batch without images, of positions alone, with {"image": [n, 3, h, w]} in
[-1, 1]: latents are counted by id, so every world size judges the same images, and no set is needed for them.
The judged set is what they are compared with. All images are brought to one size first. Features come from
`features.py`, figures from `hpc/metrics/generated.py`; `feature_cache.py` keeps features of real images.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from data_shards import counter_rng
from data_shards.batch import IMAGE, Batch
from data_shards.errors import UserError
from data_shards.images.pixels import square
from data_shards.loading.loader import EvalLoader
from data_shards.ragged import Ragged
from data_shards.sampling.order import evaluation_blocks
from data_shards.sampling.view import View
from data_shards.shard_format.shard_set import ShardSet
from hpc.distributed import collectives
from hpc.distributed.comm import Comm
from hpc.evaluation import feature_cache, generated_report
from hpc.evaluation.base import Evaluator, JudgedSet, Report, Request, Rows
from hpc.evaluation.features import FeatureNetwork, Opener, open_features
from hpc.evaluation.generated_report import SHOWN, TRAINING, Judged
from hpc.evaluation.keys import GENERATED
from hpc.metrics.groups import Groups

if TYPE_CHECKING:
    from hpc.inference.predictor import Predictor
    from hpc.task import Task

BLURS = (32, 16, 8)  # pixels to which real images are reduced, and enlarged again, as yardsticks


@dataclass(frozen=True)
class Walked:
    """Real images that are walked: rows of `nth` are theirs, 0 is of the generated ones."""

    nth: int
    name: str
    shards: Any
    blur: int = 0  # pixels (0 = none)


class Generated(Evaluator):
    """Judges images that the task generates from latents.

    features: as the key, for a training ("" = it must be typed). samples: generated images. references: real
    ones (0 = all). side: pixels to which all are brought. seed: of the latents. block: images of a batch.
    """

    KEYS = GENERATED

    def __init__(
        self,
        *,
        features: str = "",
        features_sha256: str = "",
        samples: int = 5000,
        references: int = 0,
        side: int = 64,
        seed: int = 0,
        block: int = 50,
        opener: Opener = open_features,
    ) -> None:
        self._options: dict[str, Any] = {
            "features": features,
            "features_sha256": features_sha256,
            "samples": samples,
            "references": references,
            "side": side,
            "yardsticks": False,
        }
        self.seed, self.block, self._open = seed, block, opener
        self._training: str = ""
        self._progress: Callable[[str, Any], Any] = lambda text, blocks: blocks
        self._network: FeatureNetwork | None = None
        self._walks: list[Walked] = []
        self._cached: dict[int, dict[str, np.ndarray]] = {}  # on rank 0: by nth
        self._now: Walked | None = None  # of the batch that `add` is given; None = generated
        self._shown: list[np.ndarray] = []  # the first generated images, uint8 [h, w, 3], on rank 0
        self._parts: list[dict[str, np.ndarray]] = []
        self._probable: list[np.ndarray | None] = []

    @property
    def options(self) -> dict[str, Any]:
        """What was typed, else what the task states."""
        return self._options | {name: value for name, value in self.typed.items() if value}

    @property
    def asked(self) -> bool:
        return bool(self.options["features"])

    def assess(self, subject: "Predictor", request: Request) -> Report | None:
        """Look at the run that is judged; `rostro evaluate` then walks as in a training."""
        if request.open_features is not None:
            self._open = request.open_features
        self._training, self._progress = subject.config.data.train, request.progress
        return None

    def batches(self, judged: JudgedSet, comm: Comm) -> Iterable[Batch]:
        """Yield this rank's latents, then its share of the real images whose features are not kept."""
        options = self.options
        refused = ""
        try:
            network = self._open(options["features"], options["features_sha256"]).to(comm.device)
            self._network = network
            self._walks = self._wanted(judged)
        except UserError as error:
            refused = str(error)
        collectives.agree_or_raise(refused, comm)
        self._now = None
        blocks = list(evaluation_blocks(options["samples"], self.block, comm.rank, comm.world))
        for block in self._progress("generating images", blocks):
            yield Batch.of_positions(torch.arange(block.start, block.stop), self.seed)
        for walk in self._walks:
            if comm.main and (kept := feature_cache.load(self._source(walk))) is not None:
                self._cached[walk.nth] = kept
            if collectives.broadcast(walk.nth in self._cached, comm):
                continue
            self._now = walk
            yield from self._progress(f"features of images: {walk.name}", self._real(walk, comm))

    def _wanted(self, judged: JudgedSet) -> list[Walked]:
        """List the real images: the judged set, the run's own training set, and yardsticks."""
        if judged.shards is None:
            return []
        walks = [Walked(1, "real", judged.shards)]
        if self._training and Path(self._training, "manifest.json").is_file():
            training = ShardSet.open(self._training)
            if training.digest != judged.shards.digest:
                walks.append(Walked(2, TRAINING, training))
        if self.options["yardsticks"]:
            blurred = (
                Walked(3 + at, f"blurred to {side} pixels", judged.shards, side)
                for at, side in enumerate(BLURS)
            )
            walks += blurred
        return walks

    def _trained_on(self, shards: Any) -> bool:
        folder = Path(self._training)
        there = bool(self._training) and (folder / "manifest.json").is_file()
        return there and ShardSet.open(folder).digest == shards.digest

    def _source(self, walk: Walked) -> feature_cache.Source:
        assert self._network is not None
        ids = self._ids(walk)
        rule = (
            f"{len(ids)} images drawn by hash, centre square by area or cubic to {self.options['side']}, "
            f"blurred to {walk.blur}, {self._network.rule}"
        )
        return feature_cache.Source(walk.shards.digest, rule, self._network.digest)

    def _real(self, walk: Walked, comm: Comm) -> Iterable[Batch]:
        side = self.options["side"]
        return EvalLoader(
            walk.shards,
            rank=comm.rank,
            world=comm.world,
            batch=self.block,
            view=View((side, side)),
            ids=self._ids(walk),
        )

    def _ids(self, walk: Walked) -> np.ndarray:
        """Return the samples of a set that are walked, in order."""
        return drawn(len(walk.shards), self.options["references"])

    def add(self, task: "Task", nets: dict[str, nn.Module], batch: Batch) -> None:
        walk, side = self._now, self.options["side"]
        images = _generated(task, nets, batch) if walk is None else batch.images[IMAGE]
        finite = images.flatten(1).isfinite().all(1)
        shown = _brought(
            torch.where(finite[:, None, None, None], images, 0.0), side, walk.blur if walk else 0
        )
        ids = batch.ids[:, 0].numpy()
        if walk is None:
            self._shown += [image for image, row in zip(shown, ids, strict=True) if row < SHOWN]
        assert self._network is not None
        tensor = torch.from_numpy(shown).to(batch.device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
        features, probable = self._network(tensor)
        features[~finite.cpu().numpy()] = np.nan  # `report` refuses them, on all ranks at once
        nth = np.full(len(ids), 0 if walk is None else walk.nth)
        self._parts.append({"ids": ids, "nth": nth, "features": features})
        self._probable.append(probable if walk is None else None)

    def rows(self) -> Rows:
        if not self._parts:
            empty = np.zeros(0, np.int64)
            return {
                "ids": empty,
                "nth": empty,
                "features": np.zeros((0, 1), np.float32),
                "probable": _ragged([]),
            }
        rows: Rows = {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}
        counts = [len(part["ids"]) for part in self._parts]
        rows["probable"] = _ragged(list(zip(self._probable, counts, strict=True)))
        return rows

    def report(self, sums: dict[str, Tensor], rows: Rows, *, groups: Groups, rounds: int) -> Report:
        assert self._network is not None
        nth, ids, features = (np.asarray(rows[name]) for name in ("nth", "ids", "features"))
        notes: list[str] = []
        real: dict[str, dict[str, np.ndarray]] = {}
        for walk in self._walks:
            found = self._cached.get(walk.nth)
            if found is None:
                found = {"ids": ids[nth == walk.nth], "features": features[nth == walk.nth]}
                notes += filter(None, [feature_cache.store(self._source(walk), **found)])
            real[walk.name] = found
        near = next((walk for walk in self._walks if walk.name == TRAINING), None)
        near = near or next(iter(self._walks), None)
        probable = rows["probable"]
        assert isinstance(probable, Ragged)
        judged = Judged(
            extractor=self._network,
            side=self.options["side"],
            features=features[nth == 0],
            probable=probable.rows.numpy() if len(probable.rows) else None,
            real=real,
            shown=self._shown[:SHOWN],
            near=near.shards if near else None,
            near_is_training=near is not None and self._trained_on(near.shards),
        )
        report = generated_report.compose(judged)
        report.notes += [f"note: {text}" for text in notes]
        return report


def _generated(task: "Task", nets: dict[str, nn.Module], batch: Batch) -> Tensor:
    """Return the task's images float [n, 3, h, w] of a batch of positions. UserError where it gives none."""
    images = task.predict(nets, batch).get(IMAGE)
    if images is None or images.ndim != 4 or images.shape[:2] != (len(batch), 3):
        raise UserError(
            f"predict gives no {IMAGE} [n, 3, h, w] for positions alone: only a task that generates can be "
            "judged as generated"
        )
    return images.float()


def drawn(total: int, count: int) -> np.ndarray:
    """Return `count` of `total` places, sorted, drawn by hash (0 = all)."""
    if not 0 < count < total:
        return np.arange(total)
    return np.sort(counter_rng.permute(counter_rng.key(0, "references"), np.arange(count), total))


def _brought(images: Tensor, side: int, blur: int) -> np.ndarray:
    """Return images [n, 3, h, w] in [-1, 1] as uint8 [n, side, side, 3], resized as packing resizes."""
    pixels = ((images + 1.0) * 127.5).round_().clamp_(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    found = [square(image, side) for image in pixels]
    if blur and blur < side:
        small = (cv2.resize(image, (blur, blur), interpolation=cv2.INTER_AREA) for image in found)
        found = [cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC) for image in small]
    return np.stack(found)


def _ragged(parts: list[tuple[np.ndarray | None, int]]) -> Ragged:
    """Join probabilities [n, k] of batches of n; a sample of a batch without any owns no row."""
    counts = [np.full(n, int(rows is not None)) for rows, n in parts]
    starts = np.concatenate([[0], np.cumsum(np.concatenate([np.zeros(0, np.int64), *counts]))]).astype(
        np.int64
    )
    have = [torch.from_numpy(rows) for rows, _ in parts if rows is not None]
    return Ragged(torch.cat(have) if have else torch.zeros(0), starts)
