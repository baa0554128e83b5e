"""The stages between answers and the thousand chosen, on as many questions and as much text as the paper's pool.

    python benchmarks/bench_curate.py                                        # 59,029 questions, some 1 GB of traces
    python benchmarks/bench_curate.py --tokenizer FOLDER                     # and the counting of tokens, timed apart
    python benchmarks/bench_curate.py --rows 5903 --stages filter select

Questions, traces and evaluation sets are made up: words by lot, some questions with a pattern that filter knows, some
with a run of words from an evaluation set. Each stage runs as the pipeline runs it, in a process of its own on two
cores, which may not take more than 4 GiB; its time includes reading and writing tables. All of it is done for a quarter
of the rows too, to see whether time grows with them. Exit code 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from _machine import others_seconds
from _results import write_json
from rich.progress import Progress

from s1_jax.config.curate import CollectConfig, CurateConfig, DecontaminateConfig, SelectConfig
from s1_jax.curation.stages import Made, Source, Stage, run_stages
from s1_jax.runtime.progress import progress_bar
from s1_jax.runtime.tables import align

ROWS = 59_029  # the paper's
SECONDS, MEASURE_SECONDS, BYTES, CORES = 600.0, 900.0, 4 * 2**30, 2
GROWTH = 1.25  # of the processor time a row takes, from a quarter of the rows to all, at most
STAGES = ("decontaminate", "measure", "filter", "select")
APART = "measure"
PROBLEMS = 800  # of the evaluation set
TRACE_CHARACTERS, TEXT_CHARACTERS = 15_200, 2**24  # mean of a trace: 4.7k tokens; of the text traces are cut from
PLAIN = "so we get that the sum of all is not yet right since if one takes two then it must be even let us check again"
SIGNS = "x y = + ( ) 2 n ^2 , \\frac \\sqrt .\n\n"
PATTERNS = ("![Image](figure.png)", "[asy] draw((0,0)); [/asy]", "p12. Find it.", "**3.** Find it.")
SOURCES = ("numina", "math", "aime", "gpqa", "olympiad_bench")


def main() -> int:
    """Run both sizes and print the table, then the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS, help="(default: %(default)s)")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=STAGES, help="(default: all)")
    parser.add_argument("--tokenizer", help="folder or hub id; without it `measure` is left out")
    parser.add_argument("--run-dir", type=Path, help="where tables are made and stay (default: a folder that goes)")
    parser.add_argument("--json", type=Path, help="file to write all figures into")
    options = parser.parse_args()
    stages = [name for name in STAGES if name in options.stages and (name != APART or options.tokenizer)]
    run_dir = options.run_dir or Path(tempfile.mkdtemp(prefix="bench_curate-"))
    try:
        small, full = (
            time_stages(run_dir / str(rows), rows, stages, options.tokenizer)
            for rows in (options.rows // 4, options.rows)
        )
    finally:
        if options.run_dir is None:
            shutil.rmtree(run_dir)
    result = figures(small, full)
    print(table(full, result))
    print(json.dumps(result))
    write_json(options.json, result)
    return int(not all(result["met"].values()))


def time_stages(run_dir: Path, rows: int, stages: Sequence[str], tokenizer: str | None) -> list[dict[str, Any]]:
    """Measure each stage on this many rows, in a new process that finds the tables of earlier stages."""
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "problems.jsonl").write_text("\n".join(json.dumps({"problem": text}) for text in problems()) + "\n")
    size = max(rows * 1000 // ROWS, 10)
    config = CurateConfig(
        run_dir=str(run_dir),
        tokenizer=tokenizer or "none",  # not read: `measure` is left out
        collect=CollectConfig(limit=rows),
        decontaminate=DecontaminateConfig(tasks=(), paths=(str(run_dir / "problems.jsonl"),)),
        select=SelectConfig(size=size, uniform_until=7 * size // 10, seed_sources=("gpqa",), seed_long_source=None),
    )
    took = []
    for number in range(len(stages) + 1):
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:
            one = alone.submit(run_last, list(stages[:number]), config).result()
        print(
            f"{one['stage']}, {one['rows']:,} rows: {one['seconds']:.1f} s, {one['bytes'] / 2**20:,.0f} MiB", flush=True
        )
        took.append(one)
    return took[1:]


def run_last(names: Sequence[str], config: CurateConfig) -> dict[str, Any]:
    """Run the last of these stages, whose earlier tables exist, or make the pool if there are no stages."""
    if names:
        resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    pa.set_cpu_count(CORES)
    runs = [getattr(import_module(f"s1_jax.curation.{name}"), name) for name in names]
    stages = [Stage("pool", pool, ("collect",))]
    stages += [
        Stage(name, run, (name,) if name != APART else ("tokenizer",)) for name, run in zip(names, runs, strict=True)
    ]
    others, cpu, start = others_seconds(), time.process_time(), time.perf_counter()
    with progress_bar(shown=sys.stderr.isatty()) as bar:
        path = run_stages(stages, config, Path(config.run_dir), bar)
    seconds = time.perf_counter() - start
    others, cpu = (others_seconds() - others) / seconds, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    rows, left = config.collect.limit, pq.read_metadata(path).num_rows
    took = {"stage": stages[-1].name, "rows": rows, "left": left, "seconds": seconds}
    return took | {"cpu_seconds": cpu, "bytes": peak, "others_cores": others}


def problems() -> list[str]:
    """Make the evaluation set, which is the same every time."""
    return questions(np.random.default_rng(1), PROBLEMS)


def questions(rng: np.random.Generator, count: int) -> list[str]:
    """Make questions of 20 to 80 words, from 20,000 made-up words."""
    letters = np.random.default_rng(0).choice(list("aeilmnorst"), (20_000, 6))
    words = np.asarray(["".join(word) for word in letters])
    ends = np.cumsum(rng.integers(20, 80, count))
    drawn = words[rng.integers(len(words), size=ends[-1])]
    return [" ".join(drawn[start:end]) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def pool(config: CurateConfig, source: Source | None, folder: Path, bar: Progress) -> Made:
    """Make the table that decontaminate starts from, with the columns of all stages before filter."""
    rows = config.collect.limit or ROWS
    rng = np.random.default_rng(config.collect.seed)
    asked, known = questions(rng, rows), problems()
    for i in range(0, rows, 13):
        asked[i] += " " + PATTERNS[rng.integers(len(PATTERNS))]
    for i in range(5, rows, 200):
        asked[i] += " " + " ".join(known[rng.integers(PROBLEMS)].split()[4:18])
    domains = np.asarray([f"field {i}" for i in range(50)])[np.minimum(rng.geometric(0.08, rows), 50) - 1]
    return Made(
        {
            "id": pa.array([f"{i:016x}" for i in range(rows)]),
            "question": pa.array(asked),
            "solution": pa.array([f"It is {i}." for i in range(rows)]),
            "source": pa.array(np.asarray(SOURCES)[rng.choice(len(SOURCES), rows, p=(0.55, 0.25, 0.1, 0.05, 0.05))]),
            "domain": pa.array(domains),
            "thinking": pa.chunked_array(list(traces(rng, rows))),
            "attempt": pa.array([None if i % 12 == 1 else f"The answer is {i}." for i in range(rows)], pa.string()),
            "correct": pa.array(rng.random(rows) < 0.5),
            "solver_1_correct": pa.array(rng.random(rows) < 0.4),
            "solver_2_correct": pa.array(rng.random(rows) < 0.45),
            "thinking_tokens": pa.array(rng.integers(500, 9000, rows), pa.int32()),
        }
    )


def traces(rng: np.random.Generator, rows: int) -> Iterator[pa.Array]:
    """Yield pieces of one long text of plain words, signs and numbers."""
    words = np.asarray([*PLAIN.split() * 16, *SIGNS.split(" ") * 4, *map(str, range(50))])
    text = " ".join(words[rng.integers(len(words), size=TEXT_CHARACTERS // 4)])
    lengths = np.minimum(rng.gamma(4.0, TRACE_CHARACTERS / 4, rows), 8 * TRACE_CHARACTERS).astype(int)
    places = rng.integers(len(text) - 8 * TRACE_CHARACTERS, size=rows)
    for start in range(0, rows, 1024):
        here = slice(start, start + 1024)
        yield pa.array([text[p : p + n] for p, n in zip(places[here].tolist(), lengths[here].tolist(), strict=True)])


def figures(small: Sequence[dict[str, Any]], full: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Compute sums, growth and which bars are met; the time of fewer rows than the paper's is scaled linearly."""
    scale = ROWS / full[0]["rows"]
    together = scale * sum(one["seconds"] for one in full if one["stage"] != APART)
    apart = scale * sum(one["seconds"] for one in full if one["stage"] == APART)
    before, after = (sum(one["cpu_seconds"] for one in took) / took[0]["rows"] for took in (small, full))
    peak = max(one["bytes"] for one in full)
    met = {"seconds": together <= SECONDS, "memory": peak <= BYTES, "linear": after <= GROWTH * before}
    if apart:
        met["measure"] = apart <= MEASURE_SECONDS
    return {
        "seconds": together,
        "measure_seconds": apart,
        "peak_bytes": peak,
        "growth": after / before,
        "others_cores": max(one["others_cores"] for one in full),
        "met": met,
        "small": list(small),
        "full": list(full),
    }


def table(full: Sequence[dict[str, Any]], result: dict[str, Any]) -> str:
    """Format one line per stage, and the totals."""
    rows: list[tuple[str, ...]] = [("stage", "rows", "left", "seconds", "of a core", "peak MiB")]
    for one in full:
        rows.append((one["stage"], f"{one['rows']:,}", f"{one['left']:,}"))
        rows[-1] += (f"{one['seconds']:.1f}", f"{one['cpu_seconds']:.1f}", f"{one['bytes'] / 2**20:,.0f}")
    bars = ", ".join(f"{name} {'met' if met else 'missed'}" for name, met in result["met"].items())
    return (
        f"{align(rows)}\n{ROWS:,} questions: {result['seconds']:.0f} s of {SECONDS:.0f}, {APART} apart; a row takes "
        f"{result['growth']:.2f} times the processor time it does among a quarter of them\n"
        f"other processes took up to {result['others_cores']:.2f} cores while a stage ran\nbars: {bars}"
    )


if __name__ == "__main__":
    sys.exit(main())
