"""How far off are predicted numbers, such as ages? Errors of a field of kind `value`, also by group."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from data_shards.batch import Batch
from hpc.evaluation import keys
from hpc.evaluation.base import Evaluator, JudgedSet, Report, Rows, Table, check_finite
from hpc.evaluation.by_group import add_groups, figure
from hpc.metrics.groups import Groups
from hpc.metrics.regression import errors
from hpc.plots import curves

if TYPE_CHECKING:
    from hpc.task import Task

SHOWN = ("mae", "rmse", "bias")


class Values(Evaluator):
    """Judges the task's prediction `output` [n] or [n, 1] by the label `field` [n], in the label's unit.

    Samples whose label is unknown are left out. output: None = as the field is named.
    """

    KEYS = keys.VALUES

    def __init__(self, field: str, *, output: str | None = None, unit: str = "") -> None:
        self.field, self.output, self.unit = field, output or field, unit
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

    def report(self, sums: dict[str, Tensor], rows: Rows, *, groups: Groups, rounds: int) -> Report:
        ids, predicted, truth = (np.asarray(rows[name]) for name in ("ids", "predicted", "truth"))
        check_finite(self.output, predicted)

        def figures(weight: np.ndarray) -> dict[str, float]:
            return errors(predicted, truth, weight)

        found = figures(np.ones(len(ids)))
        report = Report({name: value for name, value in found.items() if np.isfinite(value)})
        report.rows = {"ids": ids, "predicted": predicted, "truth": truth}
        add_groups(
            report, figures, ids, groups, shown=SHOWN, rounds=rounds, gate=float(self.typed.get("gate", 0))
        )
        unit = f" ({self.unit})" if self.unit else ""
        cells = [[name, figure(found, report.intervals, name)] for name in found]
        note = f"{len(ids):,} samples whose {self.field} is known; mae, rmse, bias: in its unit{unit}"
        report.tables = {"errors": Table((self.field, "all"), cells, note)} | report.tables
        report.figures["errors.png"] = lambda path: self._draw(path, rows, groups)
        return report

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
