"""Chat templates other than Qwen2.5's: prompts as they write them, loss on all of the response, ends of their own."""

import json

import numpy as np
import pytest

from s1_jax.config import S1, DataConfig, FormatConfig
from s1_jax.data import chat
from s1_jax.data.conditional import with_step_limit, with_token_limit
from s1_jax.data.tokens import load_corpus
from s1_jax.decoding.core.token_ids import make_markers, marker_at_end, start_ids, stop_ids, stop_texts
from s1_jax.errors import UserError
from s1_jax.records.options import format_field, format_of
from tests.templates import FAMILIES, THINK, family_tokenizer, tokenizer_with
from tests.tokenizer import CHAT_TEMPLATE, SPECIALS, byte_tokenizer

TURNS = {
    "qwen3": chat.Turn("<|im_start|>assistant\n", "", "<|im_end|>\n"),
    "qwq": chat.Turn("<|im_start|>assistant\n", "<think>\n", "<|im_end|>\n"),
    "deepseek_r1_distill": chat.Turn("<｜Assistant｜>", "<think>\n", "<｜end▁of▁sentence｜>"),
}
STOPS = {
    "qwen3": ("<|endoftext|>", "<|im_end|>"),
    "qwq": ("<|endoftext|>", "<|im_end|>"),
    "deepseek_r1_distill": ("<｜end▁of▁sentence｜>",),
}
QUESTIONS = ["What is 2 + 2?", " \n leading", "", "ends in <think>\n", "naïve ½ 中文", "</think> inside"]
THOUGHTS = ["Two and two.", "\n\n  indented\n\n", "", ["first", "second\n"], "a </think> inside", "<think>\nagain"]
LLAMA = (
    "{% for m in messages %}{{ '' if loop.index0 else bos_token }}"
    "{{ '<|h|>' + m.role + '<|/h|>\n\n' + m.content + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|h|>assistant<|/h|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{{ '[INST] ' + m.content + ' [/INST]' if m.role == 'user' else ' ' + m.content + eos_token }}{% endfor %}"
)


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def tokenizer(shared_data, family):
    return family_tokenizer(shared_data, family)


@pytest.fixture(scope="module")
def qwq_on_qwen(shared_data):
    """QwQ's template over Qwen2.5's real tokenizer, which writes <think> as several tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared_data / "qwen25_tokenizer")
    tokenizer.chat_template = (shared_data / "chat_templates" / "qwq.jinja").read_text(encoding="utf-8")
    return tokenizer


def test_prompts_are_the_templates_own(shared_data, tokenizer, family):
    rows = map(json.loads, (shared_data / "chat_templates" / "rendered.jsonl").open(encoding="utf-8"))
    texts = [
        (row["messages"][0]["content"], row["text"])
        for row in rows
        if row["template"] == family and len(row["messages"]) == 1 and "enable_thinking" not in row["arguments"]
    ]
    assert texts
    for question, text in texts:
        assert chat.prompt_text(tokenizer, question) == text
        ids = chat.prompt_ids(tokenizer, question)
        assert tokenizer.decode(ids) == text
        theirs = tokenizer.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True)
        assert ids == list(theirs["input_ids"] if hasattr(theirs, "keys") else theirs)


def test_what_the_template_writes_around_an_answer(tokenizer, family):
    assert chat.turn_of(tokenizer) == TURNS[family]
    assert stop_texts(tokenizer, stop_ids(tokenizer)) == STOPS[family]


def assert_trained_on_the_response(tokenizer, question, thinking, format=THINK):
    turn_end = chat.turn_of(tokenizer).end
    response = chat.response_text(thinking, "\n4 ", format, turn_end)
    example = chat.encode_example(tokenizer, question, response, format)
    prompt, opened = chat.prompt_text(tokenizer, question), chat.turn_of(tokenizer).opened
    text = prompt + (response.removeprefix("<think>").lstrip() if opened else response)
    whole = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    assert example.token_ids.tolist() == whole["input_ids"]
    first = int(example.loss_mask.argmax())
    assert example.loss_mask[first:].all() and not example.loss_mask[:first].any()
    assert example.token_ids[:first].tolist() == chat.prompt_ids(tokenizer, question)
    assert whole["offset_mapping"][first][0] == len(prompt)
    trained = tokenizer.decode(example.token_ids[first:].tolist(), skip_special_tokens=False)
    expected = f"{chat.joined(thinking)}\n</think>\n\n4{turn_end}"
    assert trained == (expected.lstrip() if opened else f"<think>\n{expected}")
    return example, text


def test_an_example_has_the_ids_of_the_whole_text_and_loss_on_all_of_the_response(tokenizer):
    """Also where the template, given the assistant's turn, would leave its thinking out."""
    for question in QUESTIONS:
        for thinking in THOUGHTS:
            example, text = assert_trained_on_the_response(tokenizer, question, thinking)
            if chat.turn_of(tokenizer).start not in question:
                found = chat.encode_text(tokenizer, text)
                np.testing.assert_array_equal(found.token_ids, example.token_ids)
                np.testing.assert_array_equal(found.loss_mask, example.loss_mask)


