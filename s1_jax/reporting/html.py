"""The report as one HTML page: plot, tables and every trace, in a file that needs neither network nor server.

The page is assembled from assets/report/, with the data as JSON inside. Texts of records are treated as hostile: they
are escaped so that they cannot end the element of the JSON, and the script inserts them as text only. The page's
content security policy forbids every other script and every connection.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from s1_jax.records import Record
from s1_jax.reporting.cost import format_cost
from s1_jax.reporting.plot import series_of
from s1_jax.reporting.summary import Run
from s1_jax.reporting.traces import by_problem, draws_shown, lay_out
from s1_jax.runtime.files import write_whole
from s1_jax.runtime.html_page import assemble

SCRIPTS = (
    "report/base.js",
    "report/symbols.js",
    "report/latex.js",
    "report/formulas.js",
    "report/tables.js",
    "report/chart.js",
    "report/problems.js",
    "report/trace.js",
    "report/report.js",
)


def save_report(
    path: Path,
    title: str,
    records: Sequence[Record],
    runs: Sequence[Run],
    summary: Mapping[str, Any],
    config: Mapping[str, Any],
) -> None:
    """Write the report's page atomically. Raises OSError, and then leaves an earlier page as it was."""
    write_whole(path, page(title, page_data(records, runs, summary, config)))


def page_data(
    records: Sequence[Record], runs: Sequence[Run], summary: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Any]:
    """Collect the data of the page: `summary` as in summary.json, the plot's series, and the traces of each problem."""
    places = {run.setting: i for i, run in enumerate(runs)}
    draws = draws_shown(records)
    model = config.get("model") or {}
    series = [
        dataclasses.asdict(one)
        | {
            "band": one.band,
            "points": [dataclasses.asdict(point) | {"setting": places[point.setting]} for point in one.points],
        }
        for one in series_of(runs)
    ]
    return {
        "facts": [str(fact) for fact in (model.get("path"), model.get("dtype")) if fact],
        "summary": summary,
        "cost": format_cost(summary["cost"]),
        "series": series,
        "problems": [lay_out(of_problem, places, draws) for of_problem in by_problem(records)],
    }


def page(title: str, data: Any) -> str:
    """Assemble the page with this data in it, as ASCII."""
    title = escape(title).encode("ascii", "xmlcharrefreplace").decode()
    return assemble("report/report.html", "report/report.css", SCRIPTS, {"title": title, "data": inert_json(data)})


def inert_json(data: Any) -> str:
    """Format JSON as ASCII that can neither end a script element nor begin a comment or an entity in it."""
    written = json.dumps(data, separators=(",", ":"))
    return written.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
