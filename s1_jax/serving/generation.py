"""What a client asks for and what it is told, whatever its protocol: the seam between protocols and engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from transformers import PreTrainedTokenizerBase

from s1_jax.config import FormatConfig
from s1_jax.config.serve import ServeConfig
from s1_jax.decoding.core.requests import Request

Part = Literal["prompt", "reasoning", "content"]


@dataclass(frozen=True)
class Terms:
    """What the server offers: the model's tokenizer and format, and the limits of requests."""

    config: ServeConfig
    tokenizer: PreTrainedTokenizerBase
    format: FormatConfig  # how the model marks its thinking, never "auto"
    max_model_len: int  # tokens of prompt, thinking and answer
    vocab_size: int
    model_name: str  # the name in replies
    created: int  # seconds since 1970 when the server began


@dataclass(frozen=True)
class Generation:
    """One request of a client, as the engine takes it: one run for each choice."""

    requests: tuple[Request, ...]  # one for each choice, in the order of the choices
    stream: bool = False
    include_usage: bool = False  # the stream ends with a chunk that has the usage
    logprobs: int | None = None  # number of likeliest tokens told beside each; 0: the token alone, None: nothing
    echo: bool = False  # the prompt's tokens come first, as the part "prompt"


class TokenScore(NamedTuple):
    """A token and its log-probability in the model's raw distribution: before temperature, masks and biases."""

    token_id: int
    logprob: float | None  # None for the first token of a prompt, which follows nothing
    top: tuple[tuple[int, float], ...]  # the likeliest tokens with theirs, the likeliest first


class Delta(NamedTuple):
    """New text of a choice."""

    choice: int
    part: Part
    text: str  # may be empty where a token brings half a character
    scores: tuple[TokenScore, ...] = ()  # of the tokens that are new, where the request asks for log-probabilities


class Usage(NamedTuple):
    """Numbers of tokens of one choice."""

    prompt: int  # start marker of thinking included
    cached: int  # of the prompt, read from the prefix cache
    completion: int  # everything after the start marker: thinking, markers, answer and stop token
    reasoning: int  # thinking tokens


class Finish(NamedTuple):
    """The end of a choice."""

    choice: int
    reason: Literal["stop", "length"]
    stop_string: str | None  # the string of `Request.stop_strings` that ended it
    thinking_end: Literal["natural", "forced", "context", "length", "repetition"] | None  # None: it did not think
    ignores_used: int
    usage: Usage


Event = Delta | Finish
