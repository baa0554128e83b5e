"""Packing of the examples of one optimizer step into rows of one length, and the weight of each token in the loss.

A batch is a dict of NumPy arrays [..., T] with, at index t of a row:
    token_ids     int32    the input token; 0 in padding
    positions     int32    its position in its own example, from 0
    segment_ids   int32    number of its example in the row, from 1; 0 in padding
    targets       int32    the next token of the same example; 0 if there is none
    weights       float32  weight of -log p(targets[t]) in the loss; 0 if targets[t] is not trained on

The rows of a micro-batch are computed in parallel, with their padding, each on its own chips. The fullest row sets
their length, and the row with the most attention sets how long the others wait. Rows are therefore balanced by tokens
first, and by attention as far as that leaves room. The packing depends on the lengths only; ties are broken by index.
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
Rows = list[list[int]]  # the indices of the examples of each row

INTEGERS = ("token_ids", "positions", "segment_ids", "targets")

# An example of this many tokens costs as much in attention as in matmuls: matmul parameters / (layers x hidden size) of
# Qwen2.5-32B, by the counts of training/flops.py. (71,000 for 7B, 23,000 for 0.5B.)
ATTENTION_TOKENS = 98_000

# Bounds of the search: a step of s1 takes half a millisecond, a held-out set of 1,000 examples a tenth of a second.
ROUNDS_PER_ROW = 4  # how often two rows are divided again
PARTNERS = 16  # rows that are tried with the fullest one
PAIR_EXAMPLES = 12  # two rows with more examples are not divided again by attention, which is even enough then


class Packing(NamedTuple):
    """Assignment of a step's examples to rows; rows m * B to (m + 1) * B - 1 are micro-batch m."""

    rows: Rows  # micro_batches * B of them, those with the most work first; some may be empty
    row_length: int  # T
    micro_batches: int


def loss_tokens(example: Example) -> int:
    """Return how many tokens of an example are trained on; the first one never is, since nothing precedes it."""
    return int(example.loss_mask[1:].sum())


def _equal_examples(counts: Sequence[int]) -> list[float]:
    return [1 / (len(counts) * max(count, 1)) for count in counts]


def _equal_tokens(counts: Sequence[int]) -> list[float]:
    return [1 / max(sum(counts), 1)] * len(counts)


# from the number of loss tokens of each example to the weight of each of its loss tokens; a step's weights sum to 1
# "example" is what s1's code does: a mean over each example (per-device batch 1), then over the examples of the step
WEIGHTINGS: dict[str, Callable[[Sequence[int]], list[float]]] = {"example": _equal_examples, "token": _equal_tokens}


def pack(lengths: Sequence[int], row_lengths: Sequence[int], micro_batch_rows: int) -> Packing:
    """Pack examples of these lengths into as few micro-batches as possible, and then into the shortest rows.

    `row_lengths` are the values of T to choose from, ascending. Raises UserError if an example is longer than the last.
    """
    longest = max(lengths, default=0)
    if longest > row_lengths[-1]:
        raise UserError(
            f"an example of {longest} tokens does not fit into a row of {row_lengths[-1]}; "
            "lower data.max_length or raise data.row_lengths"
        )
    micro_batches = max(1, math.ceil(sum(lengths) / (micro_batch_rows * row_lengths[-1])))
    rows = balanced_rows(lengths, micro_batches * micro_batch_rows)
    while _fullest(rows, lengths) > row_lengths[-1]:
        micro_batches += 1
        rows = balanced_rows(lengths, micro_batches * micro_batch_rows)
    row_length = next(length for length in row_lengths if length >= _fullest(rows, lengths))
    rows = level_attention(rows, lengths, row_length)
    # the rows of a micro-batch wait for each other, so rows with similar work are put together
    return Packing(sorted(rows, key=lambda row: -row_work(row, lengths)), row_length, micro_batches)


def balanced_rows(lengths: Sequence[int], count: int) -> Rows:
    """Pack all examples into `count` rows, with the fullest row as short as a bounded search finds.

    On s1's steps, the result is optimal for 2 rows, optimal in 99% of the steps for 8 rows, and 0.3% above the optimum
    on average for 4 rows.

    The search is MULTIFIT (Coffman, Garey and Johnson 1978): the smallest row length at which best-fit, longest first,
    needs no more rows. Packing in the given order is tried too, so that rows of `full_rows` are found again. Finally,
    the fullest row and an emptier one are divided again as evenly as possible, as long as that shortens the fullest.
    """
    longest_first = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    low = max(math.ceil(sum(lengths) / count), *lengths, 0)
    high = 2 * low  # always enough, since no two rows of best-fit could be merged
    rows = best_fit(lengths, longest_first, count, high)
    while low < high:
        middle = (low + high) // 2
        found = best_fit(lengths, longest_first, count, middle) or _next_fit(lengths, count, middle)
        if found:
            rows, high = found, _fullest(found, lengths)
        else:
            low = middle + 1
    assert rows is not None
    return _divide_again(rows, lengths)


def best_fit(lengths: Sequence[int], order: Sequence[int], count: int, row_length: int) -> Rows | None:
    """Put each example of `order` into the fullest row that has room; None if `count` rows are too few."""
    rows: Rows = [[] for _ in range(count)]
    room = [(row_length, row) for row in range(count)]  # sorted, least room first
    for index in order:
        fullest = bisect.bisect_left(room, (lengths[index], 0))
        if fullest == count:
            return None
        space, row = room.pop(fullest)
        rows[row].append(index)
        bisect.insort(room, (space - lengths[index], row))
    return rows


def full_rows(lengths: Sequence[int], row_length: int) -> Rows:
    """Pack all examples into rows that are as full as possible; one longer than `row_length` is a row by itself.

    The longest remaining example opens a row, and the examples that fill it best complete it. Rows are in the order of
    the examples that opened them.
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
    """Exchange examples between pairs of rows, within `row_length` tokens, to reduce the work of the heaviest row."""
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
            # all ways to divide them, with the first example in the first row
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
    """Return the cost of a row in tokens: the sum of `n + n^2 / ATTENTION_TOKENS` over examples of n tokens."""
    return sum(lengths[i] * (1 + lengths[i] / ATTENTION_TOKENS) for i in row)


def balance(packing: Packing, lengths: Sequence[int]) -> float:
    """Return the mean work of a row over that of the heaviest row of its micro-batch; 1 is perfectly even."""
    works = np.array([row_work(row, lengths) for row in packing.rows]).reshape(packing.micro_batches, -1)
    return float(works.mean() / works.max(axis=1).mean())


def fill_rows(
    examples: Sequence[Example], token_weights: Sequence[float], rows: Sequence[Sequence[int]], row_length: int
) -> Batch:
    """Build the arrays [R, T] of rows from `pack`; a row without examples is all padding.

    `token_weights[i]` is the weight of each loss token of example i.
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
    """Pack examples in the given order, with a new row when one does not fit; None if `count` rows are too few."""
    rows: Rows = []
    room = 0
    for index, length in enumerate(lengths):
        if not rows or length > room:
            rows.append([])
            room = row_length
        rows[-1].append(index)
        room -= length
    return None if len(rows) > count else rows + [[] for _ in range(count - len(rows))]


def _divide_again(rows: Rows, lengths: Sequence[int]) -> Rows:
    """Divide the fullest row and an emptier one again until that no longer shortens the fullest."""
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
    """Choose the examples whose total comes closest to `room` tokens without exceeding it (exact subset sum)."""
    # bit s of reachable[k] says whether a subset of the first k candidates has s tokens in total
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
