"""Selection of the examples, as for s1K and in the paper's ablations.

The selection of s1K (from s1's filter notebook) takes the seed picks. Then, until `uniform_until` rows are chosen, it
samples a domain uniformly; after that it samples a domain with its weight in the benchmarks' sources. Within a domain,
rows are ranked by the length of their trace, longest first, and one is sampled with weight 2^-rank: half the time the
longest.

Two properties of s1's code are kept on purpose. A seed pick stays in its domain until it is sampled, and that sample
adds nothing, so domains with many seeds get fewer other rows. Seeds are taken from the hard questions, while the
paper's text takes them before difficulty is considered (`seed_from`). One property is not kept: s1's code rounds GPQA's
scaled counts down, which omits rare domains.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.progress import Progress

from s1_jax.config.curate import CurateConfig, SelectConfig
from s1_jax.curation.stages import Made, Source
from s1_jax.errors import UserError

RANKS = 64  # 2^-64 and less vanishes when added to 1 in double precision


class Pool(NamedTuple):
    """Properties of the rows for selection, each an array of shape [rows]."""

    sources: np.ndarray  # str
    domains: np.ndarray  # str
    tokens: np.ndarray  # int64, length of the trace
    correct: np.ndarray  # bool, whether the teacher's attempt is
    hard: np.ndarray  # bool


class Pick(NamedTuple):
    """One chosen row, and the rule that chose it."""

    row: int
    by: str


def select(config: CurateConfig, source: Source, folder: Path, bar: Progress) -> Made:
    """Select rows by `config.select`, in the order in which they were chosen, and add `chosen_by`.

    Raises UserError if there are fewer rows than `size`, or more seed picks.
    """
    options = config.select
    pool = pool_of(source)
    picks = list(METHODS[options.method](pool, options))
    rows = np.asarray([pick.row for pick in picks], np.int64)
    dropped = []
    if options.method == "s1k":
        easy = int((~pool.hard).sum()) - int((~pool.hard[rows]).sum())
        dropped.append(("easy", easy))
    dropped.append(("not chosen", len(pool.hard) - len(rows) - sum(count for _, count in dropped)))
    return Made({"chosen_by": pa.array([pick.by for pick in picks], pa.string())}, rows, dropped)


def pool_of(source: Source) -> Pool:
    """Read the columns for selection; a null domain is "unknown". Raises UserError for a missing column."""
    missing = [name for name in ("source", "domain", "thinking_tokens", "correct", "hard") if name not in source.names]
    if missing:
        raise UserError(f"select needs column {missing[0]!r}; the table has {', '.join(source.names)}")
    texts = [pc.fill_null(source.column(name), "unknown") for name in ("source", "domain")]
    sources, domains = (column.to_numpy().astype(str) for column in texts)
    tokens = pc.fill_null(source.column("thinking_tokens"), 0).to_numpy().astype(np.int64)
    correct, hard = (pc.fill_null(source.column(name), False).to_numpy() for name in ("correct", "hard"))
    return Pool(sources, domains, tokens, correct.astype(bool), hard.astype(bool))


def s1k(pool: Pool, options: SelectConfig) -> Iterator[Pick]:
    """Choose seeds, then domains uniformly, then domains by their weights; see the module's docstring.

    When the benchmarks' domains are used up, or have no rows, domains are sampled uniformly again.
    """
    rng = np.random.default_rng(options.seed)
    seeds = seed_rows(pool, options)
    if len(seeds) > options.size:
        raise UserError(
            f"select.size {options.size} is below the {len(seeds):,} seed picks; choose fewer select.seed_sources"
        )
    _check_size(options.size, int((pool.hard | np.isin(np.arange(len(pool.hard)), seeds)).sum()), "hard rows")
    yield from (Pick(int(row), "seed") for row in seeds)
    left = _by_domain(pool, np.flatnonzero(pool.hard))
    weights = benchmark_weights(pool, options)
    chosen = set(seeds.tolist())
    while len(chosen) < options.size:
        benchmark = len(chosen) >= options.uniform_until and any(name in weights for name in left)
        names = [name for name in left if name in weights] if benchmark else list(left)
        name = names[_draw(rng, [weights[name] if benchmark else 1.0 for name in names])]
        row = left[name].pop(_draw(rng, 0.5 ** np.arange(min(len(left[name]), RANKS))))
        if not left[name]:
            del left[name]
        if row not in chosen:
            chosen.add(row)
            yield Pick(row, "benchmark" if benchmark else "domain")


def seed_rows(pool: Pool, options: SelectConfig) -> np.ndarray:
    """Return the rows that are always chosen, in order: those of good sources that the teacher got right."""
    long = (pool.sources == (options.seed_long_source or "")) & (pool.tokens > options.seed_long_tokens)
    taken = pool.correct & (np.isin(pool.sources, options.seed_sources) | long)
    return np.flatnonzero(taken & pool.hard if options.seed_from == "hard" else taken)


def benchmark_weights(pool: Pool, options: SelectConfig) -> dict[str, float]:
    """Return each domain's weight: its fraction of a benchmark source's hard rows times the source's weight, summed."""
    weights: dict[str, float] = {}
    for source, weight in options.benchmarks:
        names, counts = np.unique(pool.domains[pool.hard & (pool.sources == source)], return_counts=True)
        for name, share in zip(names.tolist(), counts / max(counts.sum(), 1), strict=True):
            weights[name] = weights.get(name, 0.0) + weight * float(share)
    return weights


