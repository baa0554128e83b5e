"""Terms of a server that needs no engine, bodies of requests to it, and what is wrong with a bad one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from s1_jax.config import S1, FormatConfig
from s1_jax.config.serve import ServeConfig
from s1_jax.serving.errors import ApiError
from s1_jax.serving.fronts import FRONTS
from s1_jax.serving.generation import Generation, Terms

MODEL = "tiny"
CHAT, TEXT, MESSAGES = FRONTS
ASKED = [{"role": "user", "content": "What is 2 + 2?"}]
LEAST: Mapping[str, dict[str, Any]] = {  # the least that a body needs
    CHAT: {"model": MODEL, "messages": ASKED},
    TEXT: {"model": MODEL, "prompt": "What is 2 + 2?"},
    MESSAGES: {"model": MODEL, "messages": ASKED, "max_tokens": 100},
}


@cache
def tiny_tokenizer() -> PreTrainedTokenizerBase:
    """The tokenizer of the shipped tiny model."""
    return AutoTokenizer.from_pretrained(str(files("s1_jax") / "assets" / "tiny_base"))


def offer(
    tokenizer: PreTrainedTokenizerBase | None = None,
    format: FormatConfig = S1,
    max_model_len: int = 512,
    **sections: Any,
) -> Terms:
    """The terms of a server; a section's options are given as a dict: `limits={"max_choices": 4}`."""
    config = ServeConfig()
    for name, value in sections.items():
        part = getattr(config, name)
        value = dataclasses.replace(part, **value) if isinstance(value, dict) else value
        config = dataclasses.replace(config, **{name: value})
    tokenizer = tokenizer or tiny_tokenizer()
    return Terms(config, tokenizer, format, max_model_len, len(tokenizer), MODEL, created=1_700_000_000)


def read(path: str, terms: Terms | None = None, **fields: Any) -> Generation:
    """Read a body that has these fields besides the least."""
    return FRONTS[path].read(LEAST[path] | fields, terms or offer())


def refused(path: str, terms: Terms | None = None, **fields: Any) -> ApiError:
    """The error of a body that has these fields besides the least; its words are one line of valid Unicode."""
    with pytest.raises(ApiError) as raised:
        read(path, terms, **fields)
    error = raised.value
    assert error.message.isprintable() and len(error.message) <= 403
    (error.param or "").encode()
    return error


def events_of(frames: Iterable[bytes]) -> list[tuple[str | None, Any]]:
    """The names and values of server-sent events, which each come as one frame in ASCII."""
    found = []
    for frame in frames:
        lines = frame.decode("ascii").split("\n")
        assert lines[-2:] == ["", ""] and len(lines) in (3, 4)
        name = lines[0].removeprefix("event: ") if len(lines) == 4 else None
        data = lines[-3].removeprefix("data: ")
        found.append((name, data if data == "[DONE]" else json.loads(data)))
    return found
