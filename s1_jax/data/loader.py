"""Which examples make up which optimizer step, on grain; and the arrays of each step.

The order is a shuffle of its own in every epoch, a function of seed and epoch alone; by tokens, also of the lengths,
for there the examples that fill a row together follow each other. A position in it is a count of examples since the
start of training: all that a checkpoint has to keep, and good for any number of processes and, by examples, another
batch size. A step is a stack of micro-batches [M, B, T] of which it uses as many as its examples fill. M and B never
change and T is one of data.row_lengths, so no more shapes are compiled; M is 1 where no step needs a second one.
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

SEEDS = 2**32  # what grain takes
BLOCK = 1024  # so many examples of the shuffle are put into full rows together, at most


class Step(NamedTuple):
    """One optimizer step: arrays of this process, figures of the whole step."""

    batch: Batch  # each [M, own rows, T], see packing.py; the loss is the sum over all of weights * nll
    rows: int  # B, those of all processes
    micro_batches: int  # how many of the M hold examples; the others are all padding and need not be computed
    example_ids: tuple[str, ...]  # in the order of the shuffle
    examples_seen: int  # since the start of training, this step included: the position to resume from
    real_tokens: int  # without padding
    row_tokens: int  # with it: micro_batches * B * T
    balance: float  # mean work of a row over that of the heaviest one beside it, attention included; 1 is even

    @property
    def real_share(self) -> float:
        """Share of the tokens computed that are no padding."""
        return self.real_tokens / self.row_tokens


@dataclasses.dataclass(frozen=True)
class Loader:
    """Steps over `epochs` epochs of a corpus.

    Every process packs the same global step and fills only its own of the B rows of each micro-batch (none: all), so
    what a step holds does not depend on how many they are. Raises UserError for settings that fit nothing.
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
        """Position since the start of training -> index into the corpus."""
        return ORDERS[self.config.batch_by](self)

    @functools.cached_property
    def total_steps(self) -> int:
        """Steps of the whole training when nothing interrupts it or changes the batch size."""
        return len(self.plan())

    @functools.cached_property
    def max_micro_batches(self) -> int:
        """M: what the step that needs most uses, over the whole training."""
        lengths, config = self.corpus.lengths, self.config
        steps = ([lengths[int(self.order[position])] for position in step] for step in self.plan())
        packings = (pack(step, config.capacities, config.micro_batch_rows) for step in steps)
        return max((packing.micro_batches for packing in packings), default=1)

    def plan(self, start_examples: int = 0) -> list[range]:
        """The positions of each step from `start_examples` on; the last one of an epoch holds what remains of it."""
        steps = []
        start, total = start_examples, self.epochs * len(self.corpus)
        while start < total:
            epoch_end = start - start % len(self.corpus) + len(self.corpus)
            stop = BATCH_BY[self.config.batch_by](self, start, epoch_end)
            steps.append(range(start, stop))
            start = stop
        return steps

    def batches(self, start_examples: int = 0) -> Iterator[Step]:
        """The steps from position `start_examples` on; the next ones are packed in the background."""
        # plain ints: grain would take a range for a data source of its own
        bounds = [(step.start, step.stop) for step in self.plan(start_examples)]
        if not bounds:
            return
        steps = grain.MapDataset.source(bounds).map(lambda bound: self.step(range(*bound)))
        yield from steps.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))

    def step(self, positions: range) -> Step:
        """The arrays of one step."""
        chosen = self.corpus.take([int(self.order[position]) for position in positions])
        step = assemble(chosen, self.config, self.own_rows, self.max_micro_batches)
        return step._replace(examples_seen=positions.stop)


def assemble(
    corpus: Corpus, config: DataConfig, own_rows: tuple[int, ...] | None = None, max_micro_batches: int = 1
) -> Step:
    """A whole corpus as one step, a held-out set for instance: packed, and cut into at least `max_micro_batches`."""
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
    """The shuffle, each block of it in rows; which of these comes when is as random as which example opens them."""
    shuffled, lengths, size = _shuffled(loader), loader.corpus.lengths, len(loader.corpus)
    _, row_length = _rows_by_tokens(loader.config)
    order: list[int] = []
    while len(order) < loader.epochs * size:
        start = len(order)
        block = [int(shuffled[i]) for i in range(start, min(start + BLOCK, start - start % size + size))]
        order += [block[i] for row in full_rows([lengths[i] for i in block], row_length) for i in row]
    return order


def _rows_by_tokens(config: DataConfig) -> tuple[int, int]:
    """How many rows the tokens of a step take, and how many tokens each of them shall hold."""
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
        if (rows > most_rows or tokens < 0) and stop > start:  # what is longer than a whole step is a step by itself
            break
        stop += 1
    return stop


# the examples in the order in which they are seen
ORDERS: dict[str, Callable[[Loader], Sequence[int]]] = {"examples": _shuffled, "tokens": _in_full_rows}
# where a step that starts at a position ends, at most at the end of its epoch
BATCH_BY: dict[str, Callable[[Loader, int, int], int]] = {"examples": _by_examples, "tokens": _by_tokens}
