"""The progress bar of every long-running command."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text


def clock_time(seconds: float) -> str:
    """A duration as hours:minutes:seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


class _TimeLeft(TimeRemainingColumn):
    def render(self, task: Task) -> Text:
        seconds = task.fields.get("seconds_left")
        return super().render(task) if seconds is None else Text(clock_time(seconds), style="progress.remaining")


BAR_COLUMNS = (  # where the terminal is narrow, bar and note give way
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(table_column=Column(min_width=9, no_wrap=True)),
    TimeElapsedColumn(table_column=Column(min_width=7, no_wrap=True)),
    TextColumn("left", table_column=Column(min_width=4)),
    _TimeLeft(table_column=Column(min_width=7, no_wrap=True)),
    TextColumn("{task.fields[note]}"),
)


def progress_bar(shown: bool = True) -> Progress:
    """On standard error: what is being done, how much of it, time spent and left, and a `note` of the caller's.

    A caller that knows better than the speed so far gives `seconds_left` too. What is printed meanwhile comes above the
    bar in a terminal, and unchanged into the file where standard output is one.
    """
    return Progress(
        *BAR_COLUMNS,
        disable=not shown,
        console=Console(stderr=True),
        redirect_stdout=sys.stdout.isatty(),  # else rich would show on the terminal what is meant for the file
    )
