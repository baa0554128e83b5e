"""Decoding with and without drafts: tokens a pass of the model, milliseconds a pass, tokens/s.

    python benchmarks/bench_speculate.py                             # the model that ships with the package
    python benchmarks/bench_speculate.py --model runs/quickstart/sft/hf --batch-size 1
    python benchmarks/bench_speculate.py --width 16 --batch-size 1 --rows 2    # random weights, 0.5 GB of them

Greedy, on problems of the synthetic task, one end of thinking ignored. Every way decodes once before it counts; then
the ways take turns. Drafts pay where reading the weights takes longer than computing with them: large models and small
batches on accelerators.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from importlib.resources import files

import jax
from _machine import others_seconds

from s1_jax.checkpoints import hf
from s1_jax.config import BudgetConfig, TaskConfig
from s1_jax.data.chat import prompt_ids
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.engine import Engine
from s1_jax.model.transformer import init_params, unstack
from s1_jax.runtime.progress import progress_bar
from s1_jax.runtime.tables import align
from s1_jax.tasks import load_task

BASE = str(files("s1_jax") / "assets" / "tiny_base")


def main() -> None:
    """Run the ways in turn and print the table, then the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=BASE, help="folder or hub id (default: the shipped one)")
    parser.add_argument("--width", type=int, help="random weights, so many times as wide")
    parser.add_argument("--draft-tokens", type=int, nargs="+", default=[0, 1, 3, 7], help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="(default: %(default)s)")
    parser.add_argument("--rows", type=int, default=64, help="problems (default: %(default)s)")
    parser.add_argument("--max-thinking-tokens", type=int, default=128, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="that count (default: %(default)s)")
    options = parser.parse_args()
    config, params = hf.load_params(options.model, stacked=False, kept="transposed")
    if options.width:
        names = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
        config = dataclasses.replace(config, **{name: getattr(config, name) * options.width for name in names})
        params = unstack(init_params(config, jax.random.key(0)))
    tokenizer = hf.load_tokenizer(options.model)
    budget = BudgetConfig(1, options.max_thinking_tokens, 1)
    requests = [
        Request(
            tuple(prompt_ids(tokenizer, p.question)),
            budget,
            problem_id=p.id,
            max_answer_tokens=8,
            name=f"problem {p.id}",
        )
        for p in load_task(TaskConfig("synthetic", limit=options.rows)).problems
    ]
    engines = {
        D: Engine(config, params, tokenizer, max_model_len=512, batch_size=options.batch_size, draft_tokens=D)
        for D in options.draft_tokens
    }
    seconds: dict[int, list[float]] = {D: [] for D in engines}
    records = {}
    with progress_bar() as bar:
        task = bar.add_task("decoding", total=(options.rounds + 1) * len(engines), note="")
        others = others_seconds()
        for _ in range(options.rounds + 1):
            for D, engine in engines.items():
                start = time.perf_counter()
                records[D] = list(engine.run(requests))
                seconds[D].append(time.perf_counter() - start)
                bar.advance(task)
        others = others_seconds() - others
    rows = [("draft tokens", "tokens a pass", "ms a pass", "tokens/s", "records that differ")]
    ways = []
    for D, engine in engines.items():
        runs, median = options.rounds + 1, statistics.median(seconds[D][1:])
        passes = engine.use.slot_steps / options.batch_size / runs
        differ = sum(a != b for a, b in zip(records[D], records[options.draft_tokens[0]], strict=True))
        ways.append(
            {
                "draft_tokens": D,
                "tokens_per_pass": engine.use.tokens_per_step,
                "ms_per_pass": 1000 * median / passes,
                "tokens_per_second": engine.use.tokens / runs / median,
                "records_that_differ": differ,
            }
        )
        _, tokens, ms, speed, _ = ways[-1].values()
        rows.append((str(D), f"{tokens:.2f}", f"{ms:.2f}", f"{speed:,.0f}", str(differ)))
    print(align(rows))
    print(json.dumps(vars(options) | {"ways": ways, "seconds": seconds, "cpu_seconds_of_others": others}))


if __name__ == "__main__":
    main()