def random(pool: Pool, options: SelectConfig) -> Iterator[Pick]:
    """Choose rows uniformly, including easy ones."""
    _check_size(options.size, len(pool.hard), "rows")
    order = np.random.default_rng(options.seed).permutation(len(pool.hard))
    yield from (Pick(int(row), "random") for row in order[: options.size])


def diverse(pool: Pool, options: SelectConfig) -> Iterator[Pick]:
    """Choose a domain uniformly, then a row of it uniformly, including easy ones."""
    _check_size(options.size, len(pool.hard), "rows")
    rng = np.random.default_rng(options.seed)
    left = _by_domain(pool, rng.permutation(len(pool.hard)), ranked=False)
    for _ in range(options.size):
        name = list(left)[_draw(rng, np.ones(len(left)))]
        yield Pick(left[name].pop(), "diverse")
        if not left[name]:
            del left[name]


def longest(pool: Pool, options: SelectConfig) -> Iterator[Pick]:
    """Choose the rows with the longest traces, including easy ones; ties go to the first."""
    _check_size(options.size, len(pool.hard), "rows")
    yield from (Pick(int(row), "longest") for row in np.argsort(-pool.tokens, kind="stable")[: options.size])


def full(pool: Pool, options: SelectConfig) -> Iterator[Pick]:
    """Choose all rows, in their order."""
    yield from (Pick(row, "full") for row in range(len(pool.hard)))


METHODS = {"s1k": s1k, "random": random, "diverse": diverse, "longest": longest, "full": full}


def _by_domain(pool: Pool, rows: np.ndarray, ranked: bool = True) -> dict[str, list[int]]:
    """Group rows by domain in alphabetical order; within a domain longest first (a stable sort), or as given."""
    if ranked:
        rows = rows[np.argsort(-pool.tokens[rows], kind="stable")]
    left: dict[str, list[int]] = {name: [] for name in np.unique(pool.domains[rows]).tolist()}
    for row, name in zip(rows.tolist(), pool.domains[rows].tolist(), strict=True):
        left[name].append(row)
    return left


def _draw(rng: np.random.Generator, weights: Sequence[float] | np.ndarray) -> int:
    """Sample an index with probability proportional to its weight."""
    bounds = np.cumsum(weights)
    return int(np.searchsorted(bounds, rng.random() * bounds[-1], side="right"))


def _check_size(size: int, there: int, what: str) -> None:
    if there < size:
        raise UserError(f"select.size {size:,} is more than the {there:,} {what} to choose from; lower it")
