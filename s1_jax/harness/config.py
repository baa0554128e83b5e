"""Options of the model in lm-evaluation-harness: its arguments, and the keywords of a request to it."""

from __future__ import annotations

import dataclasses
from typing import Literal

from s1_jax.config import UserError


@dataclasses.dataclass(frozen=True)
class HarnessConfig:
    """`--model_args` of the model `s1_jax` in EleutherAI's lm-evaluation-harness."""

    pretrained: str = ""  # folder or hub id in Hugging Face layout
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # as ModelSource.dtype
    weights: Literal["auto", "float32", "bfloat16", "int8"] = "auto"  # as StoredConfig
    cache: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    batch_size: int | Literal["auto"] = "auto"  # rows at a time; auto: max_batch_size
    max_batch_size: int = 64
    max_length: int | None = None  # tokens of prompt and generated text together; none: the model's
    max_gen_toks: int = 256  # tokens to generate where a task does not say
    draft_tokens: int = 0  # as EvaluateConfig.draft_tokens
    seed: int = 0  # of draws

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_batch_size", "max_length", "max_gen_toks"):
            if isinstance(value := getattr(self, name), int) and value < 1:
                raise UserError(f"{name} {value} is below 1")

    @property
    def rows(self) -> int:
        """The batch size as a number."""
        return self.max_batch_size if self.batch_size == "auto" else self.batch_size


@dataclasses.dataclass(frozen=True)
class KeywordConfig:
    """`--gen_kwargs` of a request to it: the harness's own, and those of s1's fork of the harness."""

    until: tuple[str, ...] = ()  # strings that end the answer
    max_gen_toks: int = 256  # of the answer
    do_sample: bool = False
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    # any of these, and thinking comes first
    max_tokens_thinking: int | Literal["auto"] | None = None  # auto: what the longest prompt leaves; none: max_gen_toks
    min_tokens_thinking: int | None = None
    thinking_n_ignore: int | None = None
    thinking_n_ignore_str: str | tuple[str, ...] | None = None  # follows an ignored end; none: nothing
    thinking_start: str | None = None  # none: s1's, as the next
    thinking_end: str | None = None
    until_thinking: str | tuple[str, ...] | None = None  # none: s1's
    until_thinking_2: str | None = None
    until_ends_thinking: bool | None = None  # as in s1's fork: each string of `until` ends the thinking too
    temperature_thinking: float | None = None  # none: as the answer, as the next
    top_k_thinking: int | None = None
    top_p_thinking: float | None = None
    min_p_thinking: float | None = None
    rejection_sample: bool | int = False  # draw thinking again until it ends by itself; a number: at most so often

    @property
    def thinks(self) -> bool:
        """Whether there is thinking before the answer."""
        names = (field.name for field in dataclasses.fields(self) if "thinking" in field.name)
        return bool(self.rejection_sample) or any(getattr(self, name) is not None for name in names)
