"""Options of the model in lm-evaluation-harness: its arguments, and the keywords of a request to it."""

from __future__ import annotations

import dataclasses
from typing import Literal

from s1_jax.config.model import MeshConfig
from s1_jax.config.options import Count, Options, Seed, Share, Whole
from s1_jax.config.types import Devices, Drafted, Rows, Temperature, TopP


@dataclasses.dataclass(frozen=True)
class HarnessConfig(Options):
    """`--model_args` of the model `s1_jax` in EleutherAI's lm-evaluation-harness."""

    pretrained: str = ""  # folder or hub id in Hugging Face layout
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # as ModelSource.dtype
    weights: Literal["auto", "float32", "bfloat16", "int8"] = "auto"  # as StoredConfig
    cache: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    batch_size: Rows | Literal["auto"] = "auto"  # rows at a time; auto: max_batch_size
    max_batch_size: Rows = 64
    max_length: Count | None = None  # tokens of prompt and generated text together; none: the model's
    max_gen_toks: Count = 256  # tokens to generate where a task does not say
    draft_tokens: Drafted = 0  # as EvaluateConfig.draft_tokens
    seed: Seed = 0  # of draws
    data: Devices = 1  # devices along each mesh axis, as MeshConfig
    fsdp: Devices = -1
    context: Devices = 1
    tensor: Devices = 1

    @property
    def mesh(self) -> MeshConfig:
        """The mesh that the arguments name."""
        return MeshConfig(self.data, self.fsdp, self.context, self.tensor)

    @property
    def rows(self) -> int:
        """The batch size as a number."""
        return self.max_batch_size if self.batch_size == "auto" else self.batch_size


@dataclasses.dataclass(frozen=True)
class KeywordConfig(Options):
    """`--gen_kwargs` of a request to it: the harness's own, and those of s1's fork of the harness."""

    until: tuple[str, ...] = ()  # strings that end the answer
    max_gen_toks: Count = 256  # of the answer
    do_sample: bool = False
    temperature: Temperature = 0.0
    top_k: Whole = 0
    top_p: TopP = 1.0
    min_p: Share = 0.0
    seed: Seed = 0
    # any of these, and thinking comes first
    # auto: what the longest prompt leaves; none: max_gen_toks
    max_tokens_thinking: Whole | Literal["auto"] | None = None
    min_tokens_thinking: Whole | None = None
    thinking_n_ignore: Whole | None = None
    thinking_n_ignore_str: str | tuple[str, ...] | None = None  # follows an ignored end; none: nothing
    thinking_start: str | None = None  # none: s1's, as the next
    thinking_end: str | None = None
    until_thinking: str | tuple[str, ...] | None = None  # none: s1's
    until_thinking_2: str | None = None
    until_ends_thinking: bool | None = None  # as in s1's fork: each string of `until` ends the thinking too
    temperature_thinking: Temperature | None = None  # none: as the answer, as the next
    top_k_thinking: Whole | None = None
    top_p_thinking: TopP | None = None
    min_p_thinking: Share | None = None
    rejection_sample: bool | Whole = False  # draw thinking again until it ends by itself; a number: at most so often

    @property
    def thinks(self) -> bool:
        """Whether there is thinking before the answer."""
        names = (field.name for field in dataclasses.fields(self) if "thinking" in field.name)
        return bool(self.rejection_sample) or any(getattr(self, name) is not None for name in names)
