"""Tokens a second of a search beside those of plain sampling: a tree of steps, all its children grown together.

    python scripts/bench_tree.py
    python scripts/bench_tree.py --problems 64 --width 16 --json runs/bench_tree.json

Plain sampling decodes `width` runs a problem with `Engine.run`. The search has as many: in every round as many children
as there are runs without an answer, given to the problem's living nodes by lot, as unevenly as REBASE's scores might;
a step is a line. Both draw from the tiny base model under the same limits. Both decode once before it counts, so
compilation does not; then they take turns. There is no reward model: its time would come on top.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
from _machine import others_seconds

from s1_jax.checkpoints import hf
from s1_jax.config import SamplingConfig, StepConfig, TaskConfig
from s1_jax.data.chat import prompt_ids
from s1_jax.decoding.engine import Engine
from s1_jax.decoding.requests import Request
from s1_jax.decoding.tree import Tree
from s1_jax.reporting.table import align
from s1_jax.tasks import load_task

BASE = str(files("s1_jax") / "assets" / "tiny_base")
LEAST = 0.7  # of plain sampling's tokens a second


def main() -> None:
    """Runs both ways in turn and prints the table, the JSON last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=32, help="(default: %(default)s)")
    parser.add_argument("--width", type=int, default=16, help="runs a problem (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="that count (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="file to write all figures into")
    options = parser.parse_args()
    source = hf.resolve(BASE)
    model, params = hf.load_params(source, stacked=False, kept="transposed")
    tokenizer = hf.load_tokenizer(source)
    problems = load_task(TaskConfig("synthetic", limit=options.problems)).problems
    engine = Engine(model, params, tokenizer, max_model_len=256, batch_size=options.batch_size)
    requests = [
        Request(
            tuple(prompt_ids(tokenizer, problem.question)),
            sampling=SamplingConfig(temperature=1.0),
            problem_id=problem.id,
            max_answer_tokens=8,
        )
        for problem in problems
    ]
    samples = [dataclasses.replace(request, sample=i) for request in requests for i in range(options.width)]
    ways: dict[str, Callable[[], int]] = {
        "plain sampling": lambda: len(list(engine.run(samples))),
        "search": lambda: search(engine, requests, options.width),
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    rows = [("way", "runs or steps", "tokens", "slot use", "seconds", "tokens/s")]
    others = 0.0
    for number in range(options.rounds + 1):
        for way, run in ways.items():
            before, use = engine.decoded_tokens, dataclasses.replace(engine.use)
            elsewhere, start = others_seconds(), time.perf_counter()
            count = run()
            seconds, tokens = time.perf_counter() - start, engine.decoded_tokens - before
            if number:
                others = max(others, (others_seconds() - elsewhere) / seconds)
                rates[way].append(tokens / seconds)
            if number == options.rounds:
                share = (engine.use.tokens - use.tokens) / (engine.use.slot_steps - use.slot_steps)
                rate = f"{statistics.median(rates[way]):,.0f}"
                rows.append((way, f"{count:,}", f"{tokens:,}", f"{share:.0%}", f"{seconds:.2f}", rate))
    medians = {way: statistics.median(rates[way]) for way in ways}
    share = medians["search"] / medians["plain sampling"]
    print(align(rows))
    print(f"search at {share:.0%} of plain sampling; bar: {LEAST:.0%}, {'met' if share >= LEAST else 'missed'}")
    print(f"other processes took up to {others:.2f} cores while a way ran")
    result = {"share": share, "least": LEAST, "met": share >= LEAST, "tokens_per_second": rates, "others_cores": others}
    print(json.dumps(result))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result | vars(options) | {"json": None}, indent=1) + "\n")


def search(engine: Engine, requests: list[Request], width: int) -> int:
    """Grows `width` runs of each request by steps until all have ended; how many steps that took."""
    tree, rng, steps = Tree(engine, requests, StepConfig("\n")), np.random.default_rng(0), 0
    living = [[root] for root in tree.roots]
    left = [width] * len(requests)  # runs without an answer
    while any(living):
        parents = [
            node
            for nodes, count in zip(living, left, strict=True)
            if nodes
            for node, share in zip(nodes, rng.multinomial(count, rng.dirichlet(np.ones(len(nodes)))), strict=True)
            for _ in range(share)
        ]
        children = tree.expand(parents)
        tree.prune([node for nodes in living for node in nodes])
        living = [[] for _ in requests]
        for node in children:
            if tree.ended(node):
                left[tree.request(node)] -= 1
            else:
                living[tree.request(node)].append(node)
        steps += len(children)
    return steps


if __name__ == "__main__":
    main()
