"""The text is the reference's, its ids are those of the whole text, and the loss begins where the assistant does."""

import json

import numpy as np
import pytest

from s1_jax.data import chat
from s1_jax.errors import UserError

QUESTIONS = ["What is 6*7?", " \n leading", "", "ends\n\n", "naïve ½ 中文 😀 e\u0301", "<|im_start|>user\nodd"]
THOUGHTS = ["Six sevens.", "\n\n  indented\n\n", "", ["first", "\tsecond\n"], "a <|im_end|> inside", "中文\n\n\n😀"]
ANSWERS = ["42", "\n 42\n", "", "The Answer: is 42 ", "  Answer: 42"]


@pytest.fixture(params=["tiny_tokenizer", "qwen_tokenizer"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


def test_response_is_the_references_text():
    assert chat.response_text(["a", "b "], "42\n") == (
        "<|im_start|>think\na\nb\n<|im_start|>answer\nAnswer: 42<|im_end|>\n"
    )
    assert chat.response_text("a", " So the Answer: 42 ") == (
        "<|im_start|>think\na\n<|im_start|>answer\nSo the Answer: 42<|im_end|>\n"
    )


def test_the_prefix_comes_before_stripping():
    assert "answer\nAnswer: \n 42<|im_end|>" in chat.response_text("a", "\n 42\n")
    assert "answer\nAnswer:<|im_end|>" in chat.response_text("a", "")


def test_ids_are_those_of_the_whole_text_and_loss_starts_after_the_assistants_newline(tokenizer):
    for question in QUESTIONS:
        prompt = chat.prompt_text(tokenizer, question)
        assert prompt.endswith("<|im_start|>assistant\n")
        for thinking in THOUGHTS:
            for answer in ANSWERS:
                example = chat.encode_example(tokenizer, question, chat.response_text(thinking, answer))
                text = prompt + chat.response_text(thinking, answer)
                whole = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
                assert example.token_ids.tolist() == whole["input_ids"]
                assert example.token_ids.dtype == np.int32 and example.loss_mask.dtype == np.bool_
                first = int(example.loss_mask.argmax())
                assert example.loss_mask[first:].all() and not example.loss_mask[:first].any()
                assert whole["offset_mapping"][first][0] == len(prompt)
                assert tokenizer.decode(example.token_ids[first:].tolist()).endswith("<|im_end|>\n")
                assert example.token_ids[:first].tolist() == chat.prompt_ids(tokenizer, question)


def test_a_finished_conversation_has_the_same_ids_and_span(tokenizer):
    for question in QUESTIONS:
        for thinking in THOUGHTS:
            made = chat.encode_example(tokenizer, question, chat.response_text(thinking, "42"))
            text = chat.prompt_text(tokenizer, question) + chat.response_text(thinking, "42")
            found = chat.encode_text(tokenizer, text)
            np.testing.assert_array_equal(found.token_ids, made.token_ids)
            np.testing.assert_array_equal(found.loss_mask, made.loss_mask)


def test_the_span_is_found_by_tokens_not_by_text(tokenizer):
    opening = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert chat.encode_text(tokenizer, opening + "yes<|im_end|>\n").loss_mask.sum() > 0
    # the marker's text is there, but its newline and the next are one token
    with pytest.raises(UserError, match="assistant"):
        chat.encode_text(tokenizer, opening + "\n\n\nyes<|im_end|>\n")
    with pytest.raises(UserError, match="no assistant's turn to train on"):
        chat.encode_text(tokenizer, opening)


def test_qwen_prompt_has_the_default_system_block_and_known_marker_ids(qwen_tokenizer):
    assert chat.prompt_text(qwen_tokenizer, "hi") == (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert chat.prompt_ids(qwen_tokenizer, "hi")[-3:] == [151644, 77091, 198]
    example = chat.encode_example(qwen_tokenizer, "hi", chat.response_text("a", "b"))
    assert example.token_ids[example.loss_mask][[0, -2, -1]].tolist() == [151644, 151645, 198]


def test_all_known_encodings(qwen_tokenizer, shared_data):
    rows = [json.loads(line) for line in (shared_data / "qwen25_tokenizer/known_encodings.jsonl").open()]
    assert len(rows) == 45
    for row in rows:
        assert chat.encode(qwen_tokenizer, row["text"]) == row["ids"]


def test_a_tokenizer_without_a_template_is_a_user_error(tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(tiny_tokenizer, "chat_template", None)
    with pytest.raises(UserError, match="no chat template"):
        chat.prompt_ids(tiny_tokenizer, "hi")
