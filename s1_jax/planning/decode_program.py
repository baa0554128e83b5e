"""Programs of a sweep as jitted by `decoding.device.programs`, compiled with abstract arrays for absent devices.

Letters: B slots, S tokens of a row's cache, P prompts of T tokens, R branches of a tile, V vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from s1_jax.chips import GIB
from s1_jax.config import S1, ModelConfig
from s1_jax.decoding.core.budget import Budget
from s1_jax.decoding.core.end_markers import Markers
from s1_jax.decoding.core.sampling import PhaseSampling, Sampling
from s1_jax.decoding.core.token_ids import IGNORE_STRINGS, IGNORE_WIDTH, NOTICE_WIDTH, NOTICES
from s1_jax.decoding.device.branches import BranchPoints
from s1_jax.decoding.device.programs import Program, Programs, bucket
from s1_jax.decoding.host.blocks import BLOCK_TOKENS, CHUNK
from s1_jax.decoding.host.slots import SPARE_SLOTS
from s1_jax.decoding.host.waves import TAIL_MULTIPLES, R, tiles_of
from s1_jax.errors import RunError
from s1_jax.model import stored_weights
from s1_jax.model.kv_cache import AXES, init_cache
from s1_jax.model.transformer import Params, abstract_params, param_axes, unstack
from s1_jax.planning.train_program import compile_lowered, local_bytes
from s1_jax.sharding import Layout

SUFFIX_TOKENS = 8  # about the longest suffix; the exact number depends on the tokenizer
PROMPT_TOKENS = 512  # a long question


class Sizes(NamedTuple):
    """Sizes of the arrays of a sweep."""

    rows: int  # B, decoded together
    capacity: int  # S, which is max_model_len for long rows
    max_answer_tokens: int
    draft_tokens: int = 0  # verified per row and step in addition to the next token
    prompt_tokens: int = PROMPT_TOKENS  # a block has as many such prompts as it may


class Types(NamedTuple):
    """Names of the types of computation, weights and cache."""

    compute: str
    weights: str
    cache: str


class Built(NamedTuple):
    """One compiled program of a sweep."""

    bytes: float  # in use on each chip while it runs, including all other arrays
    compiled: jax.stages.Compiled


class Sweep:
    """Compiler of a model's programs on the arrays of one sweep."""

    def __init__(
        self, config: ModelConfig, types: Types, layout: Layout, sizes: Sizes, suffix_tokens: int = SUFFIX_TOKENS
    ) -> None:
        self.sizes, self._layout = sizes, layout
        self.params = decode_params(config, types, layout)
        compute, _, kept = map(jnp.dtype, types)
        markers = self._everywhere(_markers(config.vocab_size, suffix_tokens))
        drafts = sizes.draft_tokens
        self._programs = Programs(config, self.params, markers, sizes.capacity, compute, kept, layout, drafts)
        self.state: Any = _compiled(self._programs.empty_slots, sizes.rows, sizes.capacity)[0]
        T = bucket(sizes.prompt_tokens, sizes.capacity)
        P = min(max(BLOCK_TOKENS // T, 1), 1 << (sizes.rows - 1).bit_length())
        self.block: Any = _compiled(self._programs.empty_block, P, T)[0]  # prompts that wait for slots

    def decode(self) -> jax.stages.Lowered:
        """Lower the decoding loop, of which every step reads caches of S tokens."""
        B = self.sizes.rows
        rows = self._everywhere((_budget(B), _sampling(B)))
        return self._programs.decode.lower(self.state, *rows, *_ints((), ()))

    def _everywhere(self, tree: Any) -> Any:
        """Place abstract arrays on all chips, as `Programs.everywhere` does with arrays."""
        on_all = self._layout.sharding()
        return jax.tree.map(lambda leaf: _placed(leaf, on_all), tree)

    def others(self, answers: bool = True) -> dict[str, Built]:
        """Compile the other programs, those of the answers of long traces only if there are `answers`.

        Each runs while all arrays of the sweep are there. Raises RunError for one that does not fit even alone.
        """
        B, S, most, *_ = self.sizes
        params, slots, programs = local_bytes(self.params), local_bytes(self.state), self._programs
        P, T = self.block.cache[0].keys.shape[0], self.block.cache[0].capacity
        built: dict[str, Built] = {}

        def build(name: str, beside: float, program: Program, *arguments: Any) -> Any:
            result, total, compiled = _compiled(program, *arguments)
            built[name] = Built(total + beside, compiled)
            return result

        chunk, start, lengths = _ints((P, min(T, CHUNK)), (), (P,))
        build("prefill", slots, programs.prefill, self.block, chunk, start, lengths)
        prompts = (self.block, *_ints((P, T)), lengths)
        filled = max(1, B // SPARE_SLOTS)
        of_slots = (_budget(B), _array((B,), bool), *_ints((filled,), (filled,)))
        build("fill", params, programs.fill, self.state, *prompts, *of_slots)
        first = self.state.cache[0]
        others = params + slots - local_bytes(first)
        build("growth", others, programs.resize_layer, first, S)
        if not answers:
            return built

        tiles = tiles_of(B, self._layout.size("batch"))
        copied = build("prefix", 0.0, programs.prefix_layer, first, *_ints((tiles,)), S)
        prefix = (copied,) * len(self.state.cache)
        built["prefix"] = built["prefix"]._replace(bytes=built["prefix"].bytes + others + local_bytes(prefix[1:]))
        multiple = TAIL_MULTIPLES["tpu"]
        tail = -(-(SUFFIX_TOKENS + most + 1) // multiple) * multiple
        points = BranchPoints(*_ints((tiles, R), (tiles, R)), *(_array((tiles, R), bool) for _ in range(2)))
        trunks = (prefix, *_ints((tiles,)), points, _budget(tiles))
        begun = build("suffixes", slots, programs.start_branches, tail, *trunks)
        build("answers", slots, programs.decode_branches, begun, *trunks, _sampling(tiles), *_ints(()))
        return built


def decode_params(config: ModelConfig, types: Types, layout: Layout) -> Params:
    """Return the parameters for decoding as shapes with shardings. Raises UserError if they cannot be divided."""
    kept = jnp.dtype(types.compute if types.weights == "int8" else types.weights)
    shapes = jax.eval_shape(unstack, abstract_params(config, kept))
    axes = param_axes(config)
    of_layer = jax.tree.map(lambda names: names[1:], axes["layers"], is_leaf=lambda names: type(names) is tuple)
    axes |= {"layers": dict.fromkeys(range(config.num_hidden_layers), of_layer)}
    params = jax.tree.map(_placed, shapes, layout.tree(axes, shapes))
    return jax.tree_util.tree_map_with_path(_rounded, params) if types.weights == "int8" else params


def _rounded(path: Any, leaf: jax.ShapeDtypeStruct) -> Any:
    """Return the abstract result of `stored_weights.quantize` for a parameter; scales are sharded as their values."""
    names = [key.key for key in path]
    if names[0] != "layers" or names[-1] != "kernel":
        return leaf
    sharding: Any = leaf.sharding
    of_scales = NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:2]))
    stored: Any = jax.eval_shape(stored_weights.rounded, leaf)
    return stored._replace(values=_placed(stored.values, sharding), scales=_placed(stored.scales, of_scales))


def cache_bytes(config: ModelConfig, types: Types, layout: Layout, sizes: Sizes) -> float:
    """Return the bytes of these rows' cache on one chip."""
    cache = jax.eval_shape(lambda: init_cache(config, sizes.rows, sizes.capacity, jnp.dtype(types.cache)))
    return local_bytes(jax.tree.map(lambda leaf: _placed(leaf, layout.sharding(*AXES[: leaf.ndim])), cache))


def _compiled(program: Program, *arguments: Any) -> tuple[Any, float, jax.stages.Compiled]:
    """Compile a program and return its results as shapes with shardings, its peak bytes on each chip, and itself.

    Raises RunError if it does not fit even alone.
    """
    lowered = program.lower(*arguments)
    compiled, total = compile_lowered(lowered)
    if compiled is None:
        raise RunError(f"a program of the sweep needs {total / GIB:.1f} GiB by itself; use fewer rows or more chips")
    return jax.tree.map(_placed, lowered.out_info, compiled.output_shardings), total, compiled


def _placed(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _array(shape: tuple[int, ...], dtype: Any) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)


def _ints(*shapes: tuple[int, ...]) -> list[Any]:
    return [_array(shape, jnp.int32) for shape in shapes]


def _markers(V: int, X: int) -> Markers:
    """Return abstract arrays of markers for s1's format and a tokenizer whose longest suffix has X tokens."""
    is_stop, is_known, is_newline = (_array((V,), bool) for _ in range(3))
    suffixes, suffix_lengths, end_lengths = _ints((3, X), (3,), (len(S1.end_markers) + 1,))
    bits, banned = (_array((V,), jnp.uint32) for _ in range(2))
    return Markers(bits, end_lengths, is_stop, is_known, is_newline, banned, suffixes, suffix_lengths)


def _budget(B: int) -> Budget:
    counts = iter(_ints(*[(B,)] * 12))
    notices = _ints((B, NOTICES), (B, NOTICES, NOTICE_WIDTH), (B, NOTICES))
    strings = _ints((B, IGNORE_STRINGS, IGNORE_WIDTH), (B, IGNORE_STRINGS))
    return Budget(
        min_thinking_tokens=next(counts),
        max_thinking_tokens=next(counts),
        grace_tokens=next(counts),
        num_ignore=next(counts),
        ignore_ids=strings[0],
        ignore_lengths=strings[1],
        ignore_count=next(counts),
        context_limit=next(counts),
        max_answer_tokens=next(counts),
        max_new_tokens=next(counts),
        max_free_tokens=next(counts),
        end_bias=_array((B,), jnp.float32),
        forcing=_array((B,), bool),
        thinking=_array((B,), bool),
        notice_at=notices[0],
        notice_ids=notices[1],
        notice_lengths=notices[2],
        banned=_array((B,), jnp.uint32),
        max_repetitions=next(counts),
        start_token=next(counts),
        given_tokens=next(counts),
        given_newline=_array((B,), bool),
    )


def _sampling(B: int) -> PhaseSampling:
    temperature, top_p, min_p = (_array((B,), jnp.float32) for _ in range(3))
    one = Sampling(temperature, _array((B,), jnp.int32), top_p, min_p, _array((B, 2), np.uint32))
    return PhaseSampling(one, one)
