"""What a network should beat: the commonest label of its training set, and a linear model of small pixels.

Both learn from the training set alone and are judged as the network is. Of a number the mean stands for the
commonest label.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from data_shards import counter_rng
from hpc.distributed.comm import Comm
from hpc.evaluation.base import Evaluator, JudgedSet, Report, Table
from hpc.evaluation.by_group import figure
from hpc.evaluation.run import gathered
from hpc.evaluation.verification_run import PIXELS, pixels
from hpc.metrics.groups import Groups
from hpc.metrics.linear import mean_target, ridge

MOST = 5000  # training images of the linear model
LINEAR, COMMONEST = f"linear on {PIXELS}", "majority (mean) of training"
TITLE = "beside baselines"
Blocks = Callable[[Any, np.ndarray], Iterable[np.ndarray]]  # set, ids -> images uint8 [n, s, s, 3]


class Baselines:
    """The training set of a run, and small pixels of some of it, read when first needed."""

    def __init__(self, train: Any, judged: Any, blocks: Blocks) -> None:
        self.train, self.judged, self._blocks = train, judged, blocks
        places = np.arange(min(MOST, len(train)))
        stream = counter_rng.key(0, "baselines")
        self.ids = np.sort(counter_rng.permute(stream, places, len(train)))
        self._pixels: tuple[np.ndarray, np.ndarray] | None = None

    def pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the features of the chosen training images, and of the judged ones, [n, 1024] each."""
        if self._pixels is None:
            pairs = (self.train, self.ids), (self.judged, np.arange(len(self.judged)))
            one, other = (np.concatenate([pixels(part) for part in self._blocks(*pair)]) for pair in pairs)
            self._pixels = one, other
        return self._pixels

    def reports(
        self, make: Callable[[], Evaluator], field: str, groups: Groups, rounds: int
    ) -> dict[str, Report]:
        """Judge both baselines by the evaluator of the label `field`; {} where it has none."""
        labels = np.asarray(self.train.labels[field])
        first = _ready(make, self.judged)
        targets = first.targets(labels)
        if targets is None or not np.isfinite(targets).any():
            return {}
        features, wanted = self.pixels()
        common = np.tile(mean_target(targets), (len(self.judged), 1))
        model = ridge(features, targets[self.ids])
        found = {}
        for name, predicted in ((LINEAR, model(wanted)), (COMMONEST, common)):
            each = _ready(make, self.judged)
            each.keep(np.arange(len(self.judged)), predicted, np.asarray(self.judged.labels[field]))  # type: ignore[attr-defined]
            rows = gathered(each.rows(), Comm())
            found[name] = each.report({}, rows, groups=Groups(units=groups.units), rounds=rounds)
        return found


def _ready(make: Callable[[], Evaluator], judged: Any) -> Evaluator:
    each = make()
    each.begin(JudgedSet(lambda comm: [], judged))
    return each


def add_baselines(
    report: Report, others: Mapping[str, Report], headline: Iterable[str], *, name: str
) -> None:
    """Add the figures `headline` of `others` to the report of the run `name`, below its figures."""
    names = [each for each in headline if each in report.scalars]
    cells = [
        [title, *(figure(each.scalars, each.intervals, key) for key in names)]
        for title, each in ({name: report} | dict(others)).items()
    ]
    note = f"both learn from the training set alone, the linear model from at most {MOST:,} images"
    tables = list(report.tables.items())
    report.tables = dict([*tables[:1], (TITLE, Table(("", *names), cells, note)), *tables[1:]])
    report.baselines = {
        title: {key: value for key, value in each.scalars.items() if key in names}
        for title, each in others.items()
    }
