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
from rich.text import Text


def progress_bar() -> Progress:
    """On standard error: what is being done, how much of it, time spent and left, and a `note` of the caller's.

    A caller that knows better than the speed so far gives `seconds_left` too. What is printed meanwhile comes above the
    bar in a terminal, and unchanged into the file where standard output is one.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        _TimeLeft(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        redirect_stdout=sys.stdout.isatty(),  # else rich would show on the terminal what is meant for the file
    )


def clock_time(seconds: float) -> str:
    """A duration as hours:minutes:seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


class _TimeLeft(TimeRemainingColumn):
    def render(self, task: Task) -> Text:
        seconds = task.fields.get("seconds_left")
        return super().render(task) if seconds is None else Text(clock_time(seconds), style="progress.remaining")
