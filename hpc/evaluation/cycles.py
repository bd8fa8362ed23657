"""What is left of an image that is translated there and back? L1 by domain, and how much a face stays itself.

The set holds images of domains `a` and `b`, each a part of it by its labels; the task's `translator` gives
both ways. How far a translation is from its input stands beside: a network that changes nothing has perfect
cycles. The identity is the cosine of the embeddings of input and translation, by a network of the task or by
a run that is typed, so that trainings with and without the term are measured alike.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from data_shards.batch import IMAGE, Batch
from data_shards.errors import UserError
from data_shards.ragged import Ragged
from data_shards.sampling.rows import Rows as Part
from hpc.evaluation.base import Evaluator, JudgedSet, Report, Request, Rows, Table, check_finite
from hpc.evaluation.features import FeatureNetwork, Opener, open_features
from hpc.evaluation.keys import CYCLES
from hpc.metrics.groups import Groups
from hpc.metrics.paired import l1
from hpc.plots.heat import Cell, draw_sheet
from hpc.task import cosine

if TYPE_CHECKING:
    from hpc.inference.predictor import Predictor
    from hpc.task import Task

SHOWN, CELL = 8, 128  # images of each domain in the picture, and their pixels
HALF = 127.5  # of the range of 8 bits, which images in [-1, 1] are brought to
FIGURES = ("l1", "change", "identity")


def samples_of(shards: Any, domain: str, where: str) -> np.ndarray:
    """Return the sorted ids of a domain's samples; UserError where the expression `where` finds none."""
    part = Part(shards, where, key=f"data.{domain}")
    return part.ids(np.arange(len(part)))


