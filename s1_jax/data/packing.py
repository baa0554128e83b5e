"""Examples of one optimizer step laid into rows of one length, and what each of their tokens weighs in the loss.

A batch is a dict of NumPy arrays [..., T] with, at position t of a row:
    token_ids     int32    the token that is read; 0 in padding
    positions     int32    its place in its own example, from 0
    segment_ids   int32    which example of the row it belongs to, from 1; 0 in padding
    targets       int32    the next token of the same example; 0 where there is none
    weights       float32  what -log p(targets[t]) counts in the loss; 0 where targets[t] is not trained on

The rows of a micro-batch are computed side by side, padding included, each on its own chips: the fullest one sets how
long they are, and the one with the most attention how long the others wait. So rows are evened out by tokens first, and
by attention as far as that leaves room. All of it follows from the lengths alone; ties go by index.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from s1_jax.data.chat import Example
from s1_jax.errors import UserError

Batch = dict[str, np.ndarray]
Rows = list[list[int]]  # of each row the indices of its examples

INTEGERS = ("token_ids", "positions", "segment_ids", "targets")

# An example of so many tokens costs as much in attention as in matmuls: matmul parameters / (layers x hidden size) of
# Qwen2.5-32B, by the counts of training/flops.py. (71,000 for 7B, 23,000 for 0.5B.)
ATTENTION_TOKENS = 98_000

# What bounds the search: a step of s1 takes half a millisecond, a held-out set of 1,000 examples a tenth of a second.
ROUNDS_PER_ROW = 4  # how often two rows are divided anew
PARTNERS = 16  # how many rows are tried with the fullest
PAIR_EXAMPLES = 12  # two rows with more than so many are not divided anew by attention, which is even enough there


class Packing(NamedTuple):
    """Which examples of a step share a row; rows m * B to (m + 1) * B - 1 are micro-batch m."""

    rows: Rows  # micro_batches * B of them, the heaviest first; some may be empty
    row_length: int  # T
    micro_batches: int


def loss_tokens(example: Example) -> int:
    """How many of its tokens are trained on; the first one never is, for nothing precedes it."""
    return int(example.loss_mask[1:].sum())


def _equal_examples(counts: Sequence[int]) -> list[float]:
    return [1 / (len(counts) * max(count, 1)) for count in counts]


def _equal_tokens(counts: Sequence[int]) -> list[float]:
    return [1 / max(sum(counts), 1)] * len(counts)


# loss tokens of each example of a step -> weight of one loss token of each; all weights of a step sum to 1
# "example" is the reference: a mean over each example (per-device batch 1), then a mean over the examples of the step
WEIGHTINGS: dict[str, Callable[[Sequence[int]], list[float]]] = {"example": _equal_examples, "token": _equal_tokens}


def pack(lengths: Sequence[int], row_lengths: Sequence[int], micro_batch_rows: int) -> Packing:
    """Examples of `lengths` tokens in as few micro-batches as they need, and then in the shortest rows.

    `row_lengths` are the T to choose from, ascending. Raises UserError for an example longer than the last of them.
    """
    longest = max(lengths, default=0)
    if longest > row_lengths[-1]:
        raise UserError(f"an example of {longest} tokens does not fit a row of {row_lengths[-1]}")
    micro_batches = max(1, math.ceil(sum(lengths) / (micro_batch_rows * row_lengths[-1])))
    rows = balanced_rows(lengths, micro_batches * micro_batch_rows)
    while _fullest(rows, lengths) > row_lengths[-1]:
        micro_batches += 1
        rows = balanced_rows(lengths, micro_batches * micro_batch_rows)
    row_length = next(length for length in row_lengths if length >= _fullest(rows, lengths))
    rows = level_attention(rows, lengths, row_length)
    # rows of a micro-batch wait for each other, so each has those of like work
    return Packing(sorted(rows, key=lambda row: -row_work(row, lengths)), row_length, micro_batches)


def balanced_rows(lengths: Sequence[int], count: int) -> Rows:
    """All examples in `count` rows, the fullest as short as a bounded search finds.

    On s1's steps that is the shortest possible for 2 rows, for 8 in 99% of the steps, and 0.3% more on average for 4.

    MULTIFIT (Coffman, Garey and Johnson 1978): the least row length at which best-fit, longest first, needs no more
    rows. Rows of examples in the order given are tried beside it, so those of `full_rows` are found again. At last the
    fullest row and an emptier one are divided anew, as evenly as can be, as long as that shortens it.
    """
    longest_first = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    low = max(math.ceil(sum(lengths) / count), *lengths, 0)
    high = 2 * low  # is always enough, for no two rows of best-fit could be one
    rows = best_fit(lengths, longest_first, count, high)
    while low < high:
        middle = (low + high) // 2
        found = best_fit(lengths, longest_first, count, middle) or _next_fit(lengths, count, middle)
        if found:
            rows, high = found, _fullest(found, lengths)
        else:
            low = middle + 1
    assert rows is not None
    return _divide_anew(rows, lengths)


def best_fit(lengths: Sequence[int], order: Sequence[int], count: int, row_length: int) -> Rows | None:
    """Each example of `order` into the fullest row that has room; None where `count` rows are too few."""
    rows: Rows = [[] for _ in range(count)]
    room = [(row_length, row) for row in range(count)]  # the least first
    for index in order:
        place = bisect.bisect_left(room, (lengths[index], 0))
        if place == count:
            return None
        space, row = room.pop(place)
        rows[row].append(index)
        bisect.insort(room, (space - lengths[index], row))
    return rows


def full_rows(lengths: Sequence[int], row_length: int) -> Rows:
    """All examples in rows that are as full as can be; one longer than `row_length` is a row by itself.

    The longest example that is left opens a row, and those that fill its room best complete it. The rows come in the
    order of the examples that opened them.
    """
    left = set(range(len(lengths)))
    rows: Rows = []
    for first in sorted(left, key=lambda i: (-lengths[i], i)):
        if first in left:
            left.remove(first)
            others = _fill(sorted(left), lengths, row_length - lengths[first])
            left.difference_update(others)
            rows.append([first, *others])
    return sorted(rows)


def level_attention(rows: Rows, lengths: Sequence[int], row_length: int) -> Rows:
    """Rows of at most `row_length` tokens with the attention of the heaviest brought down, two at a time."""
    rows = [list(row) for row in rows]
    tokens = np.array(lengths)
    for _ in range(ROUNDS_PER_ROW * len(rows)):
        squares = [float(np.sum(tokens[row] ** 2)) for row in rows]
        by_attention = sorted(range(len(rows)), key=lambda r: -squares[r])
        heaviest = by_attention[0]
        for other in by_attention[:0:-1]:
            both = np.array(rows[heaviest] + rows[other])
            if len(both) > PAIR_EXAMPLES:
                continue
            # every way to divide them, the first example always in the first row
            ways = np.arange(1, 1 << len(both), 2)[:, None] >> np.arange(len(both)) & 1
            halves = np.stack([ways, 1 - ways])
            heavier = (halves @ tokens[both] ** 2).max(axis=0).astype(float)
            heavier[(halves @ tokens[both]).max(axis=0) > row_length] = np.inf
            best = int(np.argmin(heavier))
            if heavier[best] < squares[heaviest]:
                rows[heaviest], rows[other] = (both[half[best] > 0].tolist() for half in halves)
                break
        else:
            break
    return rows


def row_work(row: Sequence[int], lengths: Sequence[int]) -> float:
    """What a row's examples cost, in tokens: `n + n^2 / ATTENTION_TOKENS` for one of n."""
    return sum(lengths[i] * (1 + lengths[i] / ATTENTION_TOKENS) for i in row)


