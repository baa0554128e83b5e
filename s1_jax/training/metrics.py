"""Places where a run writes its numbers: `metrics.jsonl`, one line a step; TensorBoard and, if asked for, W&B."""

from __future__ import annotations

import importlib
import json
import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from s1_jax.errors import UserError
from s1_jax.records.lines import numbered_records
from s1_jax.runtime.files import named, write_whole

ROWS_WAITING = 1000  # numbers that TensorBoard's thread has not yet written


class MetricsLog:
    """Append rows to `run_dir/metrics.jsonl`, `run_dir/tensorboard` and a W&B run, until the end of its `with`.

    Opened at step s it drops the rows after s: they were written by a run that was stopped before its next checkpoint,
    and the resumed run writes them again.
    """

    def __init__(self, run_dir: Path, step: int, wandb_run: Any = None):
        from tensorboardX import SummaryWriter  # brings torch along where that is installed: seconds of every process

        path = run_dir / "metrics.jsonl"
        kept = _rows_up_to(path, step) if path.exists() else ""
        write_whole(path, kept)
        self._path, self._file = path, path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=step + 1, max_queue=ROWS_WAITING)
        # a full disk ends it, and says so (`cli.say_of_thread`); whoever gave it more would wait for ever
        self._board_thread = self._board.file_writer.event_writer._worker
        self._wandb_run = wandb_run

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        with named(self._path):
            self._file.close()
        if self._board_thread.is_alive():
            self._board.close()
        if self._wandb_run is not None:
            self._wandb_run.finish(exit_code=0 if kind is None else 1)

    def write(self, row: dict[str, Any]) -> None:
        """One step's numbers; `step` is among them. On disk when this returns."""
        with named(self._path):
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        known = {name: value for name, value in row.items() if value is not None}
        for name, value in known.items():
            if name != "step" and self._board_thread.is_alive():
                self._board.add_scalar(name, value, row["step"])
        if self._wandb_run is not None:
            self._wandb_run.log(known)


def find_wandb() -> ModuleType:
    """Import and return the `wandb` package. Raises UserError if it is not installed."""
    wandb = None
    with suppress(ImportError):
        wandb = importlib.import_module("wandb")
    # a folder ./wandb, as W&B leaves behind, imports as an empty package
    if wandb is None or not hasattr(wandb, "init"):
        raise UserError("log.wandb_project needs Weights & Biases: pip install wandb")
    return wandb


def start_wandb(project: str, run_dir: Path, config: Mapping[str, Any]) -> Any:
    """Start the W&B run of `run_dir`, the same after a stop: its id stands in `run_dir/wandb_id`.

    W&B's own settings (WANDB_MODE=offline, `wandb login`) hold. Raises UserError where W&B does not start.
    """
    wandb = find_wandb()
    id_file = run_dir / "wandb_id"
    kept = id_file.read_bytes().strip() if id_file.exists() else b""
    run_id = kept.decode("ascii") if re.fullmatch(rb"[\w.-]+", kept) else uuid.uuid4().hex[:8]
    write_whole(id_file, run_id + "\n")
    try:
        run = wandb.init(
            project=project, id=run_id, resume="allow", name=run_dir.name, config=dict(config), dir=str(run_dir)
        )
    except Exception as error:  # no account, no network
        said = " ".join(str(error).split())
        raise UserError(f"W&B did not start ({said}); try `wandb login`, or WANDB_MODE=offline") from error
    # not W&B's own count of rows, which never goes back: a resumed run sends the steps after its checkpoint again
    run.define_metric("*", step_metric="step")
    return run


def _rows_up_to(path: Path, step: int) -> str:
    """Return the rows up to `step` as lines, without half a line that a kill left. Raises UserError on other lines."""
    kept: dict[int, str] = {}  # a step that two starts at once have written counts once, as the last has it
    for number, row in numbered_records(path):
        if type(row.get("step")) is not int:
            raise UserError(f"{path}, line {number}: it has no step; remove that line")
        if row["step"] <= step:
            kept[row["step"]] = json.dumps(row) + "\n"
    return "".join(kept.values())
