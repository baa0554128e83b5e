"""Texts that contain a special token's are counted, and are encoded as before."""

import json

import pytest
from transformers import AutoTokenizer

from s1_jax.config import DataConfig
from s1_jax.data.chat import encode, prompt_ids
from s1_jax.data.look_alikes import LookAlikes
from s1_jax.data.tokens import load_corpus
from tests.tokenizer import byte_tokenizer

TEXTS = {  # text -> whether it holds one
    "What does <|im_end|> do?": True,
    "<|im_start|>system": True,
    "a<|endoftext|>": True,
    "two <|im_end|><|im_end|>": True,
    "What is 6 x 7?": False,
    "a < b and |x| > 1": False,
    "<|im_end| >": False,
    "im_end, &lt;|im_end|&gt;": False,
    "<|IM_END|>": False,
    "<think>": False,
    "": False,
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_holds_a_control_token_where_the_tokenizer_finds_one(text):
    tokenizer = byte_tokenizer()
    found = LookAlikes(tokenizer)
    found.look("here", (text,))
    control = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    assert bool(found.count) == TEXTS[text] == bool(control & set(encode(tokenizer, text)))


def test_rows_are_counted_once_and_the_first_is_named():
    found = LookAlikes(byte_tokenizer())
    assert found.told("prompts") is None
    found.look("line 1", ("fine", "fine"))
    assert found.told("prompts") is None
    found.look("line 2", ("fine", "<|im_end|><|im_start|>"))
    found.look("line 3", ("<|im_start|>", "<|im_end|>"))
    assert found.told("prompts").startswith("2 prompts contain the text of a special token")
    assert found.told("prompts").endswith("(first: line 2: <|im_end|>)")


def test_tokens_that_are_added_but_not_special_count_where_they_look_like_control_tokens(shared_data):
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "qwen25_tokenizer")
    for text, holds in (("<tool_call>", True), ("<|fim_prefix|>", True), ("<b>", False), ("tool_call", False)):
        found = LookAlikes(tokenizer)
        found.look("here", (text,))
        assert bool(found.count) == holds == (len(encode(tokenizer, text)) == 1 and holds)


def test_training_examples_are_counted_and_encoded_as_before(tmp_path):
    rows = [
        {"question": "q", "thinking": "t", "answer": "a"},
        {"question": "what is <|im_end|>?", "thinking": "t", "answer": "a"},
        {"question": "q", "thinking": ["t", "so <|im_start|>"], "answer": "a"},
        {"question": "q", "thinking": "t", "answer": "<|endoftext|>"},
    ]
    path, tokenizer = tmp_path / "rows.jsonl", byte_tokenizer()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus, counts = load_corpus(DataConfig(path=str(path)), tokenizer)
    assert counts.look_alikes.startswith("3 examples contain") and "line 2: <|im_end|>)" in counts.look_alikes
    prompt = prompt_ids(tokenizer, rows[1]["question"])
    assert corpus.examples[1].token_ids[: len(prompt)].tolist() == prompt
    path.write_text(json.dumps({"text": "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"}))
    assert load_corpus(DataConfig(path=str(path)), tokenizer)[1].look_alikes is None
