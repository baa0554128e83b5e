"""The public face in Python: `s1_jax.load_model(path)` computes logits and generates under a budget."""

from __future__ import annotations

import dataclasses
import difflib
import json
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from transformers import PreTrainedTokenizerBase

from s1_jax.checkpoints import hf
from s1_jax.checkpoints.stops import declared_stops
from s1_jax.config import S1, BudgetConfig, FormatConfig, ModelConfig, SamplingConfig, StoredConfig
from s1_jax.data.chat import prompt_ids
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.engine import Engine
from s1_jax.decoding.host.results import NOT_FINITE
from s1_jax.decoding.host.slots import rows_at_a_time
from s1_jax.errors import RunError, UserError
from s1_jax.model import qwen2
from s1_jax.runtime.compilation import keep_compiled_programs, power_of_two
from s1_jax.runtime.texts import SHOWN, is_unicode

T = TypeVar("T")

SHORTEST_LOGITS = 16  # T of the shortest program of `LoadedModel.logits`


class LoadedModel:
    """A model with its tokenizer, on the first device."""

    def __init__(
        self,
        config: ModelConfig,
        params: qwen2.Params,
        tokenizer: PreTrainedTokenizerBase,
        dtype: str,
        cache_dtype: str,
        stops: Sequence[int] = (),
    ) -> None:
        self.config = config
        self.params = params
        self.tokenizer = tokenizer
        self.stops = tuple(stops)  # tokens that the model declares as ends of its texts
        self.dtype, self.cache_dtype = jnp.dtype(dtype), jnp.dtype(cache_dtype)
        self._engines: dict[tuple[Any, ...], Engine] = {}
        self._logits = jax.jit(self._compute_logits)

    def logits(self, token_ids: Any, attention_mask: Any = None) -> np.ndarray:
        """token_ids [B, T] ints -> [B, T, V] float32: row t scores the token after t.

        `attention_mask` [B, T] is 1 at tokens and 0 at padding, left or right of them; logits at padding mean nothing.
        B and T are padded to powers of two, T from 16 on, so that few sizes are compiled. Raises UserError on another
        shape, or on ids outside the vocabulary, and RunError where logits of a token are not finite.
        """
        ids = np.asarray(token_ids)
        if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
            raise UserError(f"token_ids must be whole numbers [B, T]; these are {ids.dtype} of shape {list(ids.shape)}")
        mask = np.ones_like(ids) if attention_mask is None else np.asarray(attention_mask)
        if mask.shape != ids.shape:
            raise UserError(f"attention_mask has shape {list(mask.shape)}, token_ids {list(ids.shape)}")
        if ids.size and not 0 <= ids.min() <= ids.max() < self.config.vocab_size:
            vocab_size = self.config.vocab_size
            raise UserError(f"token_ids go from {ids.min()} to {ids.max()}; the vocabulary has {vocab_size}")
        if not ids.size:
            return np.zeros((*ids.shape, self.config.vocab_size), np.float32)
        B, T = ids.shape
        padding = (0, power_of_two(B) - B), (0, max(power_of_two(T), SHORTEST_LOGITS) - T)
        padded = (np.pad(x.astype(np.int32), padding) for x in (ids, mask))
        found = np.asarray(self._logits(self.params, *padded))[:B, :T].copy()  # not a view that keeps all the padding
        lost = np.argwhere(~np.isfinite(found.max(axis=-1)) & (mask != 0))
        if len(lost):
            row, place = lost[0]
            raise RunError(f"row {row}: the model's logits are not finite at token {place + 1}; {NOT_FINITE}")
        return found

    def generate(
        self,
        prompts: Sequence[str | Sequence[int]],
        budget: Mapping[str, Any] | None = None,
        sampling: Mapping[str, Any] | None = None,
        *,
        max_answer_tokens: int | None = None,
        max_model_len: int | None = None,
        seed: int = 0,
        batch_size: int = 8,
        draft_tokens: int = 0,
        thinking: bool = True,
        format: FormatConfig = S1,
    ) -> list[dict[str, Any]]:
        """Records of the prompts, in order; a string is a user message for the chat template, a list is token ids.

        The start marker of `format` is appended to prompts that do not end in it. `budget` and `sampling` hold fields
        of BudgetConfig and SamplingConfig; `draft_tokens` are looked up ahead and change no token. Without `thinking`
        no start marker is appended and no budget can be given: the answer begins at once. Raises UserError on what
        cannot be decoded, and RunError where the model's logits are not finite.
        """
        if isinstance(prompts, str):
            raise UserError("prompts must be a list; put the one prompt into brackets")
        shared = Request(
            (),
            override(BudgetConfig(), budget or {}, "budget"),
            override(SamplingConfig(), sampling or {}, "sampling"),
            max_answer_tokens=max_answer_tokens,
            seed=seed,
            thinking=thinking,
        )
        requests = [
            dataclasses.replace(shared, prompt_token_ids=prompt_token_ids(self.tokenizer, prompt), name=f"prompt {i}")
            for i, prompt in enumerate(prompts)
        ]
        rows = rows_at_a_time(batch_size, len(requests))
        engine = self.engine(max_model_len, rows, format, draft_tokens)
        return list(engine.run(requests))

    def engine(
        self,
        max_model_len: int | None,
        batch_size: int,
        format: FormatConfig = S1,
        draft_tokens: int = 0,
    ) -> Engine:
        """The engine of these shapes; made and compiled once."""
        key = (max_model_len, batch_size, format, draft_tokens)
        if key not in self._engines:
            self._engines[key] = Engine(
                self.config,
                self.params,
                self.tokenizer,
                max_model_len=max_model_len,
                batch_size=batch_size,
                dtype=self.dtype,
                cache_dtype=self.cache_dtype,
                format=format,
                draft_tokens=draft_tokens,
                stops=self.stops,
            )
        return self._engines[key]

    def _compute_logits(self, params: qwen2.Params, token_ids: jax.Array, mask: jax.Array) -> jax.Array:
        positions = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
        hidden = qwen2.hidden_states(self.config, params, token_ids, positions, mask, compute_dtype=self.dtype)
        return qwen2.logits(self.config, params, hidden)


