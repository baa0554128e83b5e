"""Which examples make up which optimizer step, on grain; and the arrays of each step.

The order is a shuffle of its own in every epoch, a function of seed and epoch alone. A position in it is a count of
examples since the start of training: all that a checkpoint has to keep, and good for any number of processes and
another batch size. A step is a stack of micro-batches [M, B, T] of which it uses as many as its examples fill; M, B and
T never change, so one shape is compiled.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import grain

from s1_jax.config import DataConfig, UserError
from s1_jax.data.packing import WEIGHTINGS, Batch, assign_rows, fill_rows, loss_tokens
from s1_jax.data.tokens import Corpus

SEEDS = 2**32  # what grain takes


class Step(NamedTuple):
    """One optimizer step: arrays of this process, figures of the whole step."""

    batch: Batch  # each [M, B / processes, T], see packing.py; the loss is the sum over all of weights * nll
    micro_batches: int  # how many of the M hold examples; the others are all padding and need not be computed
    example_ids: tuple[str, ...]  # in the order of the shuffle
    examples_seen: int  # since the start of training, this step included: the position to resume from
    real_tokens: int  # without padding
    row_tokens: int  # with it: micro_batches * B * T

    @property
    def real_share(self) -> float:
        """Share of the tokens computed that are no padding."""
        return self.real_tokens / self.row_tokens


@dataclasses.dataclass(frozen=True)
class Loader:
    """Steps over `epochs` epochs of a corpus, for one process of `process_count`.

    Every process packs the same global step and takes its own slice of the rows of each micro-batch, so what a step
    holds does not depend on how many they are. Raises UserError for settings that fit nothing.
    """

    corpus: Corpus
    config: DataConfig
    seed: int
    epochs: int
    process_index: int = 0
    process_count: int = 1

    def __post_init__(self) -> None:
        if self.config.batch_by == "tokens" and not self.config.batch_tokens:
            raise UserError("data.batch_by tokens needs data.batch_tokens, the tokens of an optimizer step")
        for name in ("batch_examples", "micro_batch_rows", "max_length"):
            if getattr(self.config, name) < 1:
                raise UserError(f"data.{name} is {getattr(self.config, name)}; it must be at least 1")
        if self.config.micro_batch_rows % self.process_count:
            raise UserError(
                f"data.micro_batch_rows {self.config.micro_batch_rows} is not a multiple of the "
                f"{self.process_count} processes"
            )
        if not 0 <= self.seed < SEEDS:
            raise UserError(f"the seed {self.seed} is not between 0 and {SEEDS - 1}")

    @functools.cached_property
    def order(self) -> grain.MapDataset:
        """Position since the start of training -> index into the corpus."""
        return grain.MapDataset.range(len(self.corpus)).shuffle(seed=self.seed).repeat()

    @property
    def total_steps(self) -> int:
        """Steps of the whole training when nothing interrupts it or changes the batch size."""
        return len(self.plan())

    @functools.cached_property
    def max_micro_batches(self) -> int:
        """M: what no step can exceed."""
        examples, tokens = LARGEST_STEP[self.config.batch_by](self)
        # best-fit leaves no two rows that could be one, so any two hold more than T tokens
        rows = min(examples, 2 * tokens // self.config.max_length + 1)
        return math.ceil(rows / self.config.micro_batch_rows)

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
        step = assemble(chosen, self.config, self.process_index, self.process_count, self.max_micro_batches)
        return step._replace(examples_seen=positions.stop)


def assemble(
    corpus: Corpus, config: DataConfig, process_index: int = 0, process_count: int = 1, max_micro_batches: int = 1
) -> Step:
    """A whole corpus as one step, a held-out set for instance: packed, and cut into at least `max_micro_batches`."""
    rows = assign_rows(corpus.lengths, config.max_length)
    micro_batches = math.ceil(len(rows) / config.micro_batch_rows)
    rows += [[]] * (max(micro_batches, max_micro_batches) * config.micro_batch_rows - len(rows))
    token_weights = WEIGHTINGS[config.loss_weighting]([loss_tokens(example) for example in corpus.examples])
    own = config.micro_batch_rows // process_count
    first = process_index * own
    own_rows = [row for i, row in enumerate(rows) if first <= i % config.micro_batch_rows < first + own]
    filled = fill_rows(corpus.examples, token_weights, own_rows, config.max_length)
    batch = {name: array.reshape(-1, own, config.max_length) for name, array in filled.items()}
    row_tokens = micro_batches * config.micro_batch_rows * config.max_length
    return Step(batch, micro_batches, corpus.ids, len(corpus), sum(corpus.lengths), row_tokens)


def _by_examples(loader: Loader, start: int, epoch_end: int) -> int:
    return min(start + loader.config.batch_examples, epoch_end)


def _by_tokens(loader: Loader, start: int, epoch_end: int) -> int:
    room, stop = loader.config.batch_tokens or 0, start
    while stop < epoch_end:
        room -= len(loader.corpus.examples[loader.order[stop]].token_ids)
        if room < 0 and stop > start:  # an example longer than a whole step is a step by itself
            break
        stop += 1
    return stop


def _largest_by_examples(loader: Loader) -> tuple[int, int]:
    return loader.config.batch_examples, sum(sorted(loader.corpus.lengths)[-loader.config.batch_examples :])


def _largest_by_tokens(loader: Loader) -> tuple[int, int]:
    return len(loader.corpus), max([loader.config.batch_tokens or 0, *loader.corpus.lengths])


# where a step that starts at a position ends, at most at the end of its epoch
BATCH_BY: dict[str, Callable[[Loader, int, int], int]] = {"examples": _by_examples, "tokens": _by_tokens}
# how many examples and how many tokens a step may hold
LARGEST_STEP: dict[str, Callable[[Loader], tuple[int, int]]] = {
    "examples": _largest_by_examples,
    "tokens": _largest_by_tokens,
}