def test_a_start_marker_of_several_tokens(qwq_on_qwen):
    for thinking in THOUGHTS[:3]:
        assert_trained_on_the_response(qwq_on_qwen, "What is 2 + 2?", thinking)
    prompt = chat.prompt_ids(qwq_on_qwen, "hi")
    count = marker_at_end(qwq_on_qwen, prompt, "<think>")
    assert qwq_on_qwen.decode(prompt[-count:]) == "<think>\n" and count == 3


def test_a_template_that_ends_right_at_the_marker():
    tokenizer = tokenizer_with(CHAT_TEMPLATE.replace("assistant\n", "assistant\n<think>"), eos_token="<|im_end|>")
    response = chat.response_text("Hm.", "4", THINK)
    example = chat.encode_example(tokenizer, "hi", response, THINK)
    assert tokenizer.decode(example.token_ids[example.loss_mask].tolist()) == "\nHm.\n</think>\n\n4<|im_end|>\n"
    assert tokenizer.decode(example.token_ids.tolist()).count("<think>") == 1


@pytest.mark.parametrize(
    ("tail", "marker", "text"),
    [
        ("x<think>\n", "<think>", "<think>\n"),
        ("x<think>", "<think>", "<think>"),
        ("x<think>\n\n", "<think>", "<think>\n\n"),
        ("x<think> ", "<think>\n", "<think> "),
        ("x<think> so", "<think>", ""),
        ("<think>x</think>", "<think>", ""),
        ("<|im_start|>assistant\n", "<|im_start|>", ""),
        ("<|im_start|>think", "<|im_start|>think", "<|im_start|>think"),
        ("", "<think>", ""),
        ("\n", "<think>", ""),
    ],
)
def test_whether_a_prompt_ends_in_the_start_marker(tail, marker, text):
    tokenizer = byte_tokenizer((*SPECIALS, "<think>"))
    ids = tokenizer.encode(tail)
    count = marker_at_end(tokenizer, ids, marker)
    assert tokenizer.decode(ids[len(ids) - count :]) == text


BOS, EOS = {"bos_token": "<b>"}, {"eos_token": "<e>"}
PLAIN = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
ONE_TURN = "{% if messages|length > 1 %}{{ raise_exception('one turn only') }}{% endif %}"


@pytest.mark.parametrize(
    ("template", "named", "turn", "stops"),
    [
        (LLAMA, BOS | EOS, ("<|h|>assistant<|/h|>\n\n", "", "<|eot|>"), {"<|eot|>", "<e>"}),
        (MISTRAL, BOS | EOS, ("[/INST]", "", "<e>"), {"<e>"}),
        # a default system message
        ("{{ 'Be kind.' }}" + LLAMA, BOS | EOS, ("<|h|>assistant<|/h|>\n\n", "", "<|eot|>"), {"<|eot|>", "<e>"}),
        # named templates
        ({"default": LLAMA, "tools": "{{ 1 / 0 }}"}, BOS, ("<|h|>assistant<|/h|>\n\n", "", "<|eot|>"), {"<|eot|>"}),
        # no control token ends a turn: eos does
        (
            PLAIN + "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}",
            EOS,
            ("assistant:", "", "<e>"),
            {"<e>"},
        ),
        # the last turn gets an end of text as well; a model stops at the first of the two
        (
            LLAMA + "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}",
            BOS | EOS,
            ("<|h|>assistant<|/h|>\n\n", "", "<|eot|><e>"),
            {"<|eot|>", "<e>"},
        ),
        # prompts alone can be rendered
        (ONE_TURN + "{{ 'Q: ' + messages[0].content + '\nA:' }}", EOS, ("A:", "", "<e>"), {"<e>"}),
        # nothing around the question, and no end
        ("{{ messages[0].content }}", {}, ("", "", ""), set()),
    ],
)
def test_other_templates(template, named, turn, stops):
    tokenizer = tokenizer_with(template, ("<b>", "<e>", "<|h|>", "<|/h|>", "<|eot|>"), **named)
    assert chat.turn_of(tokenizer) == turn
    assert set(stop_texts(tokenizer, stop_ids(tokenizer))) == stops
    prompt = chat.prompt_text(tokenizer, "hi")
    if not turn[2]:
        return
    example = chat.encode_example(tokenizer, "hi", chat.response_text("a", "b", THINK, turn[2]), THINK)
    text = tokenizer.decode(example.token_ids.tolist())
    assert text == f"{prompt}<think>\na\n</think>\n\nb{turn[2]}"
    np.testing.assert_array_equal(chat.encode_text(tokenizer, text).loss_mask[-4:], [True] * 4)
    make_markers(tokenizer, 300, THINK)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "no chat template"),
        ("{{ raise_exception('System role not supported') }}", "fails: System role not supported"),
        ("{{ messages[0].nothing.there }}", "fails"),
        ("{% for %}", "fails"),
        ("{{ 1 / 0 }}", "fails"),
        ("{{ '\\ud800' }}", "fails: it writes half of a surrogate pair"),
        ({"tool_use": "x"}, "fails"),
    ],
)
def test_a_template_that_fails_is_one_line(template, message):
    tokenizer = tokenizer_with(template)
    with pytest.raises(UserError, match=message) as caught:
        chat.prompt_ids(tokenizer, "hi")
    assert "\n" not in str(caught.value)
    assert set(stop_texts(tokenizer, stop_ids(tokenizer))) == {"<|im_end|>", "<|endoftext|>"}, "ids can still be given"


