"""Examples of one optimizer step laid into rows of one length, and what each of their tokens weighs in the loss.

A batch is a dict of NumPy arrays [..., T] with, at position t of a row:
    token_ids     int32    the token that is read; 0 in padding
    positions     int32    its place in its own example, from 0
    segment_ids   int32    which example of the row it belongs to, from 1; 0 in padding
    targets       int32    the next token of the same example; 0 where there is none
    weights       float32  what -log p(targets[t]) counts in the loss; 0 where targets[t] is not trained on
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from s1_jax.config import UserError
from s1_jax.data.chat import Example

Batch = dict[str, np.ndarray]

INTEGERS = ("token_ids", "positions", "segment_ids", "targets")


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


def assign_rows(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Which examples share a row: best-fit decreasing, so the longest first, each into the fullest row that has room.

    Ties go by index, so the result follows from the lengths alone. Raises UserError for a length above `row_length`.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[index]
        if length > row_length:
            raise UserError(f"an example of {length} tokens does not fit a row of data.max_length {row_length}")
        fitting = [row for row in range(len(rows)) if room[row] >= length]
        if fitting:
            row = min(fitting, key=lambda r: room[r])
        else:
            row = len(rows)
            rows.append([])
            room.append(row_length)
        rows[row].append(index)
        room[row] -= length
    return rows


def fill_rows(
    examples: Sequence[Example], token_weights: Sequence[float], rows: Sequence[Sequence[int]], row_length: int
) -> Batch:
    """Rows [R, T] as `assign_rows` gave them; one without examples is all padding.

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


def pack(examples: Sequence[Example], row_length: int, weighting: str = "example") -> Batch:
    """All examples of one step as rows [R, T]; the step's loss is the sum of weights * nll over all of them."""
    token_weights = WEIGHTINGS[weighting]([loss_tokens(example) for example in examples])
    return fill_rows(examples, token_weights, assign_rows([len(e.token_ids) for e in examples], row_length), row_length)
