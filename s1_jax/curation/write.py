"""Output of the data set as Parquet, which `s1_jax.train` and `datasets` read directly, with its card.

`run_dir/NAME` contains data/train-00000-of-00001.parquet, README.md (the card with the report) and funnel.png. The data
set is pushed to the hub only if `write.push_to` is set, and as a private one: GPQA's authors ask that its questions are
not published.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.progress import Progress

from s1_jax.config.curate import CurateConfig
from s1_jax.curation.report import group_rows, markdown_table, overlap_with, report_lines, save_funnel_plot
from s1_jax.curation.sources import PUBLIC
from s1_jax.curation.stages import ROWS_OF_GROUP, Count, Made, Source, counts_of
from s1_jax.data.sources import READERS
from s1_jax.errors import RunError, UserError
from s1_jax.runtime.files import whole_file, write_whole
from s1_jax.runtime.terminal import say

DATA = Path("data") / "train-00000-of-00001.parquet"
NEEDED = ("id", "question", "solution", "source", "domain", "thinking", "attempt", "thinking_tokens", "chosen_by")
PRIVATE = (
    *("run_dir", "paths", "base_url", "plain_http", "key_variable"),
    *("compare_with", "push_to", "until", "again_from"),
)


def write(config: CurateConfig, source: Source, folder: Path, bar: Progress) -> Made:
    """Write the data set of the chosen rows, and push it if `write.push_to` is set; the table stays unchanged.

    Solvers' texts and error columns are omitted. Raises UserError for a missing column, and RunError if the hub refuses
    the data set; the files on disk stay.
    """
    if missing := [name for name in NEEDED if name not in source.names]:
        raise UserError(f"write needs column {missing[0]!r}; the table has {', '.join(source.names)}")
    target = Path(config.run_dir) / config.write.name
    (target / DATA).parent.mkdir(parents=True, exist_ok=True)
    names = [name for name in source.names if _is_written(name)]
    _write_data(target / DATA, source, names, bar)
    counts = counts_of(source.path)
    save_funnel_plot(target / "funnel.png", counts)
    write_whole(target / "README.md", "\n".join(_card(config, source, counts)))
    say(f"data set: {source.num_rows:,} rows in {target}, described in {target / 'README.md'}")
    if config.write.push_to is not None:
        _push(target, config.write.push_to)
    return Made()


def write_inputs(config: CurateConfig) -> Sequence[Path]:
    """List the files besides the table that the card depends on. Raises UserError if one is missing."""
    name = config.write.compare_with
    if name is None:
        return []
    compared = Path(name)
    if not compared.exists() and (compared.suffix in READERS or name.startswith(("/", ".", "~"))):
        raise UserError(f"write.compare_with: no such file or folder: {name}")
    return [compared] if compared.is_file() else []


def _is_written(name: str) -> bool:
    return not name.startswith("solver_") and name not in ("error", "hard")


def _write_data(path: Path, source: Source, names: Sequence[str], bar: Progress) -> None:
    """Write the Parquet file atomically."""
    task = bar.add_task("write", total=source.num_rows, note="")
    schema = source.empty(names).schema.remove_metadata()
    with whole_file(path) as beside, pq.ParquetWriter(beside, schema, compression="zstd") as writer:
        for batch in source.batches(names):
            writer.write_table(pa.Table.from_batches([batch]).replace_schema_metadata(None), ROWS_OF_GROUP)
            bar.advance(task, len(batch))
    bar.remove_task(task)


def _card(config: CurateConfig, source: Source, counts: Sequence[Count]) -> Iterator[str]:
    """Yield the lines of README.md: the metadata for the hub, then the text."""
    table = pa.concat_tables([source.empty(NEEDED), *_cut_tables(source)])
    overlap = None if config.write.compare_with is None else overlap_with(config.write.compare_with, table)
    yield from (
        "---",
        f"license: {config.write.licence}",
        "task_categories: [text-generation]",
        "tags: [reasoning]",
        "configs:",
        "- config_name: default",
        "  data_files:",
        "  - split: train",
        f"    path: {DATA.as_posix()}",
        "---",
        "",
    )
    options = config.select
    teacher = config.generate.teacher.model or "as the questions came with them"
    yield from (
        f"# {source.num_rows:,} questions with reasoning traces",
        "",
        f"Chosen by `{options.method}`, seed {options.seed}, as in "
        "[s1: Simple test-time scaling](https://arxiv.org/abs/2501.19393), by s1_jax. "
        f"Traces and attempts: {teacher}.",
        "",
        "    python -m s1_jax.train CONFIG.py --data.path FOLDER",
        "",
        "Columns: `question`, `solution` (the source's; may be missing), `source`, `domain`, `thinking` and `attempt` "
        "(the teacher's), `correct` (of its attempt; null if undecided), `thinking_tokens`, `chosen_by`.",
        "",
    )
    yield from report_lines(table, counts, overlap)
    yield from ("## Sources and licences", "", *markdown_table(_licences(table)), "")
    yield from ("## Configuration", "", "```json", json.dumps(_public(dataclasses.asdict(config)), indent=2), "```", "")


def _cut_tables(source: Source) -> Iterator[pa.Table]:
    """Yield the rows with traces shortened as in the card, because whole traces may be many GB."""
    for batch in source.batches(NEEDED):
        table = pa.Table.from_batches([batch])
        for name in ("thinking", "attempt"):
            cut = pc.utf8_slice_codeunits(table[name], 0, 2000)
            table = table.set_column(table.schema.get_field_index(name), name, cut)
        yield table.cast(source.empty(NEEDED).schema)


def _licences(table: pa.Table) -> list[tuple[str, ...]]:
    """Return a table of sources with their rows and licenses, as stated on the hub."""
    _, *rows = group_rows(table, "source")
    known = {name: source.licence for name, source in PUBLIC.items()}
    return [("source", "rows", "licence"), *((name, count, known.get(name) or "not known") for name, count, _ in rows)]


def _public(value: Any) -> Any:
    """Remove what identifies the machine from a config."""
    if isinstance(value, dict):
        return {name: _public(part) for name, part in value.items() if name not in PRIVATE}
    return [_public(part) for part in value] if isinstance(value, (list, tuple)) else value


def _push(target: Path, name: str) -> None:
    try:
        hub = huggingface_hub.HfApi()
        hub.create_repo(name, repo_type="dataset", private=True, exist_ok=True)
        hub.upload_folder(repo_id=name, repo_type="dataset", folder_path=target)
    except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise RunError(f"{target} is written, but could not be pushed to {name!r} ({said})") from None
    say(f"pushed to {name}; a new data set there is private")
