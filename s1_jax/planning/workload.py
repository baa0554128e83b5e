"""Work of a run: its steps, as packed by the loader, from examples of known lengths."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from s1_jax.config import ModelConfig, TrainConfig
from s1_jax.data.chat import Example
from s1_jax.data.loader import Loader
from s1_jax.data.tokens import TOO_LONG, Corpus, split_held_out
from s1_jax.errors import UserError
from s1_jax.model.splash import visited_flops
from s1_jax.runtime.json_input import read_json
from s1_jax.runtime.storage import as_path
from s1_jax.training.flops import step_flops

FULL_ROWS = 16  # examples per step of s1


class StepWork(NamedTuple):
    """Work of one optimizer step on all devices."""

    shape: tuple[int, int, int]  # M, B, T of its arrays
    micro_batches: int  # how many of the M micro-batches it runs
    model_flops: float  # forward and backward, causal attention once, no recompute
    attention_flops: tuple[float, float]  # of one layer's kernels, forward and backward, for the blocks they visit
    attention_waited: tuple[float, float]  # the same if all devices had the work of the busiest, for which they wait


def steps(
    config: TrainConfig, model: ModelConfig, corpus: Corpus, row_parts: int, length_parts: int
) -> Iterator[StepWork]:
    """Yield the steps of training on `corpus`, with rows divided over `row_parts` and tokens over `length_parts`.

    Raises UserError as the loader does, and for rows that cannot be divided.
    """
    B = config.data.micro_batch_rows
    if B % row_parts:
        raise UserError(f"data.micro_batch_rows {B} must be a multiple of {row_parts}, the mesh's data x fsdp")
    training, _ = split_held_out(corpus, config.data.held_out_share, config.train.seed)
    loader = Loader(training, config.data, config.train.seed, config.train.epochs)
    for positions in loader.plan():
        step = loader.step(positions)
        segments = step.batch["segment_ids"]
        M, _, T = segments.shape
        visited = np.array(visited_flops(model, segments[: step.micro_batches].reshape(-1, T), length_parts))
        on_device = visited.reshape(2, step.micro_batches, row_parts, -1, length_parts).sum(axis=3)
        forward, backward = on_device.sum(axis=(1, 2, 3))
        busiest = on_device.max(axis=(2, 3)).sum(axis=1) * row_parts * length_parts
        yield StepWork(
            shape=(M, B, T),
            micro_batches=step.micro_batches,
            model_flops=step_flops(model, step.batch["positions"], segments),
            attention_flops=(float(forward), float(backward)),
            attention_waited=(float(busiest[0]), float(busiest[1])),
        )


def corpus_of_lengths(lengths: list[int], config: TrainConfig) -> Corpus:
    """Build placeholder examples with these numbers of tokens; `data.too_long` decides about those that are too long.

    Raises UserError for too long examples with "error", and if none is left.
    """
    too_long = [length for length in lengths if length > config.data.max_length]
    if too_long and config.data.too_long == "error":
        raise UserError(
            f"{len(too_long)} of {len(lengths)} examples are longer than data.max_length {config.data.max_length} "
            f"(the longest has {max(too_long)} tokens); raise it, or set data.too_long to drop or truncate"
        )
    examples = []
    for index, length in enumerate(lengths):
        example: Example | None = Example(np.full(length, index, np.int32), np.arange(length) > 0)
        if length > config.data.max_length and example is not None:
            example = TOO_LONG[config.data.too_long](example, config.data.max_length)
        if example is not None:
            examples.append(example)
    if not examples:
        raise UserError(f"no example is left to plan with; none has at most data.max_length {config.data.max_length}")
    return Corpus(tuple(str(index) for index in range(len(examples))), tuple(examples))


def full_rows(config: TrainConfig) -> Corpus:
    """Return the largest step of s1: 16 examples, each of data.max_length tokens."""
    return corpus_of_lengths([config.data.max_length] * FULL_ROWS, config)


def read_lengths(path: str | Path) -> list[int]:
    """Read token lengths of examples from a JSON file: a list of numbers, or of objects whose numbers are summed.

    The list may be the value of "examples". Raises UserError for anything else.
    """
    content = read_json(as_path(path))
    rows: Any = content.get("examples") if isinstance(content, dict) else content
    try:
        lengths = [sum(row.values()) if isinstance(row, dict) else row for row in rows]
        whole = all(isinstance(length, int) and length > 0 for length in lengths)
    except TypeError:
        whole = False
    if not whole or not lengths:
        raise UserError(
            f"{path} contains no lengths: it must be a JSON list of token counts, one per example "
            '(or {"examples": [{"question": 152, "thinking": 6865, ...}, ...]}, which are summed)'
        )
    return lengths