class Cycles(Evaluator):
    """Judges both ways of a translation.

    domains: a, b -> an expression over the labels of the judged set. ways: direction, as `Task.translator`
    knows it -> the domains of its input and of its output. identity: name of the network that embeds images
    (empty = none).
    """

    KEYS = CYCLES
    share = False

    def __init__(
        self, *, domains: Mapping[str, str], ways: Mapping[str, tuple[str, str]], identity: str = ""
    ) -> None:
        self.domains, self.ways, self.identity = dict(domains), dict(ways), identity
        self._open: Opener = open_features
        self._typed: FeatureNetwork | None = None
        self._chosen: dict[str, np.ndarray] = {}  # which samples of the set are of a domain
        self._last: dict[str, int] = {}  # the last sample of each domain that is shown
        names = ("ids", "nth")
        self._parts: list[dict[str, Any]] = [
            dict.fromkeys(names, np.zeros(0, np.int64)) | dict.fromkeys(FIGURES, np.zeros(0))
        ]
        self._drawn = [_sheets([])]  # of each part: what is shown of its samples, on whatever rank they are

    def assess(self, subject: "Predictor", request: Request) -> None:
        """Take what opens the run that was typed; `rostro evaluate` then walks as in a training."""
        self._open = request.open_features or self._open

    def begin(self, judged: JudgedSet) -> None:
        if run := self.word("identity_run"):
            try:
                self._typed = self._open(f"run:{run}", "")
            except UserError as error:
                text = str(error)
                text = text.partition(": ")[2] if text.startswith("features=run:") else text
                raise UserError(f"identity_run={run}: {text}") from None
        for domain, where in self.domains.items():
            ids = samples_of(judged.shards, domain, where)
            self._chosen[domain] = np.zeros(len(judged.shards), bool)
            self._chosen[domain][ids] = True
            self._last[domain] = int(ids[:SHOWN][-1])

    def add(self, task: "Task", nets: dict[str, nn.Module], batch: Batch) -> None:
        ids = batch.ids[:, 0].numpy()
        for nth, (domain, chosen) in enumerate(self._chosen.items()):
            (rows,) = np.nonzero(chosen[ids])
            if len(rows):
                images = batch.images[IMAGE][torch.from_numpy(rows).to(batch.device)]
                self._judge(task, nets, images, domain, nth, ids[rows])

    def _judge(
        self,
        task: "Task",
        nets: dict[str, nn.Module],
        images: Tensor,
        domain: str,
        nth: int,
        ids: np.ndarray,
    ) -> None:
        there = next(way for way, (source, _) in self.ways.items() if source == domain)
        back = next(way for way, (_, target) in self.ways.items() if target == domain)
        translated = _translated(task, nets, there, images)
        again = _translated(task, nets, back, translated)
        given, made, cycled = (_scaled(each) for each in (images, translated, again))
        part = {"ids": ids, "nth": np.full(len(ids), nth), "l1": l1(cycled, given)}
        part |= {"change": l1(made, given), "identity": self._kept(nets, images, translated)}
        self._parts.append(part)
        shown = enumerate(ids <= self._last[domain])
        threes = [(given[row], made[row], cycled[row]) if here else () for row, here in shown]
        self._drawn.append(_sheets(threes))

    def _kept(self, nets: dict[str, nn.Module], images: Tensor, translated: Tensor) -> np.ndarray:
        """Return the cosine of each image's embeddings before and after, [n]; NaN where nothing embeds."""
        both = [images.float(), translated]
        if self._typed is not None:
            network = self._typed.to(images.device)
            found = [network(each)[0] for each in both]
        elif self.identity:
            found = [nets[self.identity](each).float().cpu().numpy() for each in both]
        else:
            return np.full(len(images), np.nan)
        before, after = (each.astype(np.float64) for each in found)
        return cosine(before, after)

    def rows(self) -> Rows:
        rows: Rows = {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}
        return {**rows, "shown": Ragged.cat(self._drawn)}

    def report(self, sums: dict[str, Tensor], rows: Rows, *, groups: Groups, rounds: int) -> Report:
        nth = np.asarray(rows["nth"])
        values = {name: np.asarray(rows[name]) for name in FIGURES}
        check_finite(IMAGE, values["l1"])
        if not self.identity and self._typed is None:
            del values["identity"]
        # Domains of unequal size count alike
        means = {
            name: [float(found[nth == place].mean()) for place in range(len(self.domains))]
            for name, found in values.items()
        }
        scalars = {name: float(np.mean(each)) for name, each in means.items()}
        for name, each in means.items():
            scalars |= {f"{name}_{domain}": mean for domain, mean in zip(self.domains, each, strict=True)}
        report = Report(scalars)
        report.tables["cycles"] = Table(
            ("domain", *values, "images"),
            [
                [domain, *(round(each[place], 5) for each in means.values()), int((nth == place).sum())]
                for place, domain in enumerate(self.domains)
            ],
            "as a share of the range, l1: of images there and back, change: of translations; identity: mean "
            "cosine of embeddings",
        )
        ids = np.asarray(rows["ids"])
        report.rows = {"ids": ids, "domain": nth} | values
        shown = rows["shown"]
        assert isinstance(shown, Ragged)
        if len(shown.rows):
            report.figures["cycles.png"] = lambda path: self._draw(path, ids, nth, shown)
        return report

    def _draw(self, path: Path, ids: np.ndarray, nth: np.ndarray, shown: Ragged) -> None:
        names, drawn = list(self.domains), np.flatnonzero(shown.counts)
        order = drawn[np.lexsort((ids[drawn], nth[drawn]))]
        cells = [Cell(shown.of(at)[0].numpy(), [f"{names[nth[at]]} {ids[at]}"]) for at in order]
        draw_sheet(path, cells, title="input, output, and back again", columns=2)


def _sheets(threes: Sequence[Sequence[np.ndarray]]) -> Ragged:
    """Return for each sample its images side by side, or nothing: rows uint8 [m, CELL, 3 CELL, 3]."""
    rows = [np.hstack([_enlarged(each) for each in three]) for three in threes if three]
    starts = np.cumsum([0, *(bool(three) for three in threes)], dtype=np.int64)
    return Ragged(torch.from_numpy(np.array(rows, np.uint8).reshape(-1, CELL, 3 * CELL, 3)), starts)


def _translated(task: "Task", nets: dict[str, nn.Module], direction: str, images: Tensor) -> Tensor:
    translator = task.translator(nets, direction=direction)
    if translator is None:
        raise UserError("the task translates no images: only one that does can be judged by cycles")
    return translator(images).float()


def _scaled(images: Tensor) -> np.ndarray:
    """Return images [n, 3, h, w] in [-1, 1] as float64 [n, h, w, 3] on 0 to 255."""
    return (images.double().permute(0, 2, 3, 1).cpu().numpy() + 1) * HALF


def _enlarged(image: np.ndarray) -> np.ndarray:
    pixels = np.nan_to_num(image).round().clip(0, 255).astype(np.uint8)
    return cv2.resize(pixels, (CELL, CELL), interpolation=cv2.INTER_CUBIC)
