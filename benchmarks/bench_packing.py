"""How much of what a run computes are real tokens, and how evenly: of example lengths alone, nothing is trained.

    python benchmarks/bench_packing.py LENGTHS.json --rows 8 --row-lengths 8704 9728 10752 11264 11776 12800
    python benchmarks/bench_packing.py LENGTHS.json --rows 8 --suggest 6 --multiple 512

LENGTHS.json is a list of token counts, or {"examples": [{"question": 152, "thinking": 6865, "answer": 492}, ...]} whose
parts are added up. --suggest finds the row lengths that compute the fewest tokens, the longest being as short as every
step of --micro-batches allows, and shows them as if they had been given.
"""

from __future__ import annotations

import argparse
import collections
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from s1_jax.config import DataConfig
from s1_jax.data.chat import Example
from s1_jax.data.loader import Loader
from s1_jax.data.packing import balance, balanced_rows, best_fit, pack, row_work
from s1_jax.data.tokens import Corpus
from s1_jax.errors import UserError
from s1_jax.planning.workload import read_lengths


def main() -> None:
    """Read the lengths, suggest row lengths if asked to, and print what a run with them computes."""
    options = parse_options()
    lengths = read_lengths(options.lengths)
    examples = tuple(Example(np.zeros(n, np.int32), np.ones(n, bool)) for n in lengths)
    corpus = Corpus(tuple(map(str, range(len(lengths)))), examples)
    row_lengths = tuple(options.row_lengths)
    if options.suggest:
        row_lengths = suggest(corpus, options)
        print(f"suggested: --row-lengths {' '.join(map(str, row_lengths))}")
    report(loader(corpus, row_lengths, options))