def balance(packing: Packing, lengths: Sequence[int]) -> float:
    """Mean work of a row over that of the heaviest one of its micro-batch, which the others wait for; 1 is even."""
    works = np.array([row_work(row, lengths) for row in packing.rows]).reshape(packing.micro_batches, -1)
    return float(works.mean() / works.max(axis=1).mean())


def fill_rows(
    examples: Sequence[Example], token_weights: Sequence[float], rows: Sequence[Sequence[int]], row_length: int
) -> Batch:
    """Rows [R, T] as `pack` gave them; one without examples is all padding.

    `token_weights[i]` is what each loss token of example i weighs.
    """
    shape = (len(rows), row_length)
    batch: Batch = {name: np.zeros(shape, np.int32) for name in INTEGERS} | {"weights": np.zeros(shape, np.float32)}
    for row, indices in enumerate(rows):
        start = 0
        for segment, index in enumerate(indices, start=1):
            token_ids, loss_mask = examples[index]
            end = start + len(token_ids)
            batch["token_ids"][row, start:end] = token_ids
            batch["positions"][row, start:end] = np.arange(len(token_ids))
            batch["segment_ids"][row, start:end] = segment
            batch["targets"][row, start : end - 1] = token_ids[1:]
            batch["weights"][row, start : end - 1] = loss_mask[1:] * np.float32(token_weights[index])
            start = end
    return batch


def _tokens(row: Sequence[int], lengths: Sequence[int]) -> int:
    return sum(lengths[i] for i in row)


def _fullest(rows: Rows, lengths: Sequence[int]) -> int:
    return max(_tokens(row, lengths) for row in rows)


def _next_fit(lengths: Sequence[int], count: int, row_length: int) -> Rows | None:
    """The examples in the order given, a new row for each that the last row has no room for; None as above."""
    rows: Rows = []
    room = 0
    for index, length in enumerate(lengths):
        if not rows or length > room:
            rows.append([])
            room = row_length
        rows[-1].append(index)
        room -= length
    return None if len(rows) > count else rows + [[] for _ in range(count - len(rows))]


def _divide_anew(rows: Rows, lengths: Sequence[int]) -> Rows:
    """Rows as they are when no division of the fullest and an emptier one shortens the fullest any more."""
    rows = [list(row) for row in rows]
    for _ in range(ROUNDS_PER_ROW * len(rows)):
        loads = [_tokens(row, lengths) for row in rows]
        emptiest_first = sorted(range(len(rows)), key=lambda r: loads[r])
        fullest = emptiest_first.pop()
        for other in emptiest_first[:PARTNERS]:
            both = sorted(rows[fullest] + rows[other])
            half = _fill(both, lengths, (loads[fullest] + loads[other]) // 2)
            if loads[fullest] + loads[other] - _tokens(half, lengths) < loads[fullest]:
                rows[fullest], rows[other] = sorted(set(both) - set(half)), half
                break
        else:
            break
    return rows


def _fill(indices: Sequence[int], lengths: Sequence[int], room: int) -> list[int]:
    """Those of the examples that together come closest to `room` tokens without going over, exactly."""
    # bit s of reachable[k] says whether some of the first k candidates have s tokens in all
    candidates: list[int] = []
    reachable = [1]
    within = (1 << max(room, 0) + 1) - 1
    for index in indices:
        if lengths[index] <= room:
            candidates.append(index)
            reachable.append((reachable[-1] | reachable[-1] << lengths[index]) & within)
            if reachable[-1] >> room:
                break
    left = reachable[-1].bit_length() - 1
    chosen = []
    for k in range(len(candidates), 0, -1):
        if not reachable[k - 1] >> left & 1:
            chosen.append(candidates[k - 1])
            left -= lengths[candidates[k - 1]]
    return chosen[::-1]
