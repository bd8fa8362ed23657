"""How far off are predicted numbers, such as ages? Errors of a field of kind `value`, also by group."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from data_shards.batch import Batch
from hpc.evaluation import keys
from hpc.evaluation.base import Draw, Evaluator, JudgedSet, Report, Rows, Table, check_finite
from hpc.evaluation.by_group import Shown, add_groups, figure
from hpc.metrics.groups import Groups
from hpc.metrics.regression import ErrorFigures, errors
from hpc.plots import curves, scatter

if TYPE_CHECKING:
    from hpc.task import Task

SHOWN = ("mae", "rmse", "bias")
YEARS = 5.0  # of cs5, the cumulative score that papers on age report


class Values(Evaluator):
    """Judges the task's prediction `output` [n] or [n, 1] by the label `field` [n], in the label's unit.

    Samples whose label is unknown are left out. output: None = as the field is named. within: also the share
    of samples whose error is at most so large (None = 5 where the unit is years, else not): `within_<k>`, of
    years `cs<k>`, the cumulative score.
    """

    KEYS = keys.VALUES
    share = False

    def __init__(
        self, field: str, *, output: str | None = None, unit: str = "", within: float | None = None
    ) -> None:
        self.field, self.output, self.unit = field, output or field, unit
        limit = within if within is not None else YEARS if unit == "years" else 0.0
        self.within = {f"{'cs' if unit == 'years' else 'within_'}{limit:g}": limit} if limit else {}
        self.headline = ("mae", "rmse", *self.within)
        self._unknown: float | None = -1
        self._parts: list[dict[str, np.ndarray]] = []

    def begin(self, judged: JudgedSet) -> None:
        if judged.shards is not None and self.field in judged.shards.schema.fields:
            self._unknown = judged.shards.schema.fields[self.field].unknown

    def add(self, task: "Task", nets: dict[str, nn.Module], batch: Batch) -> None:
        predicted = task.predict(nets, batch)[self.output].float().flatten().cpu().numpy()
        self.keep(batch.ids[:, 0].numpy(), predicted, batch.labels[self.field].cpu().numpy())

    def keep(self, ids: np.ndarray, predicted: np.ndarray, truth: np.ndarray) -> None:
        """Keep `predicted` [n] and `truth` [n] of the samples `ids` [n]."""
        predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
        predicted = predicted[:, 0] if predicted.shape == (*truth.shape, 1) else predicted
        if predicted.shape != truth.shape:
            raise ValueError(
                f"{self.output} has shape {predicted.shape}, the label {self.field} {truth.shape}"
            )
        known = np.ones(len(truth), bool) if self._unknown is None else truth != self._unknown
        part = {"ids": np.asarray(ids), "predicted": predicted, "truth": truth}
        self._parts.append({name: column[known] for name, column in part.items()})

    def rows(self) -> Rows:
        empty = {"ids": np.zeros(0, np.int64), "predicted": np.zeros(0), "truth": np.zeros(0)}
        parts = [empty, *self._parts]
        return {name: np.concatenate([part[name] for part in parts]) for name in empty}

    def record(self, prediction: Mapping[str, np.ndarray], fields: Mapping[str, Any]) -> dict[str, Any]:
        return {self.field: float(np.ravel(prediction[self.output])[0])}

    def targets(self, labels: np.ndarray) -> np.ndarray:
        truth = np.asarray(labels, np.float64)
        return np.where(truth == self._unknown, np.nan, truth)[:, None]

    def report(self, sums: dict[str, Tensor], rows: Rows, *, groups: Groups, rounds: int) -> Report:
        ids, predicted, truth = (np.asarray(rows[name]) for name in ("ids", "predicted", "truth"))
        check_finite(self.output, predicted)

        found = errors(predicted, truth)
        found |= {
            name: float((np.abs(predicted - truth) <= limit).mean()) if len(ids) else np.nan
            for name, limit in self.within.items()
        }
        report = Report({name: value for name, value in found.items() if np.isfinite(value)})
        report.rows = {"ids": ids, "predicted": predicted, "truth": truth}
        figures = ErrorFigures(predicted - truth, self.within)
        shown = Shown((*SHOWN, *self.within), shares=tuple(self.within), worst=max)
        add_groups(report, self, figures, ids, groups, rounds, shown)
        unit = f" ({self.unit})" if self.unit else ""
        cells = [[name, figure(found, report.intervals, name)] for name in found]
        note = f"{len(ids):,} samples whose {self.field} is known; mae, rmse, bias: in its unit{unit}"
        note += "".join(f"; {name}: share of errors up to {limit:g}" for name, limit in self.within.items())
        report.tables = {"errors": Table((self.field, "all"), cells, note)} | report.tables
        drawn = {
            "errors.png": lambda path: self._draw(path, rows, groups),
            "scatter.png": self._scatter(report),
        }
        report.figures = drawn | report.figures
        return report

    def _scatter(self, report: Report) -> Draw:
        def draw(path: Path) -> None:
            title = f"{self.field}: {path.parent.name}"
            scatter.draw_scatter(
                path, report.rows["truth"], report.rows["predicted"], title=title, unit=self.unit
            )

        return draw

    def _draw(self, path: Path, rows: Mapping[str, object], groups: Groups) -> None:
        ids, predicted, truth = (np.asarray(rows[name]) for name in ("ids", "predicted", "truth"))
        off = np.abs(predicted - truth)
        parts = {"all": off}
        label, group = next(iter(groups.columns.items()), ("", None))
        if group is not None:
            codes = group.codes[ids]
            parts |= {
                f"{label} {name}": off[codes == code]
                for code, name in enumerate(group.names)
                if (codes == code).any()
            }
        curves.draw_errors(path, parts, title=f"{self.field}: {path.parent.name}", unit=self.unit)
