"""What is read off a tokenizer."""

import itertools

import numpy as np
import pytest
from transformers import AutoTokenizer

from s1_jax.config import BudgetConfig, FormatConfig
from s1_jax.decoding.core.budget import NO_LIMIT
from s1_jax.decoding.core.token_ids import (
    IGNORE_STRINGS,
    IGNORE_WIDTH,
    Limits,
    facts_of,
    ignore_ids,
    make_budget,
    make_markers,
    start_ids,
)
from s1_jax.errors import UserError
from tests.tokenizer import byte_tokenizer

BEFORE = ("so", "so.", "so\n", "so ", "\n\n", "x}$", "1")
BEHIND = ("", "\n", "\n\n", " So", "The", ".", "\n\n**")
V = 264  # five rows more than the byte tokenizer knows


def test_markers_of_qwen(shared_data):
    """The ids of the reference (semantics, section 1) and the padded rows of the 0.5B to 3B embeddings."""
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "qwen25_tokenizer")
    markers = make_markers(tokenizer, 151936)
    assert start_ids(tokenizer) == [151644, 26865]
    assert list(markers.suffix_lengths) == [2, 6, 7]
    assert list(markers.suffixes[0, :2]) == [151644, 9217]
    assert list(markers.suffixes[2]) == [198, 151644, 9217, 198, 19357, 21806, 25]
    assert list(markers.end_lengths) == [1, 1, 1, 2]
    assert [list(np.flatnonzero(markers.bits & 1 << i)) for i in range(4)] == [[151644], [151645], [151643], [151644]]
    assert 9217 in np.flatnonzero(markers.bits == 1 << 4), "answer, or a token that goes on from it"
    assert list(np.flatnonzero(markers.is_stop)) == [151643, 151645]
    assert markers.is_known[:151665].all() and not markers.is_known[151665:].any()
    text = tokenizer.convert_ids_to_tokens(list(np.flatnonzero(markers.is_newline)))
    assert len(text) == 2178 and all(token.endswith("Ċ") for token in text)


@pytest.mark.parametrize("marker", ["</think>", "<|im_start|>0", "<|im_start|>answer", "</reasoning>\n"])
def test_a_marker_is_found_as_qwen_writes_it_between_any_texts(shared_data, marker):
    """Which of its tokens merge with the text around it depends on that text."""
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "qwen25_tokenizer")
    bits = np.asarray(make_markers(tokenizer, 151936, FormatConfig(end_markers=(marker,))).bits)
    length = len(tokenizer.encode(marker))
    for before, behind in itertools.product(BEFORE, BEHIND):
        ids = tokenizer.encode(before + marker + behind)
        windows = [ids[start : start + length] for start in range(len(ids) - length + 1)]
        starts = [start for start, window in enumerate(windows) if all(bits[i] & 1 << n for n, i in enumerate(window))]
        assert len(starts) == 1, (before, behind, ids)
        assert tokenizer.decode(ids[: starts[0]]) in (before, before[:-1], before[:-2])


def test_more_end_markers_than_there_are_places_for_are_an_error():
    with pytest.raises(UserError, match="more than 32 tokens together"):
        make_markers(byte_tokenizer(), V, FormatConfig(end_markers=("x" * 30,)))


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


def test_a_control_token_that_the_tokenizer_lacks_ends_nothing():
    """Its text may be written for its own sake."""
    tokenizer = byte_tokenizer(("<|endoftext|>", "<|im_start|>"))
    markers = make_markers(tokenizer, V)
    assert list(markers.end_lengths) == [1, 1, 7]
    assert [tokenizer.decode([i]) for i in np.flatnonzero(markers.is_stop)] == ["<|endoftext|>"]


def test_other_stops_share_the_place_of_an_end_of_one_token():
    tokenizer = byte_tokenizer()
    for format, bit in ((FormatConfig(), 0), (FormatConfig("<t>", "<a>"), 3)):
        markers = make_markers(tokenizer, V, format, [7, 9, 258])
        assert {7, 9} <= set(np.flatnonzero(np.asarray(markers.bits) & 1 << bit))
        assert list(np.flatnonzero(markers.is_stop)) == [7, 9, 258]
    assert list(markers.end_lengths) == [3, 1, 3]


def test_end_markers_can_be_chosen():
    tokenizer = byte_tokenizer()
    format = FormatConfig("<t>", "<a>", "!", ("<|im_start|>", "Stop"))
    markers = make_markers(tokenizer, V, format)
    assert list(markers.end_lengths) == [1, 4, 3] and tokenizer.decode(start_ids(tokenizer, format)) == "<t>"
    assert tokenizer.decode([int(np.flatnonzero(markers.bits & 1 << i)[0]) for i in range(1, 5)]) == "Stop"
    assert tokenizer.decode(list(map(int, markers.suffixes[1, :4]))) == "<a>!"


def test_room_is_kept_for_a_marker_that_may_turn_out_to_be_none():
    tokenizer = byte_tokenizer()
    short, long = (make_markers(tokenizer, V, FormatConfig(end_markers=(end,))) for end in ("S", "Stop"))
    limits = [
        make_budget(tokenizer, [Limits(BudgetConfig(), 10, 4)], 100, facts_of(m)).context_limit[0]
        for m in (short, long)
    ]
    assert limits[0] - limits[1] == 3


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
    rows = [Limits(BudgetConfig(), 10, 4), Limits(turns, 20, 0), Limits(turns, 20, 60, reserved=3)]
    budget = make_budget(tokenizer, rows, 100, facts_of(make_markers(tokenizer, V)))
    suffix = len("\n_answer\nFinal Answer:")
    assert list(budget.context_limit) == [100 - 10 - suffix - 4, 100 - 20 - suffix, 100 - 20 - suffix - 3]
    assert list(budget.max_answer_tokens) == [4, 0, 60]
    assert list(budget.max_new_tokens) == [100 - 10, 100 - 20, 100 - 20]
    assert list(budget.max_thinking_tokens) == [NO_LIMIT, 7, 7]
    assert list(budget.ignore_lengths[1]) == [1, 2, 0, 0, 0, 0, 0, 0] and list(budget.ignore_count) == [1, 2, 2]
