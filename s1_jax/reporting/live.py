"""The live display of a running sweep: progress and accuracy so far of every setting."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from s1_jax.records import Record
from s1_jax.records.setting import Setting
from s1_jax.records.verdicts import is_undecided
from s1_jax.runtime.progress import BAR_COLUMNS
from s1_jax.runtime.stages import LiveNote
from s1_jax.runtime.terminal import in_a_line

LINES_BESIDE = 6  # lines of the terminal left for bar, header and prompt


class LiveTable(Progress):
    """A progress bar as of `progress.progress_bar`, on a terminal below a table of the settings.

    `records` are finished already, out of `total`; `runs` says how they are decoded. Of several processes only one is
    `shown`.
    """

    def __init__(
        self, records: Iterable[Record], total: int, runs: str, console: Console | None = None, shown: bool = True
    ) -> None:
        self._settings: dict[Setting, list[int]] = {}  # numbers of records, right ones, thinking tokens, undecided ones
        self._runs, self._total = runs, total
        self.note = LiveNote(runs)  # a context in which compilations are shown
        super().__init__(
            *BAR_COLUMNS,
            console=console or Console(stderr=True),
            redirect_stdout=sys.stdout.isatty(),
            disable=not shown,
        )
        self._before = sum(1 for _ in map(self.add, records))
        self._bar = self.add_task("decoding", total=total, completed=self._before, note=self.note)
        self._since: tuple[float, int, int] | None = None

    def add(self, record: Record) -> None:
        """Count a record that has just been written."""
        counts = self._settings.setdefault(Setting.of(record), [0, 0, 0, 0])
        values = (1, bool(record["correct"]), record["num_thinking_tokens"], is_undecided(record))
        for i, value in enumerate(values):
            counts[i] += value

    def show(self, done: int, decoded_tokens: int, slot_use: float, tokens_per_step: float) -> None:
        """Update the bar with what this start has done so far.

        `done` counts records, `slot_use` is the fraction of slot-steps that produced a token, and `tokens_per_step` the
        mean number of tokens that such a step produced.
        """
        now = self.get_time() - self.note.compiling
        if self._since is None:
            self._since = now, decoded_tokens, done
        seconds, tokens, new = now - self._since[0], decoded_tokens - self._since[1], done - self._since[2]
        speed = f", {tokens / seconds:,.0f} tokens/s" if seconds > 0 and tokens else ""
        drafts = f", {tokens_per_step:.2f} tokens per step" if tokens_per_step > 1 else ""
        self.note.text = f"{self._runs}{speed}, {slot_use:.0%} of slots in use{drafts}"
        left = seconds / new * (self._total - self._before - done) if new else None
        self.update(self._bar, completed=self._before + done, seconds_left=left, told_at=self.get_time())

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return the table, if this is a terminal, and the bar."""
        if self._settings and self.console.is_terminal:  # in this order: rich calls this before there is a console
            yield self._table()
        yield self.make_tasks_table(self.tasks)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("setting")
        settings = list(self._settings.items())
        some_undecided = any(undecided for _, (*_, undecided) in settings)
        for name in ("records", "accuracy so far", "thinking tokens", *["undecided"] * some_undecided):
            table.add_column(name, justify="right")
        room = max(self.console.height - LINES_BESIDE, 1)
        for setting, (count, right, thinking, undecided) in settings[:room]:
            up_to = f" (up to {(right + undecided) / count:.1%})" if undecided else ""
            cells = [f"{count:,}", f"{right / count:.1%}{up_to}", f"{thinking / count:,.1f}"]
            table.add_row(Text(in_a_line(setting.label)), *cells, *[f"{undecided:,}"] * some_undecided)
        if len(settings) > room:
            table.add_row(f"and {len(settings) - room} more")
        return table
