"""The steps of a run from token counts alone."""

from __future__ import annotations

import json

import pytest

from s1_jax.config import DataConfig, ModelConfig, TrainConfig, TrainLoopConfig
from s1_jax.errors import UserError
from s1_jax.planning.workload import corpus_of_lengths, full_rows, read_lengths, steps
from s1_jax.training.flops import matmul_parameters

MODEL = ModelConfig(512, 256, 512, 2, 2, 1)


def config(**data) -> TrainConfig:
    options = {"max_length": 1024, "batch_examples": 4, "micro_batch_rows": 2} | data
    return TrainConfig(data=DataConfig(**options), train=TrainLoopConfig(epochs=2))


def test_lengths_are_read_as_a_list_or_as_the_parts_of_examples(tmp_path):
    path = tmp_path / "lengths.json"
    path.write_text("[5, 7]")
    assert read_lengths(path) == [5, 7]
    path.write_text(
        json.dumps({"note": "", "examples": [{"question": 1, "thinking": 2, "answer": 4}, {"question": 3}]})
    )
    assert read_lengths(path) == [7, 3]


@pytest.mark.parametrize("text", ["{}", "[]", "[1.5]", '["a"]', "[0]", '[{"a": "b"}]', "nothing", '{"examples": 3}'])
def test_what_holds_no_lengths_is_refused(tmp_path, text):
    path = tmp_path / "lengths.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"lengths\.json"):
        read_lengths(path)


def test_steps_are_the_loaders():
    lengths = [1024, 700, 300, 100, 1000, 24]
    found = list(steps(config(), MODEL, corpus_of_lengths(lengths, config()), 1, 1))
    assert len(found) == 4  # 4 + 2 examples, twice
    assert all(step.shape[1:] == (2, 1024) and step.micro_batches <= step.shape[0] for step in found)
    once = 6 * matmul_parameters(MODEL) * sum(lengths) + 6 * 2 * 256 * sum(n * n for n in lengths)
    assert sum(step.model_flops for step in found) == pytest.approx(2 * once)
    # the kernel visits whole blocks, so at least the half squares that the model needs, and not all the row
    assert all(4 * 256 * 512 * 512 <= step.attention_flops[0] < 4 * 256 * 4 * 1024 * 1024 for step in found)


def test_several_row_lengths_give_several_shapes():
    several = config(row_lengths=(512, 1024))
    shapes = {step.shape[2] for step in steps(several, MODEL, corpus_of_lengths([500] * 4 + [1000] * 4, several), 1, 1)}
    assert shapes == {512, 1024} or shapes == {1024}


def test_full_rows_hold_one_whole_document_each():
    full = config(batch_examples=16, micro_batch_rows=8)
    (step, *_) = steps(full, MODEL, full_rows(full), 1, 1)
    assert step.shape == (2, 8, 1024) and step.micro_batches == 2
    assert step.model_flops == pytest.approx(16 * (6 * matmul_parameters(MODEL) * 1024 + 6 * 2 * 256 * 1024**2))


def test_too_long_examples_are_treated_as_the_config_says():
    lengths = [2000, 10]
    with pytest.raises(UserError, match=r"1 of 2 examples are longer than data\.max_length 1024 .*2000"):
        corpus_of_lengths(lengths, config())
    assert corpus_of_lengths(lengths, config(too_long="drop")).lengths == [10]
    assert corpus_of_lengths(lengths, config(too_long="truncate")).lengths == [1024, 10]


def test_a_share_is_held_out_as_in_training():
    some = config(held_out_share=0.5)
    held = list(steps(some, MODEL, corpus_of_lengths([100] * 8, some), 1, 1))
    assert len(held) == 2


def test_devices_wait_for_the_one_with_the_most_attention():
    one = config(batch_examples=2)
    (even, *_) = steps(one, MODEL, corpus_of_lengths([1024, 1024], one), 2, 1)
    assert even.attention_waited == even.attention_flops
    (uneven, *_) = steps(one, MODEL, corpus_of_lengths([1024, 300], one), 2, 1)
    assert uneven.attention_waited == even.attention_flops > uneven.attention_flops
    (zigzag, *_) = steps(one, MODEL, corpus_of_lengths([1024, 1024], one), 1, 2)
    assert zigzag.attention_waited == zigzag.attention_flops
    with pytest.raises(UserError, match="micro_batch_rows 2 must be a multiple of 4"):
        list(steps(one, MODEL, corpus_of_lengths([300], one), 4, 1))
