"""What a judgement is: an `Evaluator` looks at batches on all ranks, its `Report` holds the figures.

`run.py` walks a set with the evaluators of a task. One kind of judgement is one file here: `verification.py`,
`classes.py`, `values.py`. A scalar of the evaluator `age` is named `age/mae` wherever it is logged or kept.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import Tensor, nn

from data_shards.batch import Batch
from data_shards.errors import UserError
from data_shards.ragged import Ragged
from hpc.distributed.comm import Comm
from hpc.evaluation.keys import Key
from hpc.metrics.groups import Groups

if TYPE_CHECKING:
    from hpc.inference.predictor import Predictor
    from hpc.task import Task

Rows = dict[str, np.ndarray | Ragged]
Draw = Callable[[Path], None]  # writes one picture to this path


@dataclass(frozen=True)
class Table:
    """A table of a report: titles, and rows of text, numbers or None."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""
    long: bool = False  # on the page and in report.json only


@dataclass
class Report:
    """The figures of one evaluator on one set. Only rank 0 has more than the scalars."""

    scalars: dict[str, float] = field(default_factory=dict)
    # "pr" or "roc" -> scores [n], labels [n] 0/1
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    embeddings: tuple[np.ndarray, np.ndarray] | None = None  # [n, d] float32 and their sample ids [n]
    tables: dict[str, Table] = field(default_factory=dict)
    figures: dict[str, Draw] = field(default_factory=dict)  # file name (`roc.png`) -> what draws it
    rows: dict[str, np.ndarray] = field(default_factory=dict)  # by sample: "ids" [n] and columns [n]
    gate: str = ""  # why the figures do not pass (empty = they do): a command then ends with exit code 3
    chosen: dict[str, Any] = field(default_factory=dict)  # what was chosen on val: a temperature
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)  # 95 %, by scalar
    # Those of what is judged beside it: name -> scalars
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)  # entries of its own in report.json
    title: str = ""  # the set in a line (empty = its name and size)
    notes: list[str] = field(default_factory=list)  # lines below the tables
    label: str = ""  # behind the set's name in the name of the report's folder
    after: Callable[[], None] | None = None  # what follows once the report is written


@dataclass
class JudgedSet:
    """What is judged: this rank's batches of a set, and the set (None = it has none, only latents)."""

    batches: Callable[[Comm], Iterable[Batch]]
    shards: Any = None


class Evaluator(ABC):
    """One kind of judgement of a task, new and empty for each evaluation.

    Figures do not depend on the number of ranks: values by sample are gathered, sorted by id and summed in
    that order. What is all-reduced is rounded to 10 digits.
    """

    # Its own words for `rostro evaluate`, with defaults and help.
    KEYS: ClassVar[Mapping[str, Key]] = {}
    headline: Sequence[str] = ()  # the figures that stand beside those of baselines
    share: ClassVar[bool] = True  # whether its first figure is a share, which `gate.max_gap` of a run holds
    # What `choose` returned for val, set before `report`; empty while training
    chosen: Mapping[str, Any] = {}
    chosen_on = "val"  # or `these images`, where val is not there
    # The words of KEYS as they were typed for `rostro evaluate`; empty while training
    typed: Mapping[str, Any] = {}

    def begin(self, judged: "JudgedSet") -> None:  # noqa: B027 - few need it
        """Look at the set before its first batch: names of classes, which value means unknown."""

    def batches(self, judged: JudgedSet, comm: Comm) -> Iterable[Batch]:
        """Return this rank's batches: those of the set, or of latents by id, which need no set.

        Evaluators that keep this method share one walk over the set.
        """
        return judged.batches(comm)

    @abstractmethod
    def add(self, task: "Task", nets: dict[str, nn.Module], batch: Batch) -> None:
        """Look at a batch on its device. No communication."""

    def sums(self) -> dict[str, Tensor]:
        """Return float64 tensors of equal shape on every rank: one all-reduce adds them up."""
        return {}

    def rows(self) -> Rows:
        """Return what is kept by sample: "ids" [n], "nth" [n] where an id has several rows, and columns [n].

        Rank 0 alone receives those of all ranks, sorted by (id, nth), each once.
        """
        return {"ids": np.zeros(0, np.int64)}

    def choose(self, rows: Rows) -> dict[str, Any]:
        """Return what the val set decides (a temperature) as plain values; {} for nothing."""
        return {}

    @abstractmethod
    def report(self, sums: dict[str, Tensor], rows: Rows, *, groups: Groups, rounds: int) -> Report:
        """Compute the figures on rank 0. `rounds`: of bootstrapping, for intervals (0 = none)."""

    def targets(self, labels: np.ndarray) -> np.ndarray | None:
        """Return what a linear model learns to predict the labels [n, ...], [n, k], NaN where not known.

        `keep(ids, predicted, labels)` then takes its predictions. None: there is no such baseline.
        """
        return None

    @property
    def asked(self) -> bool:
        """Whether `rostro evaluate` judges by it: one that needs a word is left out beside others without."""
        return True

    def word(self, name: str) -> Any:
        """Return the value of one of its KEYS: as typed, or the default."""
        return self.typed.get(name, self.KEYS[name].default)

    def record(self, prediction: Mapping[str, np.ndarray], fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entries of one image's record for `rostro predict`, from the task's outputs for it.

        fields: of the run's sets, by name (`schema.Field`), where they are known.
        """
        return {}

    def assess(self, subject: "Predictor", request: "Request") -> Report | None:
        """Judge a run in a way of its own: baselines, pair lists. None: as `rostro evaluate` does it."""
        return None


@dataclass
class Request:
    """What `rostro evaluate` was asked for."""

    shards: Any  # the judged ShardSet
    keys: Mapping[str, Any]  # the evaluator's own words: its KEYS with their values
    rounds: int = 1000  # of bootstrapping
    validation: Any = None  # the run's own val set (None = it has none, or it is elsewhere)
    training: Any = None  # the run's training set, for baselines (None = it is elsewhere, or another one now)
    people: Any = None  # who chose checkpoint and threshold (None = none, or unknown)
    unknown: bool = False  # whether these people are not known
    own: bool = True  # whether the run's own held-out set is judged
    progress: Callable[[str, Any], Any] = lambda text, blocks: blocks  # wraps the loop over blocks of images
    # opens networks of features, also those of runs (None = `hpc.evaluation.features.open_features`)
    open_features: Any = None


def check_finite(output: str, values: np.ndarray) -> None:
    """Raise UserError where a row of the predictions `values` [n, ...] is NaN or infinite."""
    bad = int((~np.isfinite(values.reshape(len(values), -1)).all(1)).sum()) if len(values) else 0
    if bad:
        raise UserError(
            f"{output}: {bad} of {len(values)} predictions are not finite: the network has diverged, "
            "give an earlier checkpoint="
        )


def merged(reports: Mapping[str, Report]) -> Report:
    """Join the scalars, curves and embeddings of several evaluators, named `<evaluator>/<name>`."""
    joined = Report()
    for name, report in reports.items():
        joined.scalars |= {f"{name}/{key}": value for key, value in report.scalars.items()}
        joined.curves |= {f"{name}/{key}": curve for key, curve in report.curves.items()}
        joined.embeddings = joined.embeddings or report.embeddings
    return joined
