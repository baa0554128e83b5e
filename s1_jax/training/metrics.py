"""Where a run writes its numbers: `metrics.jsonl`, one line a step, and TensorBoard beside it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter


class MetricsLog:
    """Appends rows to `run_dir/metrics.jsonl` and `run_dir/tensorboard`.

    Opened at step s it drops the rows after s: they were written by a run that was stopped before its next checkpoint,
    and the resumed run writes them again.
    """

    def __init__(self, run_dir: Path, step: int):
        path = run_dir / "metrics.jsonl"
        kept = _rows_up_to(path, step) if path.exists() else ""
        draft = path.with_suffix(".tmp")
        draft.write_text(kept)
        os.replace(draft, path)
        self._file = path.open("a")
        self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=step + 1)

    def write(self, row: dict[str, Any]) -> None:
        """One step's numbers; `step` is among them. On disk when this returns."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for name, value in row.items():
            if name != "step" and value is not None:
                self._board.add_scalar(name, value, row["step"])

    def close(self) -> None:
        """Flushes both."""
        self._file.close()
        self._board.close()


def _rows_up_to(path: Path, step: int) -> str:
    rows = path.read_text().splitlines(keepends=True)
    whole = [row for row in rows if row.endswith("\n")]  # a killed run may leave half a line
    return "".join(row for row in whole if json.loads(row)["step"] <= step)
