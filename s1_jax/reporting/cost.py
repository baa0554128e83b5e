"""The cost of a sweep: decoded tokens and seconds, compared with decoding each setting by itself."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from s1_jax.config.model_fields import Fields
from s1_jax.records import Record
from s1_jax.records.check import check_fields
from s1_jax.records.kinds import COUNT, POSITIVE
from s1_jax.records.lines import cut_torn_line, numbered_records, part_of
from s1_jax.records.setting import Setting
from s1_jax.runtime.files import appended
from s1_jax.runtime.progress import clock_time

COSTS = "decoding.jsonl"  # in run_dir: one line for each start of a process


def add_cost(run_dir: Path, process: int = 0, **cost: float) -> None:
    """Append the cost of one start of a process to `decoding.jsonl`; work lost to an interruption is not counted.

    Fields: `records`; `decoded_tokens` of thinking and answers; `seconds`; `slot_steps`, steps of the rows of a batch;
    `slot_tokens`, the tokens that these steps produced; `accepted_tokens`, those that a draft had predicted;
    `programs`, the number of compiled programs.
    """
    path = part_of(run_dir / COSTS, process)
    cut_torn_line(path)
    with appended(path) as file:
        line = {"process": process} | {name: round(value, 3) for name, value in cost.items()}
        file.write(json.dumps(line) + "\n")


def cost_of(run_dir: Path, records: Sequence[Record]) -> dict[str, Any]:
    """Return the section `cost` of `summary.json`; sums over starts are None if a record's start was not noted."""
    starts = _starts(run_dir / COSTS)
    by_setting: Counter[Setting] = Counter()
    for record in records:
        chosen = record["num_thinking_tokens"] + record["num_answer_tokens"]
        by_setting[Setting.of(record)] += record.get("generated_tokens", chosen)  # a search counts all its runs
    known = sum(start["records"] for start in starts) >= len(records)

    def total(name: str) -> float | None:
        return sum(start.get(name, 0) for start in starts) if known else None

    steps, tokens = total("slot_steps"), total("slot_tokens")
    bringing = tokens - total("accepted_tokens") if tokens else None  # type: ignore[operator]
    return {
        "decoded_tokens": total("decoded_tokens"),
        "seconds": total("seconds"),
        "slot_use": bringing / steps if steps and bringing else None,
        "tokens_per_step": tokens / bringing if tokens and bringing else None,
        "programs": max(start.get("programs", 0) for start in starts) if known else None,
        "tokens_of_all_settings": by_setting.total(),
        "tokens_of_longest_setting": max(by_setting.values()),
    }


def _starts(path: Path) -> list[Record]:
    """Read the costs of all starts. Raises UserError that names file, line and field of a damaged line."""
    starts = []
    for number, start in numbered_records(path):
        fields = Fields(start, f"{path}, line {number}")
        check_fields(fields, {"records": COUNT}, dict.fromkeys(start, POSITIVE))
        starts.append(start)
    return starts


def format_cost(cost: dict[str, Any]) -> str:
    """Format what `cost_of` found as one or two lines."""
    alone = f"{cost['tokens_of_all_settings']:,} with each setting decoded by itself"
    longest = f"{cost['tokens_of_longest_setting']:,} with the longest setting alone"
    if cost["decoded_tokens"] is None:
        return f"Thinking and answer tokens: {alone}, {longest}"
    decoded = f"{cost['decoded_tokens']:,} decoded in {clock_time(cost['seconds'])}"
    used = f"{cost['slot_use']:.0%} of slot-steps produced a token" if cost["slot_use"] else "no steps were made"
    if not cost["programs"]:  # an earlier version counted neither steps nor programs
        return f"Thinking and answer tokens: {decoded}; {alone}, {longest}"
    if (cost["tokens_per_step"] or 1) > 1:
        used += f", {cost['tokens_per_step']:.2f} on average"
    return f"Thinking and answer tokens: {decoded}; {alone}, {longest}\n{used}; {cost['programs']} programs compiled"
