"""Tokens a second of REBASE beside those of plain sampling, the reward model's time apart.

    python benchmarks/bench_tree.py
    python benchmarks/bench_tree.py --problems 64 --width 16 --json runs/bench_tree.json

Plain sampling decodes `width` runs a problem with `Engine.run`. The search has as many, a step is a line, and each
step's score is drawn by lot, which has children share parents as unevenly as a reward model would. Both draw from the
tiny base model under the same limits. Both decode once before it counts, so compilation does not; then they take turns.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
import zlib
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

from _machine import others_seconds
from _results import write_json

from s1_jax.checkpoints import hf
from s1_jax.config import SamplingConfig, SearchConfig, StepConfig, TaskConfig
from s1_jax.data.chat import prompt_ids
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.engine import Engine
from s1_jax.decoding.tree import Tree
from s1_jax.runtime.tables import align
from s1_jax.search.run import search_all
from s1_jax.search.verifier import Verdict, Verifier
from s1_jax.tasks import load_task

BASE = str(files("s1_jax") / "assets" / "tiny_base")
LEAST = 0.7  # of plain sampling's tokens a second


def main() -> None:
    """Run both ways in turn and print the table, then the JSON."""
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
            name=f"problem {problem.id}",
        )
        for problem in problems
    ]
    samples = [dataclasses.replace(request, sample=i) for request in requests for i in range(options.width)]
    ways: dict[str, Callable[[], tuple[int, float]]] = {
        "plain sampling": lambda: (len(list(engine.run(samples))), 0.0),
        "REBASE": lambda: rebase(engine, requests, options.width),
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    rows = [("way", "runs or steps", "tokens", "slot use", "seconds", "tokens/s")]
    others = 0.0
    for number in range(options.rounds + 1):
        for way, run in ways.items():
            before, use = engine.decoded_tokens, dataclasses.replace(engine.use)
            elsewhere, start = others_seconds(), time.perf_counter()
            count, scoring = run()
            seconds, tokens = time.perf_counter() - start - scoring, engine.decoded_tokens - before
            if number:
                others = max(others, (others_seconds() - elsewhere) / seconds)
                rates[way].append(tokens / seconds)
            if number == options.rounds:
                share = (engine.use.tokens - use.tokens) / (engine.use.slot_steps - use.slot_steps)
                rate = f"{statistics.median(rates[way]):,.0f}"
                rows.append((way, f"{count:,}", f"{tokens:,}", f"{share:.0%}", f"{seconds:.2f}", rate))
    medians = {way: statistics.median(rates[way]) for way in ways}
    share = medians["REBASE"] / medians["plain sampling"]
    print(align(rows))
    print(f"REBASE at {share:.0%} of plain sampling; bar: {LEAST:.0%}, {'met' if share >= LEAST else 'missed'}")
    print(f"other processes took up to {others:.2f} cores while a way ran")
    result = {"share": share, "least": LEAST, "met": share >= LEAST, "tokens_per_second": rates, "others_cores": others}
    print(json.dumps(result))
    write_json(options.json, result | vars(options) | {"json": None})


class Lot(Verifier):
    """A process reward model that costs nothing: the last step's score is drawn by lot, the same for the same text."""

    def __init__(self) -> None:
        self.kind = "process"

    def score(self, runs: Sequence[tuple[str, str]], names: Sequence[str] | None = None) -> list[Verdict]:
        """Return a verdict on each run."""
        return [Verdict((zlib.crc32(text.encode()) / 2**32,), len(text), True) for _, text in runs]


def rebase(engine: Engine, requests: list[Request], width: int) -> tuple[int, float]:
    """Search from each request, `width` runs wide; return the number of steps and the seconds of scoring."""
    config = SearchConfig("rebase", width=width)
    tree = Tree(engine, requests, StepConfig("\n"))
    found = [record for _, record in search_all(tree, config, [""] * len(requests), Lot(), lambda text: None)]
    return sum(record["steps"] for record in found), sum(record["reward_seconds"] for record in found)


if __name__ == "__main__":
    main()
