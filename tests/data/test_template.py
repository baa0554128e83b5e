"""Chat templates are programs from a model's folder: rendered as transformers does, within limits."""

from __future__ import annotations

import copy
import os

import pytest

from s1_jax.checkpoints import hf
from s1_jax.data import chat, template
from s1_jax.errors import UserError
from tests.templates import FAMILIES, family_tokenizer, tokenizer_with
from tests.tokenizer import byte_tokenizer

USER = {"role": "user", "content": "What is\n2 + 2? \N{GRINNING FACE}"}
CHATS = [
    [USER],
    [{"role": "system", "content": "Be brief."}, USER],
    [USER, {"role": "assistant", "content": " <think>\nTwo.\n</think>\n4 "}],
    [USER, {"role": "assistant", "content": "4"}, {"role": "user", "content": "And?", "name": None}],
]
EVERYTHING = (
    "{%- set ns = namespace(count=0) -%}{% generation %}{{ bos_token }}{% endgeneration %}\n"
    "{% for m in messages %}{% if loop.index0 > 5 %}{% break %}{% endif %}{% set ns.count = ns.count + 1 %}\n"
    "  {{ m | tojson(indent=2) }}{{ dict(a=ns.count).items() | list }}{{ dict.fromkeys('ab') }}\n{% endfor %}"
    "{{ tools is none }} {{ documents is none }} {{ undefined is defined }} {{ add_generation_prompt }}"
    "{{ strftime_now('%Y')[:2] }}{{ messages[0].content.split() | join('|') }}"
)


def theirs(tokenizer, messages, **options):
    return tokenizer.apply_chat_template(messages, tokenize=False, **options)


@pytest.fixture
def short(monkeypatch):
    """Little time for a template, and a worker of the test's own."""
    monkeypatch.setattr(template, "SECONDS", 0.4)
    worker = template.Worker(lambda: [str(template.WORKER), str(template.SECONDS)], "it")
    monkeypatch.setattr(template, "_worker", worker)
    monkeypatch.setattr(template, "_endless", {})
    yield worker
    worker.close()


def test_what_is_rendered_is_what_transformers_renders(shared_data):
    tokenizers = [byte_tokenizer(), tokenizer_with(EVERYTHING, bos_token="<|endoftext|>")]
    tokenizers += [family_tokenizer(shared_data, family) for family in FAMILIES]
    compared = 0
    for tokenizer in tokenizers:
        for messages in CHATS:
            for options in ({}, {"add_generation_prompt": True}, {"continue_final_message": True}):
                try:
                    expected = theirs(tokenizer, messages, **options)
                except Exception:  # a template that takes that off, say
                    continue
                assert chat.rendered(tokenizer, messages, **options) == expected
                compared += 1
    assert compared >= 40


REFUSED = {  # template -> what is said
    "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}": "does not end within 0.4 seconds",
    "{% for a in messages[0].content * 5000 %}{% for b in messages[0].content * 5000 %}{% endfor %}{% endfor %}": "end",
    "{{ 9 ** 999999999 }}": "does not end within|memory",
    "{{ 'a' * 3000000000 }}": "more than 1024 MiB of memory",
    "{{ 'a' * 5000000 }}": "writes 5,000,000 characters",
    "{{ 'x' | center(300000000) }}": "memory|characters|end",
    "{{ '%1000000000d' % 1 }}": "memory|characters|end",
    "{% set x = namespace(s='ab') %}{% for i in range(60) %}{% set x.s = x.s ~ x.s %}{% endfor %}": "memory|end",
    "{% for i in range(10 ** 9) %}{% endfor %}": "Range too big",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "calls itself endlessly",
    "{{ ''.__class__.__mro__ }}": "unsafe",
    "{{ messages.append(1) }}": "unsafe",
    "{% set ns = namespace(__init__=1) %}": "a namespace cannot contain '__init__'",
    "{% include '/etc/passwd' %}": "no loader",
    "{{ open('/etc/passwd') }}": "'open' is undefined",
    "{{ raise_exception('roles\nmust alternate') }}": "roles$",
    "{{ '\\ud800' }}": "half of a surrogate pair",
    "{% for m in messages %}": "Unexpected end of template",
}


def test_a_template_has_no_more_than_its_share(short):
    for source, said in REFUSED.items():
        with pytest.raises(UserError, match=f"the chat template of .* fails: .*({said})") as error:
            chat.prompt_text(tokenizer_with(source), "hi")
        assert "\n" not in str(error.value), source
        assert chat.prompt_text(byte_tokenizer(), "hi").endswith("<|im_start|>assistant\n")  # the next is rendered


def test_a_template_that_does_not_end_is_run_once(short):
    endless = tokenizer_with(next(iter(REFUSED)))
    for _ in range(2):
        with pytest.raises(UserError, match="does not end"):
            chat.prompt_text(endless, "hi")
        assert short._process is None


def test_long_prompts_are_no_mistake(short):
    text = "naïve ½ 中文 " * 400_000
    assert text in chat.prompt_text(byte_tokenizer(), text)


def test_a_folder_with_such_a_template_ends_with_one_line(short, tmp_path):
    tokenizer = copy.deepcopy(byte_tokenizer())  # of which there is one for all tests
    tokenizer.chat_template = "{{ 'a' * 3000000000 }}"
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=rf"the chat template of {tmp_path} fails: it needs more than"):
        chat.prompt_text(hf.load_tokenizer(tmp_path), "hi")


def test_of_several_templates_the_default_one_is_used(short):
    tokenizer = copy.deepcopy(byte_tokenizer())  # of which there is one for all tests
    tokenizer.chat_template = {"default": "{{ messages[0].content }}!", "tool_use": "no"}
    assert chat.prompt_text(tokenizer, "hi") == "hi!"
    tokenizer.chat_template = {"other": "no"}
    with pytest.raises(UserError, match="multiple chat templates with no default"):
        chat.prompt_text(tokenizer, "hi")


def test_the_worker_does_not_load_this_package_or_transformers():
    assert template.render("{{ a }}", {"a": 1}) == "1"
    with open(f"/proc/{template._worker._process.pid}/maps") as maps:
        assert not any(name in maps.read() for name in ("jaxlib", "tokenizers", "numpy"))
    assert os.getpgid(template._worker._process.pid) != os.getpgid(0)


@pytest.mark.parametrize("messages", [[], [{"role": "assistant"}], [{"role": "assistant", "content": ["no text"]}]])
def test_what_cannot_be_continued_is_one_line(messages):
    with pytest.raises(UserError, match="the chat template of .* fails: "):
        chat.rendered(byte_tokenizer(), messages, continue_final_message=True)
