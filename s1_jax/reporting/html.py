"""The report as one HTML page: plot, tables and every trace, in a file that needs neither network nor server.

The page is assembled from assets/report/, with the data as JSON inside. Texts of records are treated as hostile: they
are escaped so that they cannot end the element of the JSON, and the script inserts them as text only. The page's
content security policy forbids every other script and every connection.
"""

from __future__ import annotations

import dataclasses
import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from s1_jax.records import Record
from s1_jax.reporting.cost import format_cost
from s1_jax.reporting.plot import series_of
from s1_jax.reporting.summary import Run
from s1_jax.reporting.traces import by_problem, draws_shown, lay_out
from s1_jax.runtime.files import write_whole

ASSETS = files("s1_jax") / "assets" / "report"
SCRIPTS = (
    "base.js",
    "symbols.js",
    "latex.js",
    "formulas.js",
    "tables.js",
    "chart.js",
    "problems.js",
    "trace.js",
    "report.js",
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
    parts = {"style": _asset("report.css"), "script": "".join(_script(name) for name in SCRIPTS)}
    parts |= {f"{name} hash": _policy_hash(source) for name, source in parts.items()}
    parts |= {"title": escape(title).encode("ascii", "xmlcharrefreplace").decode(), "data": inert_json(data)}
    return re.sub(r"\{(\w+(?: hash)?)\}", lambda place: parts[place[1]], _asset("report.html"))


def inert_json(data: Any) -> str:
    """Format JSON as ASCII that can neither end a script element nor begin a comment or an entity in it."""
    written = json.dumps(data, separators=(",", ":"))
    return written.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy_hash(source: str) -> str:
    return f"'sha256-{b64encode(sha256(source.encode()).digest()).decode()}'"


def _script(name: str) -> str:
    r"""Read a script as ASCII; other characters, which occur only in its strings, become \xNN and \uNNNN."""
    return (ASSETS / name).read_text(encoding="utf-8").encode("ascii", "backslashreplace").decode()


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="ascii")
