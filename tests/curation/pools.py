"""Made-up tables of questions, as the stages before filter leave them."""

import dataclasses
import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from s1_jax.config.curate import CurateConfig
from s1_jax.curation.stages import Made, Source, Stage, run_stages
from s1_jax.runtime.progress import progress_bar

SOURCES = ("aime", "gpqa", "math", "numina", "usaco")
DOMAINS = ("algebra", "geometry", "number theory", "physics", "chemistry", "sets", None)


def made_up(rows, seed=0, hard=0.6):
    """Columns of so many rows with distinct questions."""
    rng = np.random.default_rng(seed)
    questions = [f"What is {i} plus {rng.integers(1000)}?" for i in range(rows)]
    domains = rng.integers(len(DOMAINS), size=rows) * rng.integers(2, size=rows)  # the first has most
    return {
        "id": [hashlib.sha256(question.encode()).hexdigest()[:16] for question in questions],
        "question": questions,
        "solution": [f"It is {i}." for i in range(rows)],
        "source": [SOURCES[i] for i in rng.integers(len(SOURCES), size=rows)],
        "domain": [DOMAINS[i] for i in domains],
        "thinking": [f"Let me see, {i}." for i in range(rows)],
        "attempt": [f"Answer: {i}" for i in range(rows)],
        "error": [None] * rows,
        "correct": [(True, False, None)[i] for i in rng.integers(3, size=rows)],
        "solver_1": ["?"] * rows,
        "solver_1_correct": [bool(i) for i in rng.random(rows) > hard],
        "thinking_tokens": rng.integers(1, 9000, size=rows).tolist(),
        "hard": [bool(i) for i in rng.random(rows) < hard],
    }


def table(columns):
    """As a table with the types the stages give."""
    kinds = {name: pa.bool_() for name in columns if name == "hard" or name.endswith("correct")}
    kinds["thinking_tokens"] = pa.int32()
    return pa.table({name: pa.array(values, kinds.get(name, pa.string())) for name, values in columns.items()})


def source(folder, columns):
    """As what a stage starts from."""
    path = folder / "table.parquet"
    pq.write_table(table(columns), path)
    return Source(path)


def call(stage, folder, columns, **sections):
    """What a stage makes of these columns; `sections` are those of the config."""
    config = dataclasses.replace(CurateConfig(run_dir=str(folder)), **sections)
    with progress_bar(shown=False) as bar:
        return stage(config, source(folder, columns), folder, bar)


def run(stages, folder, columns, **sections):
    """The last table of stages that start from these columns, as the pipeline runs them."""
    config = dataclasses.replace(CurateConfig(run_dir=str(folder)), **sections)

    def pool(config, source, folder, bar):
        made = table(columns)
        return Made({name: made[name].combine_chunks() for name in made.column_names})

    pool_stage = Stage("pool", pool, ())
    with progress_bar(shown=False) as bar:
        return run_stages([pool_stage, *(Stage(s.__name__, s, (s.__name__,)) for s in stages)], config, folder, bar)
