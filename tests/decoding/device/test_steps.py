"""Separators of steps over tokenizers that split text in their own ways."""

import numpy as np
import pytest
from tokenizers import decoders, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from s1_jax.config import StepConfig
from s1_jax.decoding.device.steps import make_ends
from s1_jax.errors import UserError
from tests.tokenizer import byte_tokenizer


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
