"""The one place where a model becomes engines: its mesh, the types of its arrays, its stop tokens and its batch.

Every command that decodes, and the Python API, call `load_model`. Letters: B batch, T length, V vocab.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from transformers import PreTrainedTokenizerBase

from s1_jax.checkpoints import hf
from s1_jax.checkpoints.stops import declared_stops
from s1_jax.chips import resolve_dtype
from s1_jax.config import AUTO, S1, BudgetConfig, FormatConfig, MeshConfig, ModelConfig, SamplingConfig, StoredConfig
from s1_jax.config.budget import AUTO_MARKER
from s1_jax.data.chat import prompt_ids
from s1_jax.data.formats import resolve_format
from s1_jax.data.look_alikes import LookAlikes
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.device.programs import Program
from s1_jax.decoding.engine import Engine
from s1_jax.decoding.host.results import NOT_FINITE
from s1_jax.decoding.host.slots import rows_at_a_time
from s1_jax.errors import RunError, UserError
from s1_jax.model import transformer
from s1_jax.runtime.compilation import keep_compiled_programs, power_of_two
from s1_jax.runtime.overrides import override
from s1_jax.runtime.texts import NOT_UNICODE, SHOWN, is_unicode
from s1_jax.sharding import DECODE_RULES, Layout, devices_for, make_mesh, to_host

T = TypeVar("T")

ONE_DEVICE = MeshConfig(data=1, fsdp=1, context=1, tensor=1)
SHORTEST_LOGITS = 16  # T of the shortest program of `LoadedModel.logits`
TYPES = ("auto", "float32", "bfloat16")


@dataclasses.dataclass(eq=False)
class LoadedModel:
    """A model on its devices, with its tokenizer: it computes logits, generates, and makes engines.

    `load_model` returns one. `dtype` is the type of products and `cache_dtype` that of the KV cache. `stops` are the
    tokens that the model's files declare as ends of its texts. `layout` says where the arrays lie, by default
    on one device, and `format` how the model marks its thinking.
    """

    config: ModelConfig
    params: transformer.Params
    tokenizer: PreTrainedTokenizerBase
    dtype: Any
    cache_dtype: Any
    stops: Sequence[int] = ()
    layout: Layout = dataclasses.field(default_factory=lambda: decoding_layout(ONE_DEVICE))
    format: FormatConfig = S1

    def __post_init__(self) -> None:
        self.dtype, self.cache_dtype = jnp.dtype(self.dtype), jnp.dtype(self.cache_dtype)
        self._engines: dict[tuple[Any, ...], Engine] = {}
        self._logits = Program(self._compute_logits, (self.params,), self.layout)

    def rows(self, batch_size: int, runs: int | None = None) -> int:
        """Return how many rows a batch has: `batch_size`, or enough for all `runs` where there are fewer.

        Enough is the next power of two, so that few sizes are compiled. The result is rounded up to a multiple of the
        pieces that the mesh cuts a batch into.
        """
        parts = self.layout.size("batch")
        return rows_at_a_time(batch_size, batch_size if runs is None else runs, parts)

    def engine(
        self,
        max_model_len: int | None = None,
        batch_size: int = 8,
        format: FormatConfig | None = None,
        draft_tokens: int = 0,
        *,
        runs: int | None = None,
        scores: bool = False,
    ) -> Engine:
        """Return the engine of these sizes; it is made, and its programs are compiled, once.

        `max_model_len` is in tokens (none: the model's context), `batch_size` and `runs` are as in `rows`, `format` is
        how the model marks its thinking (none: the one it was loaded with), and `draft_tokens` are drafted ahead in
        each step. `scores` are as in Engine. Raises UserError where the model or its tokenizer cannot have them.
        """
        format = self.format if format is None else resolve_format(format, self.tokenizer)[0]
        key = (max_model_len, self.rows(batch_size, runs), format, draft_tokens, scores)
        if key not in self._engines:
            self._engines[key] = Engine(
                self.config,
                self.params,
                self.tokenizer,
                max_model_len=max_model_len,
                batch_size=key[1],
                dtype=self.dtype,
                cache_dtype=self.cache_dtype,
                layout=self.layout,
                format=format,
                draft_tokens=draft_tokens,
                stops=self.stops,
                scores=scores,
            )
        return self._engines[key]

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
        format: FormatConfig | None = None,
    ) -> list[dict[str, Any]]:
        """Return a record for each prompt, in order.

        A prompt is a string, which is a user message for the chat template, or a list of token ids. The start marker of
        `format` (none: the one the model was loaded with) is appended to prompts that do not end in it. `budget` and
        `sampling` hold fields of BudgetConfig and SamplingConfig. `draft_tokens` are drafted ahead in each step and
        change no token. Without `thinking` no start marker is appended and no budget can be given: the answer begins at
        once. Warns about messages that contain the text of a special token. Raises UserError on what cannot be decoded,
        and RunError where the model's logits are not finite.
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
            dataclasses.replace(shared, prompt_token_ids=self.prompt_token_ids(prompt, thinking), name=f"prompt {i}")
            for i, prompt in enumerate(prompts)
        ]
        if line := self.look_alikes((f"prompt {i}", prompt) for i, prompt in enumerate(prompts)):
            warnings.warn(line, stacklevel=2)
        engine = self.engine(max_model_len, batch_size, format, draft_tokens, runs=len(requests))
        return list(engine.run(requests))

    def prompt_token_ids(self, prompt: str | Sequence[int], thinking: bool = True) -> tuple[int, ...]:
        """Return the token ids of a user message put through the chat template, or the ids that are given as they are.

        Templates with a switch for thinking, as Qwen3's, are told whether the answer is to come with `thinking`.
        Raises UserError on a message that is not valid Unicode.
        """
        if not isinstance(prompt, str):
            return tuple(map(int, prompt))
        if not is_unicode(prompt):
            raise UserError(f"the prompt {prompt[:SHOWN]!a} {NOT_UNICODE}")
        return tuple(prompt_ids(self.tokenizer, prompt, thinking))

    def look_alikes(self, prompts: Iterable[tuple[str, Any]]) -> str | None:
        """Return a line about the user messages that contain the text of a special token; None where none does.

        `prompts` are pairs of a name, which the line may quote, and a prompt; those given as token ids are passed over.
        """
        found = LookAlikes(self.tokenizer)
        for name, prompt in prompts:
            if isinstance(prompt, str):
                found.look(name, (prompt,))
        return found.told("prompts")

    def logits(self, token_ids: Any, attention_mask: Any = None) -> np.ndarray:
        """Return logits [B, T, V] float32 of `token_ids` [B, T] ints: row t scores the token after t.

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
        padding = (0, self.rows(power_of_two(B)) - B), (0, max(power_of_two(T), SHORTEST_LOGITS) - T)
        padded = (np.pad(x.astype(np.int32), padding) for x in (ids, mask))
        found = to_host(self._logits(*padded))[:B, :T].copy()  # not a view that keeps all the padding
        lost = np.argwhere(~np.isfinite(found.max(axis=-1)) & (mask != 0))
        if len(lost):
            row, token = lost[0]
            raise RunError(f"row {row}: the model's logits are not finite at token {token + 1}; {NOT_FINITE}")
        return found

    def _compute_logits(self, params: transformer.Params, token_ids: jax.Array, mask: jax.Array) -> jax.Array:
        positions = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
        hidden = transformer.hidden_states(self.config, params, token_ids, positions, mask, compute_dtype=self.dtype)
        return transformer.logits(self.config, params, hidden)


def load_model(
    path: str | Path,
    dtype: str = "float32",
    stored: StoredConfig | Mapping[str, Any] = StoredConfig(),
    *,
    mesh: MeshConfig | Mapping[str, Any] | None = None,
    format: FormatConfig | Mapping[str, Any] | Literal["auto"] = S1,
) -> LoadedModel:
    """Load a model for decoding from a folder or a hub id in Hugging Face layout.

    `dtype` is the type of products: "float32", "bfloat16", or "auto" (float32 on CPU, bfloat16 on accelerators).
    `stored` says what weights and cache are kept in. `format` says how the model marks its thinking; "auto" reads that
    from the tokenizer, and the result's `format` has what was found. `mesh` is the number of
    devices along each mesh axis, such as `{"tensor": 8}`; none is one device. Each weight is read straight into its
    pieces: no device ever holds more of it than its piece. Every config may be a mapping of its fields.

    Raises UserError where there is no such model, it is of an architecture that is not supported, or it does not fit
    the mesh.
    """
    if isinstance(format, str) and format != AUTO_MARKER:
        raise UserError(f"format {format!r} is neither 'auto' nor a FormatConfig")
    if dtype not in TYPES:
        raise UserError(f"dtype {dtype!r} is not {', '.join(TYPES[:-1])} or {TYPES[-1]}")
    sizes = ONE_DEVICE if mesh is None else _config(MeshConfig(), mesh, "mesh")
    stored = _config(StoredConfig(), stored, "stored")
    marked = AUTO if isinstance(format, str) else _config(S1, format, "format")
    keep_compiled_programs()
    compute = resolve_dtype(dtype)
    layout = decoding_layout(sizes)
    config, params = hf.load_for_decoding(path, stored, compute, layout)
    tokenizer = hf.load_tokenizer(path)
    return LoadedModel(
        config,
        params,
        tokenizer,
        compute,
        stored.resolved(compute.name).cache,
        declared_stops(path, config.vocab_size),
        layout,
        resolve_format(marked, tokenizer)[0],
    )


def decoding_layout(mesh: MeshConfig) -> Layout:
    """Return the layout of a model that decodes on `mesh`. Raises UserError where its sizes do not fit the devices."""
    return Layout(make_mesh(mesh, devices_for(mesh)), DECODE_RULES)


def _config(base: T, given: T | Mapping[str, Any], where: str) -> T:
    return override(base, given, where) if isinstance(given, Mapping) else given
