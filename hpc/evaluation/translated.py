"""How far are translated images of one domain from real ones of the other? The figures of `generated.py`.

The set holds both domains, each a part of it by its labels. What is translated are its images of the one,
what they are compared with its images of the other; the untranslated ones stand beside, as the distance that
is to be beaten.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from data_shards.batch import IMAGE, Batch
from data_shards.errors import UserError
from data_shards.loading.loader import EvalLoader
from data_shards.sampling.view import View
from hpc.distributed.comm import Comm
from hpc.evaluation import feature_cache
from hpc.evaluation.base import JudgedSet
from hpc.evaluation.cycles import samples_of
from hpc.evaluation.generated import Generated, Walked, drawn

if TYPE_CHECKING:
    from hpc.task import Task

UNTRANSLATED = "untranslated"


class Translated(Generated):
    """Judges `direction` of a task's `translator`.

    pair: the domains of its input and of its output. domains: a, b -> an expression over the labels of the
    judged set. view: of the images that are translated. features, side: see `Generated`.
    """

    KEYS = {name: key for name, key in Generated.KEYS.items() if name != "samples"}  # noqa: RUF012

    def __init__(
        self,
        direction: str,
        *,
        pair: tuple[str, str],
        domains: Mapping[str, str],
        view: View,
        features: str = "",
        side: int = 64,
        **options: Any,
    ) -> None:
        super().__init__(features=features, side=side, samples=0, **options)
        self.direction, self.pair, self.domains, self.view = direction, pair, dict(domains), view

    def batches(self, judged: JudgedSet, comm: Comm) -> Iterable[Batch]:
        """Yield this rank's share of real images whose features are not kept, then of those to translate."""
        yield from super().batches(judged, comm)
        self._now = None
        ids = self._of(judged.shards, self.pair[0])
        walked: dict[str, Any] = {
            "rank": comm.rank,
            "world": comm.world,
            "batch": self.block,
            "view": self.view,
        }
        for batch in EvalLoader(judged.shards, ids=ids, **walked):
            places = np.searchsorted(ids, batch.ids.numpy())  # counted as generated images are
            yield replace(batch, ids=torch.from_numpy(places))

    def add(self, task: "Task", nets: dict[str, nn.Module], batch: Batch) -> None:
        super().add(_Translating(task, self.direction), nets, batch)  # type: ignore[arg-type]

    def _of(self, shards: Any, domain: str) -> np.ndarray:
        if domain not in self.domains:
            raise UserError(
                f"{self.direction}: the held-out sets hold no images of {domain}, whose training set is "
                "data.train_b: train on a set of both domains, as source=unpaired packs it"
            )
        return samples_of(shards, domain, self.domains[domain])

    def _wanted(self, judged: JudgedSet) -> list[Walked]:
        if judged.shards is None:
            raise UserError(f"{self.direction}: there is no set to translate: give data=DIR, a packed set")
        for domain in self.pair:
            self._of(judged.shards, domain)
        walks = super()._wanted(judged)
        return [*walks, Walked(1 + max(walk.nth for walk in walks), UNTRANSLATED, judged.shards)]

    def _domain(self, walk: Walked) -> str:
        return self.pair[0] if walk.name == UNTRANSLATED else self.pair[1]

    def _ids(self, walk: Walked) -> np.ndarray:
        ids = self._of(walk.shards, self._domain(walk))
        return ids[drawn(len(ids), self.options["references"])]

    def _source(self, walk: Walked) -> feature_cache.Source:
        source = super()._source(walk)
        return replace(source, rule=f"{source.rule}, of {self.domains[self._domain(walk)]}")


class _Translating:
    """A task whose prediction of a batch is the translation of its images."""

    def __init__(self, task: "Task", direction: str) -> None:
        self._task, self._direction = task, direction

    def predict(self, nets: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        translator = self._task.translator(nets, direction=self._direction)
        if translator is None:
            raise UserError(f"{self._direction}: the task translates no images: judge one that does")
        return {IMAGE: translator(batch.images[IMAGE])}
