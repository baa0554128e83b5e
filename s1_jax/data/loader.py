"""Data loader on grain: the examples of each optimizer step and their arrays.

Each epoch has its own shuffle, which depends only on the seed and the epoch (and, with batches by tokens, on the
lengths, because examples that fill a row together are neighbors). A position is the number of examples since the start
of training. It is all that a checkpoint has to save, and remains valid for any number of processes and, with batches by
examples, for another batch size. A step is a stack of micro-batches [M, B, T], of which it uses as many as its examples
fill. M and B are constant and T is one of data.row_lengths, which bounds the number of compiled shapes; M is 1 if no
step needs a second micro-batch.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import grain

from s1_jax.config import DataConfig
from s1_jax.data.packing import WEIGHTINGS, Batch, balance, fill_rows, full_rows, loss_tokens, pack
from s1_jax.data.tokens import Corpus
from s1_jax.errors import UserError

SEEDS = 2**32  # grain's range of seeds
BLOCK = 1024  # at most this many examples of the shuffle are packed into full rows together


class Step(NamedTuple):
    """One optimizer step, with the arrays of this process and the numbers of all processes."""

    batch: Batch  # each [M, own rows, T], see packing.py; the loss is the sum of weights * nll
    rows: int  # B of all processes
    micro_batches: int  # how many of the M contain examples; the others are padding and need not be computed
    example_ids: tuple[str, ...]  # in the order of the shuffle
    examples_seen: int  # since the start of training, including this step: the position to resume from
    real_tokens: int  # without padding
    row_tokens: int  # with padding: micro_batches * B * T
    balance: float  # mean work of a row, with attention, over the largest in its micro-batch; 1 is perfectly even

    @property
    def real_share(self) -> float:
        """Fraction of the computed tokens that are not padding."""
        return self.real_tokens / self.row_tokens


@dataclasses.dataclass(frozen=True)
class Loader:
    """Loader of the steps of `epochs` epochs over a corpus.

    Every process packs the same global step and fills only its own rows of each micro-batch (`own_rows`; None means
    all B). The contents of a step therefore do not depend on the number of processes. Raises UserError for invalid
    settings.
    """

    corpus: Corpus
    config: DataConfig
    seed: int
    epochs: int
    own_rows: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.config.batch_by == "tokens" and not self.config.batch_tokens:
            raise UserError("data.batch_by tokens needs data.batch_tokens, the tokens of an optimizer step")
        for name in ("batch_examples", "micro_batch_rows", "max_length"):
            if getattr(self.config, name) < 1:
                raise UserError(f"data.{name} is {getattr(self.config, name)}; it must be at least 1")
        if not 0 <= self.seed < SEEDS:
            raise UserError(f"the seed {self.seed} is not between 0 and {SEEDS - 1}")

    @functools.cached_property
    def order(self) -> Sequence[int]:
        """Map from positions since the start of training to indices into the corpus."""
        return ORDERS[self.config.batch_by](self)

    @functools.cached_property
    def total_steps(self) -> int:
        """Number of steps of the whole training, unless the batch size changes."""
        return len(self.plan())

    @functools.cached_property
    def max_micro_batches(self) -> int:
        """Largest number of micro-batches of any step of the training (M)."""
        lengths, config = self.corpus.lengths, self.config
        steps = ([lengths[int(self.order[position])] for position in step] for step in self.plan())
        packings = (pack(step, config.capacities, config.micro_batch_rows) for step in steps)
        return max((packing.micro_batches for packing in packings), default=1)

    def plan(self, start_examples: int = 0) -> list[range]:
        """List the positions of each step from `start_examples` on; the last step of an epoch has its remainder."""
        steps = []
        start, total = start_examples, self.epochs * len(self.corpus)
        while start < total:
            epoch_end = start - start % len(self.corpus) + len(self.corpus)
            stop = BATCH_BY[self.config.batch_by](self, start, epoch_end)
            steps.append(range(start, stop))
            start = stop
        return steps

    def batches(self, start_examples: int = 0) -> Iterator[Step]:
        """Yield the steps from position `start_examples` on; the next ones are packed in the background."""
        # plain ints, because grain would treat a range as a data source
        bounds = [(step.start, step.stop) for step in self.plan(start_examples)]
        if not bounds:
            return
        steps = grain.MapDataset.source(bounds).map(lambda bound: self.step(range(*bound)))
        yield from steps.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))

    def step(self, positions: range) -> Step:
        """Build the arrays of the step at these positions."""
        chosen = self.corpus.take([int(self.order[position]) for position in positions])
        step = assemble(chosen, self.config, self.own_rows, self.max_micro_batches)
        return step._replace(examples_seen=positions.stop)


def assemble(
    corpus: Corpus, config: DataConfig, own_rows: tuple[int, ...] | None = None, max_micro_batches: int = 1
) -> Step:
    """Pack a whole corpus, such as a held-out set, into one step with at least `max_micro_batches` micro-batches."""
    packing = pack(corpus.lengths, config.capacities, config.micro_batch_rows)
    B = config.micro_batch_rows
    rows = packing.rows + [[]] * ((max_micro_batches - packing.micro_batches) * B)
    token_weights = WEIGHTINGS[config.loss_weighting]([loss_tokens(example) for example in corpus.examples])
    own = range(B) if own_rows is None else own_rows
    filled = fill_rows(
        corpus.examples,
        token_weights,
        [rows[first + i] for first in range(0, len(rows), B) for i in own],
        packing.row_length,
    )
    return Step(
        batch={name: array.reshape(-1, len(own), packing.row_length) for name, array in filled.items()},
        rows=B,
        micro_batches=packing.micro_batches,
        example_ids=corpus.ids,
        examples_seen=len(corpus),
        real_tokens=sum(corpus.lengths),
        row_tokens=packing.micro_batches * B * packing.row_length,
        balance=balance(packing, corpus.lengths),
    )


def _shuffled(loader: Loader) -> Sequence[int]:
    return grain.MapDataset.range(len(loader.corpus)).shuffle(seed=loader.seed).repeat()


def _in_full_rows(loader: Loader) -> Sequence[int]:
    """Return the shuffle with each block packed into rows, in the random order of the examples that open them."""
    shuffled, lengths, size = _shuffled(loader), loader.corpus.lengths, len(loader.corpus)
    _, row_length = _rows_by_tokens(loader.config)
    order: list[int] = []
    while len(order) < loader.epochs * size:
        start = len(order)
        block = [int(shuffled[i]) for i in range(start, min(start + BLOCK, start - start % size + size))]
        order += [block[i] for row in full_rows([lengths[i] for i in block], row_length) for i in row]
    return order


def _rows_by_tokens(config: DataConfig) -> tuple[int, int]:
    """Return the number of rows for the tokens of a step, and the number of tokens for each row."""
    tokens, B = config.batch_tokens or 0, config.micro_batch_rows
    rows = math.ceil(tokens / (B * config.capacities[-1])) * B
    return rows, tokens // rows


def _by_examples(loader: Loader, start: int, epoch_end: int) -> int:
    return min(start + loader.config.batch_examples, epoch_end)


def _by_tokens(loader: Loader, start: int, epoch_end: int) -> int:
    most_rows, row_length = _rows_by_tokens(loader.config)
    rows = room = 0
    tokens, stop = loader.config.batch_tokens or 0, start
    while stop < epoch_end:
        length = len(loader.corpus.examples[loader.order[stop]].token_ids)
        if length > room:
            rows, room = rows + 1, row_length
        room -= length
        tokens -= length
        if (rows > most_rows or tokens < 0) and stop > start:  # an example longer than a step is a step by itself
            break
        stop += 1
    return stop


# the order of the examples
ORDERS: dict[str, Callable[[Loader], Sequence[int]]] = {"examples": _shuffled, "tokens": _in_full_rows}
# the end of the step that starts at a position, at most the end of its epoch
BATCH_BY: dict[str, Callable[[Loader, int, int], int]] = {"examples": _by_examples, "tokens": _by_tokens}