def test_a_named_list_of_templates_is_read_from_its_file(tmp_path):
    tokenizer_with(CHAT_TEMPLATE).save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads(path.read_text())
    named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": CHAT_TEMPLATE}]
    path.write_text(json.dumps(config | {"chat_template": named}))
    from s1_jax.checkpoints.hf import load_tokenizer

    assert chat.prompt_text(load_tokenizer(tmp_path), "hi") == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_a_format_that_does_not_fit_says_what_to_do(shared_data):
    """s1's markers with a template that opens the thinking itself, or without the control token they are made of."""
    for family, message in (("qwq", "opens the thinking with '<think>'"), ("deepseek_r1_distill", "is not one token")):
        with pytest.raises(UserError, match=rf"{message}.*--format\.think-start"):
            chat.encode_example(family_tokenizer(shared_data, family), "hi", chat.response_text("a", "b"))
    s1_on_qwen3 = chat.encode_example(family_tokenizer(shared_data, "qwen3"), "hi", chat.response_text("a", "b"))
    assert s1_on_qwen3.loss_mask.sum() > 0


def test_the_end_markers_default_follows_the_answers_marker():
    assert FormatConfig() == S1 and S1.end_markers == ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
    assert THINK.end_markers == ("</think>",)
    assert FormatConfig(think_start="<|im_start|>").end_markers == S1.end_markers
    assert FormatConfig("<t>", "<a>", end_markers=("<|im_start|>", "Stop")).end_markers == ("<|im_start|>", "Stop")
    assert format_of({"format": format_field(THINK)}) == THINK and format_of({"format": None}) == S1


def test_the_readmes_format_needs_no_token_that_the_tokenizer_lacks(shared_data):
    format = FormatConfig("<think>", "</think>", "\n\nFinal Answer:", ("</think>", "<|im_end|>", "<|endoftext|>"))
    for family in FAMILIES:
        tokenizer = family_tokenizer(shared_data, family)
        markers = make_markers(tokenizer, 300, format)
        ends = {tokenizer.decode([i]) for i in np.flatnonzero(np.asarray(markers.bits))}
        assert ends == {"</think>", *STOPS[family]}
        assert {tokenizer.decode([i]) for i in np.flatnonzero(np.asarray(markers.is_stop))} == set(STOPS[family])
        assert tokenizer.decode(start_ids(tokenizer, format)) == "<think>"


def test_conditional_control_in_another_format(shared_data):
    tokenizer = family_tokenizer(shared_data, "deepseek_r1_distill")
    question, opening = with_token_limit(tokenizer, "What is 6 x 7?", " 42 ", THINK)
    assert (question, opening) == ("What is 6 x 7?\n\nThink for up to 2 tokens.", "<think>\n42")
    with pytest.raises(UserError, match=r"data\.control step .* --format"):
        with_step_limit(tokenizer, "What is 6 x 7?", "42", THINK)


@pytest.mark.parametrize("control", ["none", "token"])
def test_a_corpus_in_another_format(shared_data, tmp_path, control):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "2 + 2?", "thinking": "Two, two.", "answer": "4"}) + "\n")
    tokenizer = family_tokenizer(shared_data, "deepseek_r1_distill")
    corpus, _ = load_corpus(DataConfig(path=str(path), control=control), tokenizer, THINK)
    asked = "2 + 2?" + ("\n\nThink for up to 16 tokens." if control == "token" else "")
    assert tokenizer.decode(corpus.examples[0].token_ids.tolist()) == (
        f"<｜begin▁of▁sentence｜><｜User｜>{asked}<｜Assistant｜><think>\nTwo, two.\n</think>\n\n4<｜end▁of▁sentence｜>"
    )


def test_a_corpus_needs_something_that_ends_a_turn(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "2 + 2?", "thinking": "Two, two.", "answer": "4"}) + "\n")
    with pytest.raises(UserError, match=r"line 1: nothing ends a turn"):
        load_corpus(DataConfig(path=str(path)), tokenizer_with("{{ messages[0].content }}", ("<x>",)), THINK)
