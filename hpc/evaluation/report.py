"""Writes the report of an evaluation: report.json, pictures, and one HTML page that needs nothing else.

The page holds its pictures and its style itself; all text in it is escaped.
"""

import base64
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.errors import UserError
from data_shards.files import read_json, write_bytes, write_json
from hpc.evaluation.base import Report

LONG = 12  # rows: a longer table is folded
PICTURE = re.compile(r"[\w-]+\.png")
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; margin: 2rem auto; max-width: 70rem }
body { padding: 0 1rem } h1 { font-size: 1.5rem } h2 { font-size: 1.2rem; margin-top: 2rem }
h3, summary { font-size: 1rem; font-weight: bold; margin: .8rem 0 .3rem }
table { border-collapse: collapse; margin: .3rem 0 .6rem } caption, .note { color: #555; text-align: left }
.scroll { overflow-x: auto }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left } th { border-bottom: 2px solid #888 }
dl { display: grid; grid-template-columns: max-content auto; gap: .15rem 1rem }
dt { color: #555 } dd { margin: 0 }
img { max-width: 100%; height: auto } figure { margin: 1rem 0; display: inline-block; max-width: 48% }
.gate { border-left: 4px solid #D55E00; padding-left: .8rem }
@media (max-width: 50rem) { figure { max-width: 100% } }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<dl>{% for name, value in head.items() %}<dt>{{ name }}</dt><dd>{{ value }}</dd>{% endfor %}</dl>
{% for name, part in parts.items() %}
<h2>{{ name }}</h2>
{% if part.title %}<p>{{ part.title }}</p>{% endif %}
{% if part.gate %}<p class="gate">does not pass: {{ part.gate }}</p>{% endif %}
{% for heading, table in part.tables.items() %}
{% set long = table.rows | length > LONG %}
{% if long %}<details><summary>{{ heading }} ({{ table.rows | length }} rows)</summary>{% else %}
<h3>{{ heading }}</h3>{% endif %}
<div class="scroll"><table>
<thead><tr>{% for column in table.columns %}<th scope="col">{{ column }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in table.rows %}
<tr>{% for cell in row %}<td>{{ "" if cell is none else cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody>
</table></div>
{% if table.note %}<p class="note">{{ table.note }}</p>{% endif %}
{% if long %}</details>{% endif %}
{% endfor %}
{% for note in part.notes %}<p class="note">{{ note }}</p>{% endfor %}
{% for file, data in pictures[name].items() %}
<figure><img alt="{{ file }} of {{ name }}" src="data:image/png;base64,{{ data }}"></figure>
{% endfor %}
{% endfor %}
</body>
</html>
"""


def folder_name(shards: Any, label: str = "") -> str:
    """Return the name of a report's folder: the set, its split, and a label such as a pair list's name."""
    return "-".join(part for part in (shards.name, shards.manifest.get("split") or "", label) if part)


def write(folder: Path, head: Mapping[str, Any], reports: Mapping[str, Report]) -> dict[str, Any]:
    """Write the reports of one evaluation, by evaluator, to `folder`; return what report.json holds.

    head: run, set and what else is said once. Pictures of several evaluators have their names before them.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        before = _pictures_of(folder)
        pictures = _draw(folder, reports)
        content = dict(head) | {"folder": str(folder)}
        content["evaluators"] = {name: _plain(report) for name, report in reports.items()}
        for report in reports.values():
            content |= report.facts
        content["pictures_drawn"] = [file for files in pictures.values() for file in files]
        write_json(folder / "report.json", _finite(content))
        write_bytes(folder / "report.html", page(head, reports, folder, pictures).encode())
        for file in before - set(content["pictures_drawn"]):
            (folder / file).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}: free space there, or give rights") from None
    for report in reports.values():
        if report.after:
            report.after()
    return content


def _pictures_of(folder: Path) -> set[str]:
    """Return the pictures of an earlier report in `folder`, which this one replaces."""
    try:
        content = read_json(folder / "report.json", {"pictures_drawn?": [str]})
    except UserError:
        return set()  # none, or damaged
    return {file for file in content.get("pictures_drawn", []) if PICTURE.fullmatch(file)}


def _draw(folder: Path, reports: Mapping[str, Report]) -> dict[str, list[str]]:
    drawn: dict[str, list[str]] = {}
    for name, report in reports.items():
        drawn[name] = []
        for file, draw in report.figures.items():
            path = folder / (file if len(reports) == 1 else f"{name}-{file}")
            draw(path)
            drawn[name].append(path.name)
    return drawn


def _plain(report: Report) -> dict[str, Any]:
    tables = {
        title: {"columns": list(table.columns), "rows": [list(row) for row in table.rows], "note": table.note}
        for title, table in report.tables.items()
    }
    return {
        "scalars": report.scalars,
        "intervals_95": {name: list(pair) for name, pair in report.intervals.items()},
        "chosen": report.chosen,
        "baselines": report.baselines,
        "tables": tables,
        "gate": report.gate,
    }


def _finite(value: Any) -> Any:
    """Return plain JSON values: arrays' numbers as Python's, what is not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def page(
    head: Mapping[str, Any], reports: Mapping[str, Report], folder: Path, pictures: Mapping[str, list[str]]
) -> str:
    """Compose the HTML page of `reports`; `pictures`: files in `folder`, by evaluator."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    data = {
        name: {file: base64.b64encode((folder / file).read_bytes()).decode() for file in files}
        for name, files in pictures.items()
    }
    shown = {key: value for key, value in head.items() if not isinstance(value, dict | list)}
    title = " ".join(str(head[key]) for key in ("run", "set", "split") if head.get(key))
    return environment.from_string(PAGE).render(
        title=title, head=shown, parts=reports, pictures=data, LONG=LONG
    )