def load_model(path: str | Path, dtype: str = "float32", stored: StoredConfig = StoredConfig()) -> LoadedModel:
    """The model in a folder or behind a hub id, in Hugging Face layout, computed in `dtype`.

    `dtype` is "float32" or "bfloat16"; `stored` says what weights and cache are kept in. Raises UserError where there
    is no such model, or it is not a Qwen2.5 dense one.
    """
    if dtype not in ("float32", "bfloat16"):
        raise UserError(f"dtype {dtype!r} is not float32 or bfloat16")
    keep_compiled_programs()
    stored = stored.resolved(dtype)
    config, params = hf.load_for_decoding(path, stored, jnp.dtype(dtype))
    return LoadedModel(
        config, params, hf.load_tokenizer(path), dtype, stored.cache, declared_stops(path, config.vocab_size)
    )


def prompt_token_ids(tokenizer: PreTrainedTokenizerBase, prompt: str | Sequence[int]) -> tuple[int, ...]:
    """Ids of a user message through the chat template, or the ids as they are, with or without a start marker.

    Raises UserError on a message that is not valid Unicode.
    """
    if isinstance(prompt, str) and not is_unicode(prompt):
        raise UserError(f"the prompt {prompt[:SHOWN]!a} holds half of a surrogate pair; it is not valid Unicode")
    return tuple(prompt_ids(tokenizer, prompt) if isinstance(prompt, str) else (int(i) for i in prompt))


def override(base: T, values: Mapping[str, Any], where: str) -> T:
    """A config dataclass with some fields replaced. Raises UserError naming `where` on unknown or unfit ones."""
    hints = typing.get_type_hints(type(base))
    for name, value in values.items():
        if name not in hints:
            near = difflib.get_close_matches(name, hints, n=1, cutoff=0.4)
            advice = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(hints)}"
            raise UserError(f"{where}: unknown field {name!r}; {advice}")
        if not is_unicode(json.dumps(value, ensure_ascii=False)):
            raise UserError(f"{where}: field {name!r} holds half of a surrogate pair; it is not valid Unicode")
    try:
        return dataclasses.replace(base, **values)  # type: ignore[type-var]
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
