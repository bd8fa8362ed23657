"""Writes the report of an evaluation as a TensorBoard event file beside it: scalars, tables, pictures.

TensorBoard finds it below the run and shows it as a run of its own, `RUN/evaluations/<set>`.
"""

from collections.abc import Mapping
from pathlib import Path

from data_shards.errors import UserError
from hpc.evaluation.base import Report, Table
from hpc.monitor import event_file


def write(folder: Path, clock: int, reports: Mapping[str, Report]) -> None:
    """Write the reports by evaluator, whose pictures are in `folder`, in place of earlier ones there."""
    try:
        event_file.remove(folder)
        events = event_file.EventFile(folder)
        for name, report in reports.items():
            _add(events, folder, clock, name, report, alone=len(reports) == 1)
        events.close()
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}: free space there, or give rights") from None


def _add(
    events: event_file.EventFile, folder: Path, clock: int, name: str, report: Report, *, alone: bool
) -> None:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from torch.utils.tensorboard import summary

    for key, value in report.scalars.items():
        events.add(summary.scalar(f"{name}/{key}", float(value)), clock)
    for title, table in report.tables.items():
        events.add(summary.text(f"{name}/{title}", _markdown(table)), clock)
    for file in report.figures:
        data = (folder / (file if alone else f"{name}-{file}")).read_bytes()
        height, width = (int.from_bytes(data[at : at + 4], "big") for at in (20, 16))  # PNG's header
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
        tag = f"{name}/{Path(file).stem}"
        events.add(Summary(value=[Summary.Value(tag=tag, image=image)]), clock)


def _markdown(table: Table) -> str:
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    lines = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + f"\n\n{_cell(table.note)}"


def _cell(cell: object) -> str:
    return "" if cell is None else str(cell).replace("|", "\\|")