def parse_options() -> argparse.Namespace:
    """Parse and return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lengths", type=Path, help="JSON file with the tokens of each example")
    parser.add_argument("--rows", type=int, required=True, help="B: rows of a micro-batch over all devices")
    parser.add_argument("--row-lengths", type=int, nargs="+", default=[], help="T to choose from, ascending")
    parser.add_argument("--batch-by", choices=("examples", "tokens"), default="examples")
    parser.add_argument("--batch-examples", type=int, default=16, help="of a step (default: 16)")
    parser.add_argument("--batch-tokens", type=int, help="of a step, with --batch-by tokens")
    parser.add_argument("--epochs", type=int, default=5, help="(default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the shuffle (default: 0)")
    parser.add_argument("--suggest", type=int, metavar="N", help="find the best N row lengths")
    parser.add_argument("--multiple", type=int, default=512, help="what suggested ones are multiples of (default: 512)")
    parser.add_argument("--micro-batches", type=int, default=1, help="of the largest step, for --suggest (default: 1)")
    options = parser.parse_args()
    if bool(options.suggest) == bool(options.row_lengths):
        parser.error("give either --row-lengths or --suggest")
    if options.batch_by == "tokens" and not options.batch_tokens:
        parser.error("--batch-by tokens needs --batch-tokens")
    return options


def loader(corpus: Corpus, row_lengths: Sequence[int], options: argparse.Namespace) -> Loader:
    """Make the loader of a run with these row lengths."""
    config = DataConfig(
        max_length=max(corpus.lengths),
        row_lengths=tuple(row_lengths),
        batch_by=options.batch_by,
        batch_examples=options.batch_examples,
        batch_tokens=options.batch_tokens,
        micro_batch_rows=options.rows,
    )
    return Loader(corpus, config, options.seed, options.epochs)


def step_lengths(run: Loader) -> list[list[int]]:
    """Tokens of each example of each step."""
    lengths = run.corpus.lengths
    return [[lengths[int(run.order[position])] for position in positions] for positions in run.plan()]


def suggest(corpus: Corpus, options: argparse.Namespace) -> tuple[int, ...]:
    """At most `options.suggest` row lengths for these steps; the last one holds all of them."""
    rows, multiple = options.rows * options.micro_batches, options.multiple
    if options.batch_by == "tokens":
        longest = max(math.ceil(options.batch_tokens / rows), *corpus.lengths)
    else:
        longest = max(fullest_row(step, rows) for step in step_lengths(loader(corpus, (), options)))
    longest = multiple * math.ceil(longest / multiple)

    rows_needing = collections.Counter({longest: 0})  # row length that is just enough -> rows of the run
    for step in step_lengths(loader(corpus, (longest,), options)):
        used = options.rows * pack(step, (longest,), options.rows).micro_batches
        rows_needing[multiple * math.ceil(fullest_row(step, used) / multiple)] += used
    return cheapest_lengths(rows_needing, options.suggest)


def cheapest_lengths(rows_needing: Mapping[int, int], count: int) -> tuple[int, ...]:
    """Choose at most `count` of the lengths, including the longest, so that the fewest tokens are computed.

    `rows_needing[length]` is the number of rows that need that length; each takes the next longer one that is chosen.
    """
    needs = sorted(rows_needing)
    # best[length]: for all rows that need no more than `length`, their tokens and the lengths chosen
    best: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, ())}
    for _ in range(count):
        longer: dict[int, tuple[int, tuple[int, ...]]] = {}
        for length in needs:
            for below, (tokens, chosen) in best.items():
                if below < length:
                    rows = sum(rows_needing[need] for need in needs if below < need <= length)
                    found = (tokens + rows * length, (*chosen, length))
                    longer[length] = min(longer.get(length, found), found)
        best = {length: min(best.get(length, found), found) for length, found in longer.items()} | {0: (0, ())}
    return best[needs[-1]][1]


def fullest_row(lengths: Sequence[int], count: int) -> int:
    """Tokens of the fullest of `count` balanced rows."""
    return max(sum(lengths[i] for i in row) for row in balanced_rows(lengths, count))


def report(run: Loader) -> None:
    """Print the run's figures; by examples, also those of best-fit into rows of one length and of the reference."""
    config, B = run.config, run.config.micro_batch_rows
    started = time.perf_counter()
    steps = step_lengths(run)
    planning = time.perf_counter() - started
    started = time.perf_counter()
    packings = [pack(step, config.capacities, B) for step in steps]
    packing = (time.perf_counter() - started) / len(steps)

    real = np.array([sum(step) for step in steps])
    computed = np.array([p.micro_batches * B * p.row_length for p in packings])
    balances = np.array([balance(p, step) for p, step in zip(packings, steps, strict=True)])
    shapes = collections.Counter((p.micro_batches, B, p.row_length) for p in packings)
    print(f"{len(steps)} steps of {real.mean():,.0f} tokens (at most {real.max():,}), {run.epochs} epochs")
    print(f"real tokens: {real.sum() / computed.sum():.1%} of all computed; a step {spread(real / computed)}")
    print(f"balance of the rows of a step: {spread(balances)}")
    print("micro-batches x rows x row length: steps")
    for (micro_batches, _, row_length), count in sorted(shapes.items()):
        print(f"  {micro_batches} x {B} x {row_length}: {count}")
    print(f"seconds: {planning:.2f} to plan the run, {packing:.4f} a step to pack")

    if config.batch_by == "examples":
        old, row_length = min(
            (sum(B * length * math.ceil(best_fit_rows(step, length) / B) for step in steps), length)
            for length in config.capacities
            if length >= config.max_length
        )
        print(f"best-fit into rows of one length, at best {row_length}: {real.sum() / old:.1%} real tokens")
        useful = sum(row_work(range(len(step)), step) for step in steps)
        waited = sum(config.batch_examples * row_work([0], [max(step)]) for step in steps)
        print(f"the reference, one example a device and all wait for the longest: {useful / waited:.1%} useful work")


def spread(shares: np.ndarray) -> str:
    """Write the mean and the least of some fractions."""
    return f"{shares.mean():.1%} on average, {shares.min():.1%} at least"


def best_fit_rows(lengths: Sequence[int], row_length: int) -> int:
    """Rows of `row_length` that best-fit takes, longest example first."""
    longest_first = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    rows = best_fit(lengths, longest_first, len(lengths), row_length)
    return sum(1 for row in rows or [] if row)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
