"""Formats read from the tokenizer: each row of the table in docs/reference/models.md, and what is refused."""

import json

import pytest
from transformers import AutoTokenizer

from s1_jax.config import AUTO, S1, FormatConfig
from s1_jax.data import chat
from s1_jax.data.formats import read_format, resolve_format
from s1_jax.decoding.core.token_ids import make_markers
from s1_jax.errors import UserError
from tests.templates import R1_SPECIALS, THINK, family_tokenizer, tokenizer_with
from tests.tokenizer import CHAT_TEMPLATE, SPECIALS

TAGS = (*SPECIALS, "<think>", "</think>")
OPENS = (
    "{% for m in messages %}{{ ('<a>' if m.role == 'user' else '<b>') + m.content + '<e>' }}{% endfor %}"
    "{{ '<b>TAG' if add_generation_prompt }}"
)
# a Llama 3 prompt: turns of its own, and nothing about thinking
LLAMA = "{% for m in messages %}{{ '<|h|>' + m.role + '<|/h|>' + m.content + '<|eot|>' }}{% endfor %}"


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("qwen3", "the chat template has enable_thinking"),
        ("qwq", "the chat template opens the thinking: <think>"),
        ("deepseek_r1_distill", "the chat template opens the thinking: <think>"),
    ],
)
def test_reasoning_models_have_think_tags(shared_data, family, reason):
    tokenizer = family_tokenizer(shared_data, family)
    assert read_format(tokenizer) == (THINK, reason)
    make_markers(tokenizer, 300, THINK)
    format, line = resolve_format(AUTO, tokenizer)
    assert format == THINK and line == f"format: <think> ... </think>, because {reason}"


def test_s1_s_models_have_qwen_s_tokenizer(shared_data):
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "qwen25_tokenizer")
    assert resolve_format(AUTO, tokenizer)[0] == S1
    tokenizer.chat_template = (shared_data / "chat_templates" / "qwq.jinja").read_text(encoding="utf-8")
    assert read_format(tokenizer).format == THINK, "tags of several tokens are tags too"


def test_any_chatml_without_tags_is_s1_s():
    assert read_format(tokenizer_with(CHAT_TEMPLATE)) == (
        S1,
        "the chat template writes <|im_start|> and knows no thinking tag, as s1's",
    )


def test_another_tag_that_the_template_opens():
    tokenizer = tokenizer_with(OPENS.replace("TAG", "<reason>\\n"), (*SPECIALS, "<reason>", "</reason>"))
    assert read_format(tokenizer).format == FormatConfig("<reason>", "</reason>", "\n\nFinal Answer:")


def test_older_templates_of_r1_open_nothing_but_know_the_end(shared_data):
    text = (shared_data / "chat_templates" / "deepseek_r1_distill.jinja").read_text(encoding="utf-8")
    tokenizer = tokenizer_with(text.replace("<think>\\n", ""), (*R1_SPECIALS, "<think>", "</think>"))
    assert read_format(tokenizer) == (THINK, "the chat template knows </think>")


@pytest.mark.parametrize(
    ("template", "specials", "words"),
    [
        (LLAMA, ("<|h|>", "<|/h|>", "<|eot|>"), "mentions no thinking, and does not say how the model marks it"),
        (None, SPECIALS, "has no chat template, and does not say"),
        (None, TAGS, "has no chat template, but its vocabulary has <think>"),
        (CHAT_TEMPLATE, TAGS, "mentions no thinking, but its vocabulary has <think>"),  # Qwen3-Instruct
        (CHAT_TEMPLATE + "{{ '' if enable_thinking }}", SPECIALS, "has enable_thinking and no <think>"),
        (CHAT_TEMPLATE, ("<|h|>",), "mentions no thinking, and does not say"),  # <|im_start|> is no token
        (
            OPENS.replace("TAG", "[THINK]"),
            SPECIALS,
            r"opens the thinking with '\[THINK\]', and does not say what ends it",
        ),
        (
            OPENS.replace("TAG", "<reason>"),
            SPECIALS,
            "opens the thinking with '<reason>', and does not say what ends it",
        ),
    ],
)
def test_what_cannot_be_told_is_refused(template, specials, words):
    tokenizer = tokenizer_with(template, specials)
    for marked in (AUTO, FormatConfig(answer_start="auto")):
        with pytest.raises(UserError, match=rf"{words}.*--format\.think-start") as error:
            resolve_format(marked, tokenizer)
        assert "\n" not in str(error.value)
    assert resolve_format(THINK, tokenizer) == (THINK, None)


def test_what_is_given_stays(shared_data):
    tokenizer = family_tokenizer(shared_data, "qwen3")
    given = FormatConfig("auto", "auto", "\n\nSo:", ("</think>", "Answer"))
    assert resolve_format(given, tokenizer)[0] == FormatConfig("<think>", "</think>", "\n\nSo:", ("</think>", "Answer"))
    start = FormatConfig(think_start="<think>\n", answer_start="auto")
    assert resolve_format(start, tokenizer)[0] == FormatConfig("<think>\n", "</think>", "\n\nFinal Answer:")


def test_a_format_that_is_still_to_be_read_makes_no_markers(shared_data):
    with pytest.raises(ValueError, match="still to be read"):
        make_markers(family_tokenizer(shared_data, "qwen3"), 300, AUTO)


@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("family", ["qwen3", "qwq", "deepseek_r1_distill"])
def test_prompts_are_those_of_apply_chat_template(shared_data, family, thinking):
    tokenizer = family_tokenizer(shared_data, family)
    for question in ("What is 2 + 2?", "", "naïve ½ 中文 </think>"):
        asked = [{"role": "user", "content": question}]
        options = {"add_generation_prompt": True, "enable_thinking": thinking}
        text = tokenizer.apply_chat_template(asked, tokenize=False, **options)
        assert chat.prompt_text(tokenizer, question, thinking) == text
        assert chat.prompt_ids(tokenizer, question, thinking) == tokenizer.encode(text, add_special_tokens=False)


def test_rendered_prompts_are_the_published_ones(shared_data):
    rows = [json.loads(line) for line in (shared_data / "chat_templates" / "rendered.jsonl").open(encoding="utf-8")]
    checked = 0
    for row in rows:
        tokenizer = family_tokenizer(shared_data, row["template"])
        thinking = row["arguments"].get("enable_thinking", True)
        assert chat.rendered(tokenizer, row["messages"], add_generation_prompt=True, thinking=thinking) == row["text"]
        checked += 1
    assert checked == len(rows) >= 12
