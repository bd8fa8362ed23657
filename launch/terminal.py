"""Tables for a terminal, a pipe or a log: aligned columns within a width, in plain text."""

import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

WIDTH = 100  # columns of a table that goes into a pipe or a file
LAST = 24  # the last column gets at least this width; other columns are dropped to make room for it
NAME = 34  # the first column keeps up to this width until no more columns can be dropped
FIRST = 12  # the first column is never narrower than this
GAP = "  "
Step = TypeVar("Step")


@dataclass
class Column:
    """A column of a table.

    spare: columns are dropped for want of room in falling order of this number (0 = never)
    colours: ANSI number of each cell (empty = none)
    most: the column grows only to cells up to this length
    """

    title: str
    cells: Sequence[str]
    right: bool = False
    spare: int = 0
    colours: Sequence[int] = field(default_factory=list)
    most: int = 10**6

    @property
    def width(self) -> int:
        """Width of the title and of the cells that are not longer than `most`."""
        return max(len(cell) for cell in ("", self.title, *self.cells) if len(cell) <= self.most)


def width() -> int:
    """Return the columns of the terminal, or 100 if stdout is not a terminal."""
    return max(WIDTH // 2, shutil.get_terminal_size((WIDTH, 24)).columns) if os.isatty(1) else WIDTH


def wrapped(text: str, within: int) -> list[str]:
    """Return the lines of a message; paths in it stay whole."""
    return textwrap.wrap(text, within, subsequent_indent=GAP, break_long_words=False, break_on_hyphens=False)


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Print pairs of a subject and a text; on a terminal the subjects are bold and the texts wrapped."""
    margin = max(len(subject) for subject, _ in facts) + len(GAP)
    for subject, text in facts:
        head = subject.ljust(margin)
        if not os.isatty(1):
            print(head + text)
            continue
        first, *more = wrapped(text, width() - margin) or [""]
        print("\n".join([f"\033[1m{head}\033[0m{first}", *(" " * margin + line for line in more)]))


def table(columns: Sequence[Column], within: int) -> list[str]:
    """Return the lines: titles, a rule, rows; at most `within` columns, except a longer first cell.

    Empty columns are left out, then spare ones. A long first cell has a line of its own: it may be copied, so
    it is never cut. The last column's cells are lists, cut at the end of the line: `loss 0.3, eer 0.1`.
    """
    kept = [column for column in columns if column is columns[0] or any(column.cells)]
    kept[0].most = NAME
    while sum(len(GAP) + column.width for column in kept[:-1]) + min(kept[-1].width, LAST) > within:
        spare = max(kept[1:-1], key=lambda column: column.spare, default=None)
        if spare is None or not spare.spare:
            break
        kept.remove(spare)
    first, last = kept[0], kept[-1]
    others = sum(len(GAP) + column.width for column in kept[1:-1]) + len(GAP)
    first.most = max(FIRST, within - others - min(last.width, LAST))
    room = within - others - first.width
    lines = [_line(kept, [column.title for column in kept])]
    lines.append("-" * max(len(lines[0]), min(within, others + first.width + last.width)))
    for number in range(len(first.cells)):
        cells = [column.cells[number] for column in kept]
        if len(cells[0]) > first.most:
            lines.append(cells[0])
            cells[0] = ""
        if len(kept) > 1:
            cells[-1] = _cut(cells[-1], room)
        lines.append(_line(kept, cells, number))
    return lines


def _cut(items: str, room: int) -> str:
    while len(items) > room and ", " in items:
        items = items.rpartition(", ")[0]
    return items[: max(0, room)]


def _line(columns: Sequence[Column], cells: Sequence[str], number: int | None = None) -> str:
    parts = []
    for column, cell in zip(columns, cells, strict=True):
        size = column.width if column.right or column is not columns[-1] else 0
        text = cell.rjust(size) if column.right else cell.ljust(size)
        colour = column.colours[number] if number is not None and column.colours else 0
        parts.append(f"\033[{colour}m{text}\033[0m" if colour and os.isatty(1) else text)
    return GAP.join(parts).rstrip()


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show a progress bar on a terminal, nothing elsewhere; yields what moves it to (done, total)."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (what, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def duration(seconds: float | None) -> str:
    """Return `42s`, `3m07s`, `2h05m` or `1d04h`; empty for None."""
    if seconds is None:
        return ""
    whole = int(min(seconds, 1e9))  # a damaged file may say anything
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, justify: Any = "right") -> None:
    """Print a table with a border; nothing of it is read as markup.

    justify: left | right, of all columns but the first.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    drawn = Table()
    for place, column in enumerate(columns):
        drawn.add_column(Text(column), justify=justify if place else "left", no_wrap=True)
    for row in rows:
        drawn.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    Console(highlight=False, width=max(console.width, 150)).print(drawn)


def print_report(name: str, report: Any) -> None:
    """Print the title, the tables and the notes of a `hpc.evaluation.base.Report`."""
    if report.title:
        print(report.title)
    hidden = sum(table.long for table in report.tables.values())
    for heading, table in report.tables.items():
        if table.long:
            continue
        if heading not in ("figures", "errors"):
            print(f"{name}, {heading}")
        print_table(table.columns, table.rows)
        if table.note:
            print(f"  {table.note}")
    if hidden:
        print(f"  {hidden} more tables are on the page: many groups or two labels, differences of all pairs")
    for note in report.notes:
        print(note)


def track(text: str, steps: Iterable[Step]) -> Iterable[Step]:
    """Return the steps, with a progress bar on stderr if that is a terminal."""
    from rich.console import Console
    from rich.progress import track as tracked

    console = Console(stderr=True)
    return tracked(steps, description=text, console=console, transient=True, disable=not console.is_terminal)
