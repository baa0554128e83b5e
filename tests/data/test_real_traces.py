"""Real reasoning traces, with Qwen2.5's real tokenizer, all the way to packed steps of length 8192."""

import json

import numpy as np
import pytest

from s1_jax.config import DataConfig
from s1_jax.data import chat
from s1_jax.data.loader import Loader
from s1_jax.data.tokens import load_corpus
from s1_jax.errors import UserError

LENGTH = 8192


def test_real_traces_come_out_of_the_packed_rows_as_they_went_in(shared_data, qwen_tokenizer):
    folder = shared_data / "long_cot_traces"
    config = DataConfig(path=str(folder), max_length=LENGTH, batch_examples=16, micro_batch_rows=2)
    corpus, counts = load_corpus(config, qwen_tokenizer)
    assert (counts.examples, counts.dropped, counts.truncated) == (544, 0, 0)
    assert 1000 < counts.tokens_mean < counts.tokens_max < LENGTH

    expected = {}
    for file in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(file.open(encoding="utf-8"), start=1):
            row = json.loads(line)
            expected[f"{file.name}:{number}"] = (row["question"], chat.response_text(row["thinking"], row["attempt"]))

    loader = Loader(corpus, config, seed=0, epochs=1)
    seen = []
    for step in loader.batches():
        assert step.batch["token_ids"].shape == (loader.max_micro_batches, 2, LENGTH)
        seen += step.example_ids
    assert sorted(seen) == sorted(corpus.ids)

    step = loader.step(range(16))
    trained, read = [], []
    for row in np.ndindex(step.batch["token_ids"].shape[:2]):
        segments = step.batch["segment_ids"][row]
        for segment in range(1, segments.max() + 1):
            own = segments == segment
            weighed = own & (step.batch["weights"][row] > 0)
            trained.append(qwen_tokenizer.decode(step.batch["targets"][row][weighed]))
            read.append(qwen_tokenizer.decode(step.batch["token_ids"][row][own]))
    by_response = {response: question for question, response in (expected[i] for i in step.example_ids)}
    assert sorted(trained) == sorted(by_response)
    for response, text in zip(trained, read, strict=True):
        assert text == chat.prompt_text(qwen_tokenizer, by_response[response]) + response


def test_a_real_trace_that_is_too_long_is_named(shared_data, qwen_tokenizer):
    path = shared_data / "long_cot_traces" / "s1_clone_r1distill32b.jsonl"
    with pytest.raises(UserError, match=r"s1_clone_r1distill32b\.jsonl, line \d .* more than data.max_length 1024"):
        load_corpus(DataConfig(path=str(path), max_length=1024), qwen_tokenizer)
