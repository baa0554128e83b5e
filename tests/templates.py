"""Tokenizers of reasoning models, as far as templates go: bytes, the family's control tokens and its chat template."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerFast

from s1_jax.config import FormatConfig
from tests.tokenizer import SPECIALS, byte_tokenizer

THINK = FormatConfig("<think>", "</think>", "\n\nFinal Answer:")
R1_SPECIALS = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>")
FAMILIES = {  # control tokens beside the tags, bos and eos
    "qwen3": (SPECIALS, None, "<|im_end|>"),
    "qwq": (SPECIALS, None, "<|im_end|>"),
    "deepseek_r1_distill": (R1_SPECIALS, R1_SPECIALS[0], R1_SPECIALS[1]),
}


def family_tokenizer(shared_data: Path, family: str) -> PreTrainedTokenizerFast:
    """A tokenizer of its own for each call."""
    specials, bos, eos = FAMILIES[family]
    template = (shared_data / "chat_templates" / f"{family}.jinja").read_text(encoding="utf-8")
    return tokenizer_with(template, (*specials, "<think>", "</think>"), bos_token=bos, eos_token=eos)


def tokenizer_with(template, specials=SPECIALS, **named) -> PreTrainedTokenizerFast:
    """The byte tokenizer with this chat template, these control tokens, and some of them named."""
    backend = byte_tokenizer(specials).backend_tokenizer
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **{k: v for k, v in named.items() if v})
    tokenizer.chat_template = template
    return tokenizer
