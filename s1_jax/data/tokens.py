"""Tokenization of a source before training, with checks of lengths, a held-out split and counts."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable

import numpy as np
from transformers import PreTrainedTokenizerBase

from s1_jax.config import S1, DataConfig, FormatConfig
from s1_jax.data.chat import Example, encode_example, encode_text, joined, response_text, turn_of, with_answer
from s1_jax.data.conditional import WITH_LIMIT
from s1_jax.data.look_alikes import LookAlikes
from s1_jax.data.sources import Conversation, read_conversations
from s1_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Tokenized examples in the order of their source, with their ids for messages and logs."""

    ids: tuple[str, ...]
    examples: tuple[Example, ...]

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each example."""
        return [len(example.token_ids) for example in self.examples]

    def take(self, indices: list[int]) -> Corpus:
        """Return the corpus of the examples at `indices`."""
        return Corpus(tuple(self.ids[i] for i in indices), tuple(self.examples[i] for i in indices))


@dataclasses.dataclass(frozen=True)
class Counts:
    """Counts of a tokenization; token counts are those of the examples kept, after truncation."""

    examples: int
    dropped: int
    truncated: int
    tokens_min: int
    tokens_mean: float
    tokens_max: int
    look_alikes: str | None = None  # a line about examples that contain the text of special tokens, if there are any

    def __str__(self) -> str:
        tokens = f"{self.tokens_min} to {self.tokens_max} tokens (mean {self.tokens_mean:.0f})"
        return f"{self.examples} examples of {tokens}, {self.dropped} dropped, {self.truncated} truncated"


def load_corpus(
    config: DataConfig, tokenizer: PreTrainedTokenizerBase, format: FormatConfig = S1
) -> tuple[Corpus, Counts]:
    """Read `config.path` and tokenize it in this format.

    `config.too_long` says what happens to examples of more than `config.max_length` tokens. Raises UserError as
    `read_conversations` does, for too long examples with "error" (naming the first and counting all), and if no example
    is left.
    """
    ids: list[str] = []
    examples: list[Example] = []
    refused: list[str] = []
    read = truncated = 0
    look_alikes = LookAlikes(tokenizer)
    fit = TOO_LONG[config.too_long]
    for row, conversation in read_conversations(config.path, config.split, config.layout, config.columns):
        read += 1
        try:
            example = _encode(tokenizer, conversation, config.control, format)
        except UserError as error:
            raise UserError(f"{row.where}: {error}") from None
        if conversation.text is None:  # finished text contains special tokens on purpose
            look_alikes.look(row.where, (conversation.question, joined(conversation.thinking), conversation.answer))
        if (length := len(example.token_ids)) > config.max_length:
            if config.too_long == "error":
                refused.append(f"{row.where} (id {row.id}) has {length} tokens")
            if (fitted := fit(example, config.max_length)) is None:
                continue
            example, truncated = fitted, truncated + 1
        ids.append(row.id)
        examples.append(example)
    if refused:
        raise UserError(
            f"{refused[0]}, more than data.max_length {config.max_length} "
            f"({len(refused)} of {read} examples are too long); raise it, or set data.too_long to drop or truncate"
        )
    if not examples:
        raise UserError(f"no example of {config.path} is left: all are longer than data.max_length {config.max_length}")
    corpus = Corpus(tuple(ids), tuple(examples))
    lengths = corpus.lengths
    counts = Counts(
        examples=len(ids),
        dropped=read - len(ids),
        truncated=truncated,
        tokens_min=min(lengths),
        tokens_mean=float(np.mean(lengths)),
        tokens_max=max(lengths),
        look_alikes=look_alikes.told("examples"),
    )
    return corpus, counts


def split_held_out(corpus: Corpus, share: float, seed: int) -> tuple[Corpus, Corpus]:
    """Split a corpus into training and held-out examples, the latter at least a fraction `share` of all.

    The split depends on the seed, but not on the order of the examples. Examples with the same prompt stay together, so
    no held-out question is trained on. Raises UserError for a fraction outside [0, 1), or one that leaves nothing to
    train on.
    """
    if not 0 <= share < 1:
        raise UserError(f"data.held_out_share is {share}; it must be at least 0 and below 1")
    groups: dict[bytes, list[int]] = {}
    for index, example in enumerate(corpus.examples):
        prompt = example.token_ids[~example.loss_mask].tobytes()
        groups.setdefault(hashlib.sha256(f"{seed}:".encode() + prompt).digest(), []).append(index)
    held_out: list[int] = []
    for key in sorted(groups):
        if len(held_out) >= share * len(corpus):
            break
        held_out += groups[key]
    if len(held_out) == len(corpus):
        raise UserError(f"data.held_out_share {share} of {len(corpus)} examples leaves none to train on")
    training = sorted(set(range(len(corpus))) - set(held_out))
    return corpus.take(training), corpus.take(sorted(held_out))


def _encode(
    tokenizer: PreTrainedTokenizerBase, conversation: Conversation, control: str, format: FormatConfig
) -> Example:
    question, thinking, answer, text = conversation
    if text is not None:
        if control == "none":
            return encode_text(tokenizer, text)
        raise UserError(
            f"data.control {control} needs question, thinking and answer, but this is finished text; set data.layout"
        )
    if not (turn_end := turn_of(tokenizer).end):
        raise UserError(
            f"nothing ends a turn: the chat template of {tokenizer.name_or_path} writes no special token there, "
            "and the tokenizer has no eos_token; set eos_token in its tokenizer_config.json"
        )
    if control == "none":
        return encode_example(tokenizer, question, response_text(thinking, answer, format, turn_end), format)
    question, opening = WITH_LIMIT[control](tokenizer, question, thinking, format)
    return encode_example(tokenizer, question, with_answer(opening, answer, format, turn_end), format)


def _drop(example: Example, max_length: int) -> Example | None:
    return None


def _truncate(example: Example, max_length: int) -> Example | None:
    cut = Example(example.token_ids[:max_length], example.loss_mask[:max_length])
    return cut if cut.loss_mask.any() else None  # a prompt that fills the length leaves nothing to learn


TOO_LONG: dict[str, Callable[[Example, int], Example | None]] = {"error": _drop, "drop": _drop, "truncate": _truncate}
