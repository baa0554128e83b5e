"""A whole grid of budgets from one trace, beside its longest setting alone and beside every setting by itself.

    python scripts/bench_sweep.py quickstart          # the model that scripts/quickstart.sh leaves in runs/
    python scripts/bench_sweep.py reference           # the same model under s1's own 11 settings, its maxima scaled
    python scripts/bench_sweep.py long --json runs/bench_sweep_long.json

The grid is 7 maxima x 5 ignore counts. `quickstart` decodes it greedily for held-out problems; `long` samples from a
random model of the same shape whose thinking runs to 1,024 tokens and ends now and then. Every way decodes once before
it counts, so compilation does not; then the ways take turns. Records of the ways are compared.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import jax
import numpy as np

from s1_jax.checkpoints import hf
from s1_jax.config import BudgetConfig, SamplingConfig, TaskConfig
from s1_jax.data.chat import prompt_ids
from s1_jax.decoding.engine import Engine
from s1_jax.decoding.requests import Request
from s1_jax.model.qwen2 import init_params, unstack
from s1_jax.progress import progress_bar
from s1_jax.reporting.table import align
from s1_jax.tasks import load_task

BASE = str(files("s1_jax") / "assets" / "tiny_base")
QUICKSTART = (16, 32, 64, 96, 128, 160, None)
Grid = list[tuple[int | None, int]]  # maximum of thinking tokens, ends ignored
GRIDS: dict[str, Grid] = {
    "quickstart": list(product(QUICKSTART, range(5))),
    "reference": [*((maximum, 0) for maximum in QUICKSTART), *((None, count) for count in (1, 2, 4, 6))],
    "long": list(product((64, 128, 256, 512, 768, 896, 1024), range(5))),
}


def main() -> None:
    """Runs the ways in turn and prints the table, the JSON last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=GRIDS)
    parser.add_argument(
        "--model", default="runs/quickstart/sft/hf", help="of quickstart and reference (default: %(default)s)"
    )
    parser.add_argument("--problems", type=int, help="(default: 256; long 16)")
    parser.add_argument("--rounds", type=int, default=3, help="that count (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="file to write all figures into")
    options = parser.parse_args()
    engine, requests = CASES[options.case](options)
    longest = [request for request in requests if request.budget == _longest(requests)]
    ways: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "one trace": lambda: [record for _, record in sorted(engine.run_shared(requests), key=lambda one: one[0])],
        "longest setting": lambda: list(engine.run(longest)),
        "each by itself": lambda: list(engine.run(requests)),
    }
    records: dict[str, list[dict[str, Any]]] = {}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    tokens: dict[str, int] = {}
    with progress_bar() as bar:
        task = bar.add_task("warming up", total=(options.rounds + 1) * len(ways), note="")
        for number, (way, run) in product(range(options.rounds + 1), ways.items()):
            bar.update(task, description=f"round {number}" if number else "warming up", note=way)
            before, start = engine.decoded_tokens, time.perf_counter()
            records[way] = run()
            seconds[way].append(time.perf_counter() - start)
            tokens[way] = engine.decoded_tokens - before
            bar.advance(task)
    medians = {way: statistics.median(times[1:]) for way, times in seconds.items()}
    shared = medians["one trace"]
    pairs = zip(records["one trace"], records["each by itself"], strict=True)
    rows = [("way", "settings", "decoded tokens", "seconds", "of one trace's")]
    for way in ways:
        count = 1 if way == "longest setting" else len(requests) // len(longest)
        rows.append((way, str(count), f"{tokens[way]:,}", f"{medians[way]:.2f}", f"{medians[way] / shared:.2f} x"))
    result = {
        "case": options.case,
        "problems": len(longest),
        "thinking_tokens_of_longest": statistics.mean(r["num_thinking_tokens"] for r in records["longest setting"]),
        "tokens": tokens,
        "seconds": medians,
        "of_longest": shared / medians["longest setting"],
        "faster_than_each_by_itself": medians["each by itself"] / shared,
        "records_that_differ": sum(mine != alone for mine, alone in pairs),
        "records": len(requests),
    }
    print(align(rows))
    print(f"records that differ: {result['records_that_differ']} of {len(requests)}")
    print(json.dumps(result))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result | {"rounds": seconds}, indent=1) + "\n")


def quickstart(options: argparse.Namespace) -> tuple[Engine, list[Request]]:
    """The quickstart's fine-tuned model and held-out problems, greedy."""
    source = hf.resolve(options.model)
    model, params = hf.load_params(source, stacked=False)
    tokenizer = hf.load_tokenizer(source)
    problems = load_task(TaskConfig("synthetic", limit=options.problems or 256)).problems
    engine = Engine(model, params, tokenizer, max_model_len=256, batch_size=len(problems))
    prompts = {problem.id: tuple(prompt_ids(tokenizer, problem.question)) for problem in problems}
    return engine, _requests(GRIDS[options.case], prompts, SamplingConfig(), 8)


def long(options: argparse.Namespace) -> tuple[Engine, list[Request]]:
    """A random model whose draws are nearly uniform, so that thinking ends about once in 350 tokens."""
    tokenizer = hf.load_tokenizer(hf.resolve(BASE))
    model = dataclasses.replace(hf.load_config(hf.resolve(BASE)), max_position_embeddings=1280)
    count = options.problems or 16
    params = unstack(init_params(model, jax.random.key(0)))
    engine = Engine(model, params, tokenizer, max_model_len=1280, batch_size=count, end_tokens=("<|im_start|>",))
    rng = np.random.default_rng(0)
    prompts = {i: tuple(map(int, rng.integers(0, 256, 40))) for i in range(count)}
    return engine, _requests(GRIDS[options.case], prompts, SamplingConfig(temperature=1.0), 32)


CASES = {"quickstart": quickstart, "reference": quickstart, "long": long}


def _requests(grid: Grid, prompts: dict, sampling: SamplingConfig, answer: int) -> list[Request]:
    return [
        Request(prompt, BudgetConfig(1, maximum, count), sampling, problem, 0, 0, answer)
        for (maximum, count), (problem, prompt) in product(grid, prompts.items())
    ]


def _longest(requests: list[Request]) -> BudgetConfig:
    return requests[-1].budget  # the last of each grid


if __name__ == "__main__":
    main()
