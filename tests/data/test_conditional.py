"""Examples that ask for a length: the reference's words, the least power of two, and steps that count down."""

import json

import pytest

from s1_jax.config import DataConfig
from s1_jax.data.conditional import STEPS, split_steps
from s1_jax.data.tokens import load_corpus
from s1_jax.errors import UserError

THREE = "a b\nstill a\n\nc\n\n\n\nd"


def texts(tmp_path, tokenizer, control, thinking, layout="auto", **columns):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "q", "thinking": thinking, "answer": "7", **columns}) + "\n")
    (example,) = load_corpus(DataConfig(path=str(path), control=control, layout=layout), tokenizer)[0].examples
    return [tokenizer.decode(example.token_ids[mask]) for mask in (~example.loss_mask, example.loss_mask)]


def test_steps_count_down_from_the_least_power_of_two(tmp_path, tiny_tokenizer):
    prompt, response = texts(tmp_path, tiny_tokenizer, "step", THREE)
    assert "q\n\nThink for up to 4 steps.<|im_end|>" in prompt
    assert response == (
        "<|im_start|>4 steps left\na b\nstill a\n<|im_start|>3 steps left\nc\n<|im_start|>2 steps left\nd\n"
        "<|im_start|>answer\nAnswer: 7<|im_end|>\n"
    )
    assert response.startswith(STEPS.think_start), "what the decoder puts in"


@pytest.mark.parametrize("length, limit", [(0, 1), (1, 1), (2, 2), (3, 4), (8, 8), (9, 16)])
def test_tokens_are_counted_up_to_the_least_power_of_two(tmp_path, tiny_tokenizer, length, limit):
    thinking = "x" * length  # a token each
    prompt, response = texts(tmp_path, tiny_tokenizer, "token", thinking)
    assert f"q\n\nThink for up to {limit} tokens.<|im_end|>" in prompt
    assert response == f"<|im_start|>think\n{thinking}\n<|im_start|>answer\nAnswer: 7<|im_end|>\n"


@pytest.mark.parametrize(
    "thinking, steps",
    [(THREE, ["a b\nstill a", "c", "d"]), ("a\nb\n", ["a", "b"]), ("a", ["a"]), ("\n\na\n\n", ["a"]), ("", [""])],
)
def test_steps_are_paragraphs_or_else_lines(thinking, steps):
    assert split_steps(thinking) == steps


def test_finished_text_cannot_be_asked_for_a_length(tmp_path, tiny_tokenizer):
    finished = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\nx"
    with pytest.raises(UserError, match=r"rows\.jsonl, line 1: data\.control step needs question"):
        texts(tmp_path, tiny_tokenizer, "step", "a", text=finished)
    assert "Think for up to" in texts(tmp_path, tiny_tokenizer, "step", "a", "plain", text=finished)[0]
