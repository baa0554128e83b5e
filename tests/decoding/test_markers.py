"""What is read off a tokenizer."""

import numpy as np
import pytest
from transformers import AutoTokenizer

from s1_jax.config import BudgetConfig, FormatConfig, UserError
from s1_jax.decoding.budget import NO_LIMIT
from s1_jax.decoding.markers import (
    IGNORE_STRINGS,
    IGNORE_WIDTH,
    ignore_ids,
    make_budget,
    make_markers,
    start_ids,
)
from tests.tokenizer import byte_tokenizer

V = 264  # five rows more than the byte tokenizer knows


def test_markers_of_qwen(shared_data):
    """The ids of the reference (semantics, section 1) and the padded rows of the 0.5B to 3B embeddings."""
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "qwen25_tokenizer")
    markers = make_markers(tokenizer, 151936)
    assert start_ids(tokenizer) == [151644, 26865]
    assert list(markers.suffix_lengths) == [2, 6, 7]
    assert list(markers.suffixes[0, :2]) == [151644, 9217]
    assert list(markers.suffixes[2]) == [198, 151644, 9217, 198, 19357, 21806, 25]
    assert list(np.flatnonzero(markers.is_end)) == [151643, 151644, 151645]
    assert list(np.flatnonzero(markers.is_stop)) == [151643, 151645]
    assert markers.is_known[:151665].all() and not markers.is_known[151665:].any()
    text = tokenizer.convert_ids_to_tokens(list(np.flatnonzero(markers.is_newline)))
    assert len(text) == 2178 and all(token.endswith("Ċ") for token in text)


def test_markers_of_a_tokenizer_that_splits_words():
    tokenizer = byte_tokenizer()
    markers = make_markers(tokenizer, V)
    assert tokenizer.decode(start_ids(tokenizer)) == "<|im_start|>think"
    suffixes = [markers.suffixes[i, : markers.suffix_lengths[i]] for i in range(3)]
    assert [tokenizer.decode(ids) for ids in suffixes] == [
        "<|im_start|>answer",
        "<|im_start|>answer\nFinal Answer:",
        "\n<|im_start|>answer\nFinal Answer:",
    ]
    assert markers.is_known.sum() == 259 and markers.is_newline.sum() == 1


def test_an_end_marker_that_is_not_one_token_is_an_error():
    with pytest.raises(UserError, match=r"'<\|im_end\|>' must be one token"):
        make_markers(byte_tokenizer(("<|endoftext|>", "<|im_start|>")), V)
    with pytest.raises(UserError, match="'Stop' must be one token"):
        make_markers(byte_tokenizer(), V, FormatConfig(end_markers=("<|im_end|>", "Stop")))


def test_end_markers_can_be_chosen():
    markers = make_markers(byte_tokenizer(), V, FormatConfig(end_markers=("<|im_start|>", "Z")))
    assert markers.is_end.sum() == 2 and markers.is_stop.sum() == 2


def test_a_marker_outside_the_vocabulary_is_an_error():
    with pytest.raises(UserError, match="does not belong to this model"):
        make_markers(byte_tokenizer(), 257)


def test_ignore_strings():
    tokenizer = byte_tokenizer()
    assert ignore_ids(tokenizer, BudgetConfig(ignore_string="")) == [[]]
    rotation = ignore_ids(tokenizer, BudgetConfig(ignore_string=("Wait", "", "Hmm")))
    assert [tokenizer.decode(ids) for ids in rotation] == ["Wait", "", "Hmm"]
    with pytest.raises(UserError, match="the longest allowed is 16"):
        ignore_ids(tokenizer, BudgetConfig(ignore_string="x" * (IGNORE_WIDTH + 1)))
    for strings in ((), ("a",) * (IGNORE_STRINGS + 1)):
        with pytest.raises(UserError, match="can take turns"):
            ignore_ids(tokenizer, BudgetConfig(ignore_string=strings))


def test_the_context_limit_is_for_the_longest_suffix():
    tokenizer = byte_tokenizer()
    turns = BudgetConfig(max_thinking_tokens=7, num_ignore=2, ignore_string=("a", "bc"))
    rows = [(BudgetConfig(), 10, 4), (turns, 20, 0)]
    budget = make_budget(tokenizer, rows, 100, make_markers(tokenizer, V))
    suffix = len("\n_answer\nFinal Answer:")
    assert list(budget.context_limit) == [100 - 10 - suffix - 4, 100 - 20 - suffix]
    assert list(budget.max_new_tokens) == [100 - 10, 100 - 20]
    assert list(budget.max_thinking_tokens) == [NO_LIMIT, 7]
    assert list(budget.ignore_lengths[1]) == [1, 2, 0, 0, 0, 0, 0, 0] and list(budget.ignore_count) == [1, 2]
