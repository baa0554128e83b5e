"""Measurement of traces by their number of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.progress import Progress

from s1_jax.checkpoints.hf import load_tokenizer
from s1_jax.config.curate import CurateConfig
from s1_jax.curation.stages import Made, Source
from s1_jax.errors import UserError
from s1_jax.runtime.terminal import say

TEXTS_OF_BATCH = 64  # the tokenizer also keeps every token of a batch as a string, about 50 MB


def measure(config: CurateConfig, source: Source | None, folder: Path, bar: Progress) -> Made:
    """Add `thinking_tokens` (int32): the tokens of `thinking` by the config's tokenizer, or 0 without a trace.

    Raises UserError if the tokenizer does not exist or has no tokenizer.json.
    """
    assert source is not None
    tokenizer = load_tokenizer(config.tokenizer)
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        raise UserError(
            f"the tokenizer of {config.tokenizer} has no tokenizer.json, without which this would take days; "
            "set --tokenizer to one that has it"
        )
    lengths = np.zeros(source.num_rows, np.int32)
    task, first = bar.add_task("measure", total=source.num_rows, note=""), 0
    for texts in _texts(source):
        encodings = fast.encode_batch_fast(texts, add_special_tokens=False)
        lengths[first : first + len(texts)] = [len(encoding) for encoding in encodings]
        first += len(texts)
        bar.advance(task, len(texts))
    say(f"measure: {lengths.sum():,} tokens in {np.count_nonzero(lengths):,} traces")
    return Made({"thinking_tokens": pa.array(lengths)})


def measure_inputs(config: CurateConfig) -> list[Path]:
    """List the files that the table depends on: those of a tokenizer in a local folder."""
    return sorted(Path(config.tokenizer).glob("tokenizer*.json"))


def _texts(source: Source) -> Iterator[Sequence[str]]:
    """Yield the traces in batches; a missing trace is an empty text."""
    for rows in source.batches(["thinking"]):
        for start in range(0, len(rows), TEXTS_OF_BATCH):
            yield rows["thinking"].slice(start, TEXTS_OF_BATCH).fill_null("").to_pylist()
