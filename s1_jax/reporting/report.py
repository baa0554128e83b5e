"""Writes the report of a run from its records alone: tables, summary.json, figures and report.html."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from s1_jax.config import SweepConfig
from s1_jax.records.results import read_run
from s1_jax.reporting.cost import cost_of, format_cost
from s1_jax.reporting.html import save_report
from s1_jax.reporting.methods import format_methods, method_runs
from s1_jax.reporting.methods_plot import save_methods_plot
from s1_jax.reporting.plot import save_scaling_plot
from s1_jax.reporting.summary import methods, summarize, to_dict
from s1_jax.reporting.table import format_report
from s1_jax.runtime.files import write_whole
from s1_jax.runtime.storage import Mirror, one_line
from s1_jax.runtime.terminal import say


def report(folder: Mirror) -> None:
    """Print the tables, and write summary.json, the figures and report.html. Raises UserError without records."""
    run_dir = folder.local
    records, config = read_run(run_dir)
    scaling_over = (config.get("sweep") or {}).get("scaling", SweepConfig.scaling)
    runs = summarize(records)
    found = methods(runs, scaling_over)
    summary = to_dict(records, runs, found, scaling_over) | {"cost": (cost := cost_of(run_dir, records))}
    write_whole(run_dir / "summary.json", json.dumps(summary, indent=2) + "\n")
    say(f"\n{format_report(runs, found, scaling_over)}\n{format_cost(cost)}\n")
    plot, page = run_dir / "scaling.png", run_dir / "report.html"
    title = f"{', '.join(summary['tasks'])}, {max(run.problems for run in runs)} problems"
    with unless_it_fails(plot):
        save_scaling_plot([plot, plot.with_suffix(".svg")], runs, title)
        say(f"plot: {folder.shown(plot)}")
    if any(run.setting.search for run in runs):
        compared, figure = method_runs(records), run_dir / "methods.png"
        say(f"{format_methods(compared)}\n")
        with unless_it_fails(figure):
            save_methods_plot([figure, figure.with_suffix(".svg")], compared, title)
            say(f"methods: {folder.shown(figure)}")
    with unless_it_fails(page):
        save_report(page, title, records, runs, summary, config)
        say(f"report: {folder.shown(page)}")
    if undecided := sum(run.undecided for run in runs):
        judge = f"python -m s1_jax.grade {folder.place} --judge.model ..."
        say(f"{undecided} answers could not be decided by rules; a judge can decide them: {judge}")


@contextmanager
def unless_it_fails(drawn: Path) -> Iterator[None]:
    """Report a failure to draw on standard error and go on; an OSError, such as a full disk, is raised as elsewhere."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # matplotlib and fonts can fail on any text
        said = one_line(error)
        say(
            f"{drawn.name} could not be drawn ({type(error).__name__}: {said}); everything else was written",
            file=sys.stderr,
        )
