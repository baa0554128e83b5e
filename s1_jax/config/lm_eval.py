"""Options of the model in lm-evaluation-harness: its arguments, and the keywords of a request to it."""

from __future__ import annotations

import dataclasses
from typing import Literal

from s1_jax.config.model import MeshConfig
from s1_jax.config.options import Count, Options, Seed, UnitInterval, Whole
from s1_jax.config.types import Devices, Drafted, Fraction, Repetitions, Rows, Temperature, TopP


@dataclasses.dataclass(frozen=True)
class HarnessConfig(Options):
    """`--model_args` of the model `s1_jax` in EleutherAI's lm-evaluation-harness."""

    pretrained: str = ""
    """Model folder or hub id, in Hugging Face layout."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of matrix products; auto is float32 on CPU and bfloat16 on TPU and GPU."""
    weights: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    """Type that weights are kept in; auto is dtype. int8 keeps each layer's matrices in 8 bits."""
    cache: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    """Type that the KV cache is kept in; auto is dtype."""
    batch_size: Rows | Literal["auto"] = "auto"
    """Rows at a time, rounded up to a multiple of the devices that share the batch; auto is max_batch_size. It wins
    over the harness's own --batch_size."""
    max_batch_size: Rows = 64
    """Rows at a time if batch_size is auto."""
    max_length: Count | None = None
    """Maximum number of tokens of prompt and generated text together; None is the model's context."""
    max_gen_toks: Count = 256
    """Number of tokens to generate if neither task nor keywords say."""
    draft_tokens: Drafted = 0
    """Draft this many tokens per step by prompt lookup and verify them in one forward pass; 0 turns it off."""
    seed: Seed = 0
    """Sampling seed of requests that give none."""
    data: Devices = 1
    """Copies of the model, each with its own part of the batch; one mesh axis may be -1, which takes the devices that
    the others leave."""
    fsdp: Devices = -1
    """Devices that share one copy of the weights, each with its own part of the batch; -1 takes all that the other axes
    leave."""
    context: Devices = 1
    """Devices that share weights and batch, as fsdp does."""
    tensor: Devices = 1
    """Devices that share each layer's heads, its MLP and the vocabulary."""

    @property
    def mesh(self) -> MeshConfig:
        """Return the mesh that the arguments give."""
        return MeshConfig(self.data, self.fsdp, self.context, self.tensor)

    @property
    def rows(self) -> int:
        """Return the batch size as a number, also if it is auto."""
        return self.max_batch_size if self.batch_size == "auto" else self.batch_size


@dataclasses.dataclass(frozen=True)
class KeywordConfig(Options):
    """`--gen_kwargs` of a request: the harness's own keywords, and those of s1's fork.

    With a keyword about thinking, thinking comes before the answer.
    """

    until: tuple[str, ...] = ()
    """Strings that end the answer, which is cut before the first of them."""
    max_gen_toks: Count = 256
    """Maximum number of tokens of the answer."""
    do_sample: bool = False
    """Sample with the temperature; false, which most tasks set, is greedy decoding."""
    temperature: Temperature = 0.0
    """Sampling temperature of the answer; 0 is greedy decoding."""
    top_k: Whole = 0
    """Sample from only this many most likely tokens; 0 is all of them."""
    top_p: TopP = 1.0
    """Sample from only the most likely tokens whose probabilities add up to this; 1 is all of them."""
    min_p: UnitInterval = 0.0
    """Sample from only tokens that are at least this fraction as likely as the most likely one."""
    seed: Seed = 0
    """Sampling seed of the request."""
    max_tokens_thinking: Whole | Literal["auto"] | None = None
    """Maximum number of thinking tokens. auto is what max_gen_toks leaves after the longest prompt, the markers and 100
    answer tokens; None is max_gen_toks."""
    min_tokens_thinking: Whole | None = None
    """Minimum number of thinking tokens; the end-of-thinking marker is masked until they have been generated."""
    thinking_n_ignore: Whole | None = None
    """Number of end-of-thinking markers to suppress."""
    thinking_n_ignore_str: str | tuple[str, ...] | None = None
    """String appended in place of a suppressed end marker, or several that take turns; None appends nothing."""
    thinking_start: str | None = None
    """Marker that opens the thinking; None is s1's. auto reads it, and thinking_end, from the tokenizer."""
    thinking_end: str | None = None
    """Marker that opens the answer; None is s1's."""
    until_thinking: str | tuple[str, ...] | None = None
    """Marker, or several, with which the model ends its thinking; None is s1's, or thinking_end where that is given."""
    until_thinking_2: str | None = None
    """One more marker with which the model ends its thinking."""
    until_ends_thinking: bool | None = None
    """Let each string of until end the thinking too, as in s1's fork."""
    early_stopping_text: str = ""
    """Text appended before thinking_end when thinking is cut."""
    notice_fractions: tuple[Fraction, ...] = ()
    """Append a notice when these fractions of max_tokens_thinking have been used."""
    notices: tuple[str, ...] = ()
    """Texts of the notices, one for each of notice_fractions."""
    banned_words: tuple[str, ...] = ()
    """Words that the model may not use while it thinks."""
    max_repetitions: Repetitions = 0
    """Cut thinking where its last tokens have occurred this many times in a row; 0 turns it off."""
    temperature_thinking: Temperature | None = None
    """Sampling temperature of the thinking; None is that of the answer."""
    top_k_thinking: Whole | None = None
    """Sampling of the thinking as top_k; None is that of the answer."""
    top_p_thinking: TopP | None = None
    """Sampling of the thinking as top_p; None is that of the answer."""
    min_p_thinking: UnitInterval | None = None
    """Sampling of the thinking as min_p; None is that of the answer."""
    rejection_sample: bool | Whole = False
    """Sample thinking again until it ends by itself within max_tokens_thinking, at most this many times; true is 1,000
    times."""

    @property
    def thinks(self) -> bool:
        """Return whether any keyword asks for thinking before the answer."""
        names = (field.name for field in dataclasses.fields(self) if "thinking" in field.name)
        rules = (self.early_stopping_text, self.notices, self.banned_words, self.max_repetitions, self.rejection_sample)
        return any(rules) or any(getattr(self, name) is not None for name in names)
