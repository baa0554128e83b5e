"""The run folder of a sweep: checking that records fit, finding missing ones, merging those of all processes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from s1_jax.checkpoints.folder import fingerprint
from s1_jax.config import S1, EvaluateConfig
from s1_jax.errors import UserError
from s1_jax.evaluation.settings import PlannedRecord
from s1_jax.records.check import check_config
from s1_jax.records.lines import gather_parts, parts_of
from s1_jax.records.results import read_results
from s1_jax.records.schema import FIELDS
from s1_jax.records.setting import record_key
from s1_jax.reporting.cost import COSTS
from s1_jax.runtime.cli import to_json
from s1_jax.runtime.files import read_earlier, write_whole
from s1_jax.runtime.processes import is_first, meet
from s1_jax.runtime.storage import Mirror

# Options that all records of one run_dir share; settings, number of problems and machine may differ between starts.
SHARED_OPTIONS = (
    ("model", "sha256"),
    ("model", "dtype"),
    ("model", "stop_tokens"),
    ("task", "name"),
    ("task", "path"),
    ("task", "seed"),
    ("max_answer_tokens",),
    ("max_model_len",),
    ("stored", "weights"),
    ("stored", "cache"),
    ("format",),
)
# Further options that all records of searches share.
SEARCH_OPTIONS = (("rewards", "process"), ("rewards", "outcome"), ("steps",))


def claim_run_dir(folder: Mirror, config: EvaluateConfig, source: Path, stop_tokens: Sequence[str]) -> None:
    """Write `config.json`, and merge the records of all processes of an earlier start.

    Raises UserError, which names the differing options, if the folder contains records of another sweep.
    """
    meet("run_dir is looked at")
    run_dir = folder.local
    now = json.loads(to_json(config)) | {"max_answer_tokens": config.answer_tokens}
    now["model"] |= {"sha256": fingerprint(source), "stop_tokens": list(stop_tokens)}
    path = run_dir / "config.json"
    there = [record for part in parts_of(run_dir / "records.jsonl") for record in read_results(part)]
    earlier = read_earlier(path, bound=True) if there else None  # without records, no option is bound
    if earlier is not None:
        check_config(earlier, str(path))
        shared = SHARED_OPTIONS + SEARCH_OPTIONS * any("method" in record for record in there)
        usual = json.loads(to_json(S1))
        before = earlier | {"format": usual | (earlier.get("format") or {})}  # earlier versions lack it, or parts of it
        before["model"] = {"stop_tokens": FIELDS["stop_tokens"].absent} | (before.get("model") or {})
        pairs = [(".".join(names), _at(before, names), _at(now, names)) for names in shared]
        if differing := [f"{name} was {old!r}, is {new!r}" for name, old, new in pairs if old != new]:
            raise UserError(f"{folder.place} contains other records ({'; '.join(differing)}); choose another --run-dir")
    meet("run_dir was looked at")
    if is_first():
        run_dir.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(now, indent=2) + "\n")
        gather(folder)
    meet("run_dir is claimed")
    folder.fetch()  # the merged files


def unfinished(folder: Mirror, planned: Sequence[PlannedRecord]) -> list[PlannedRecord]:
    """Return the planned records that the folder lacks. Raises UserError if one there is of another problem."""
    records = {record_key(record): record for record in read_results(folder.local / "records.jsonl")}
    for one in planned:
        record = records.get(one.key, one.known)
        for field in ("prompt_token_ids", "gold"):
            if record.get(field) != one.known[field]:
                raise UserError(
                    f"{folder.place} contains another {one.request.name} ({field} differs); choose another --run-dir"
                )
    return [one for one in planned if one.key not in records]


def gather(folder: Mirror) -> None:
    """Merge the files of the other processes into those of the first."""
    for name in ("records.jsonl", COSTS):
        gather_parts(folder.local / name)
    folder.keep()


def _at(options: Any, names: Sequence[str]) -> Any:
    for name in names:
        options = (options or {}).get(name)  # configs of earlier versions may lack it
    return options
