"""Separators of steps over tokenizers that split text in their own ways."""

import copy
from functools import cache

import numpy as np
import pytest
from tokenizers import AddedToken, decoders, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from s1_jax.config import StepConfig
from s1_jax.decoding.device.steps import make_ends
from s1_jax.errors import UserError
from tests.decoding.newline_tokenizer import FREQUENT, TOKENIZER
from tests.tokenizer import byte_tokenizer

V = 272  # a few ids more than the tokenizer knows


def with_parts(pre_tokenizer, decoder=None):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer().backend_tokenizer)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.backend_tokenizer.decoder = decoder or decoders.ByteLevel()
    return tokenizer


@pytest.mark.parametrize("separator", ["\n\n", " step", "é\n"])
@pytest.mark.parametrize(
    "pre_tokenizer",
    [None, pre_tokenizers.ByteLevel(add_prefix_space=True), pre_tokenizers.Whitespace(), pre_tokenizers.Metaspace()],
    ids=str,
)
def test_a_separator_is_its_bytes_however_text_is_split(pre_tokenizer, separator):
    ours, plain = (make_ends(t, 259, StepConfig(separator)) for t in (with_parts(pre_tokenizer), byte_tokenizer()))
    np.testing.assert_array_equal(ours.follows, plain.follows)
    assert int(ours.separator) == len(separator.encode())


def test_a_vocabulary_that_writes_no_bytes_is_refused():
    tokenizer = with_parts(None, decoders.Metaspace())
    with pytest.raises(UserError, match="not byte-level"):
        make_ends(tokenizer, 259, StepConfig("\n\n"))
    make_ends(tokenizer, 259, StepConfig(None, max_step_tokens=8))


def test_separator_table_follows_the_text():
    """For any tokens: whole where the text has the separator, else as much of it as the text ends in."""
    rng = np.random.default_rng(0)
    for separator in ("\n\n", "\n", "a\na", ".\n\na", "abab", "é\n"):
        ends = make_ends(TOKENIZER, V, StepConfig(separator))
        letters = separator.encode()
        likely = [*FREQUENT, *TOKENIZER.encode("é"), TOKENIZER.convert_tokens_to_ids("<|im_end|>")]
        found = 0
        for _ in range(200):
            tokens = [int(i) for i in rng.choice(likely, 8)]
            part = 0
            for n, token in enumerate(tokens, 1):
                part = int(ends.follows[part, token])
                text = b"".join(_bytes(token) for token in tokens[:n])
                if letters in text:
                    assert part == len(letters) == ends.separator
                    found += 1
                    break
                assert part == max(size for size in range(len(letters)) if text.endswith(letters[:size]))
        assert found > 0


def _bytes(token):
    piece = TOKENIZER.convert_ids_to_tokens(token)
    return b"".join(_letter_bytes().get(letter, letter.encode()) for letter in piece)


@cache
def _letter_bytes():
    """The byte that each letter of the vocabulary stands for."""
    pre = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    known = {}
    for text in map(chr, range(256)):
        (piece, _), *_ = pre.pre_tokenize_str(text)
        known |= {letter: bytes([byte]) for letter, byte in zip(piece, text.encode(), strict=True)}
    return known


def test_a_separator_inside_an_added_token_is_seen():
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.add_tokens([AddedToken("|\n\n|", special=False)])
    ends = make_ends(tokenizer, V, StepConfig("\n\n"))
    assert ends.follows[0, tokenizer.convert_tokens_to_ids("|\n\n|")] == 2
