"""Settings of rotary positions in a model's `config.json`, read as transformers reads them.

Traps, all of them transformers' rules: where `rope_scaling` and `rope_parameters` are both there, `rope_scaling` wins
whole; a `rope_theta` within it wins over the one beside it; `rope_type` wins over `type`; an
`original_max_position_embeddings` beside it wins over the one within; a null is not always the default.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterable
from typing import Any

from s1_jax.config.model_fields import LARGEST, Fields
from s1_jax.errors import UserError

THETA = 10000.0
PART = "partial_rotary_factor"
COMMON = {"rope_type", "type", "rope_theta", PART}
_LENGTH = "original_max_position_embeddings"
KINDS: dict[str, set[str]] = {  # what each reads beside COMMON
    "default": set(),
    "yarn": {"factor", _LENGTH, "beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim", "truncate"},
    "linear": {"factor"},
    "dynamic": {"factor"},
    "llama3": {"factor", _LENGTH, "low_freq_factor", "high_freq_factor"},
    "longrope": {"factor", _LENGTH, "short_factor", "long_factor", "attention_factor"},
    "proportional": {"factor"},
}


@dataclasses.dataclass(frozen=True)
class YarnScaling:
    """YaRN (arXiv 2309.00071), with Hugging Face's names and defaults."""

    factor: float
    original_max_position_embeddings: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None  # None: 0.1 ln(factor) + 1
    truncate: bool = True  # whether the ramp begins and ends at whole dimensions


@dataclasses.dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3.1's frequencies: those with few rotations over the original length are divided by `factor`.

    Below `low_freq_factor` rotations they are divided, above `high_freq_factor` kept, and mixed linearly in between.
    """

    factor: float
    original_max_position_embeddings: int
    low_freq_factor: float
    high_freq_factor: float


RopeScaling = YarnScaling | Llama3Scaling


def read_rope(
    config: Fields, head_dim: int, max_position_embeddings: int, layer_types: Iterable[str]
) -> tuple[float, RopeScaling | None]:
    """Return theta and the scaling, which is None for plain RoPE. Raises UserError on any other scaling."""
    scaling, parameters = config.section("rope_scaling"), config.section("rope_parameters")
    rope = scaling if scaling.values else parameters
    if nested := [key for key in rope.values if key in set(layer_types)]:
        raise UserError(f"{rope.source} has settings of its own for {nested[0]}; one for all layers is supported")
    theta = (rope if "rope_theta" in rope else config).number("rope_theta", THETA, above=True)
    named = "rope_type" if "rope_type" in rope else "type"
    kind = rope.values.get(named, "default")
    if not isinstance(kind, str) or kind not in KINDS:
        rope.refuse(named, kind, f"it must be one of {', '.join(KINDS)}")
    if unknown := sorted(set(rope.values) - COMMON - KINDS[kind]):
        # as transformers does, which names them and goes on
        warnings.warn(f"{rope.source} of type {kind!r}: nothing reads {', '.join(unknown)}", stacklevel=1)
    if kind == "default":
        for fields in (config, rope):
            if fields.given(PART):
                fields.number(PART)  # looked at by no plain RoPE
        return theta, None
    _check_whole_heads(config, rope, head_dim)
    original = _original_length(config, rope, max_position_embeddings) if _LENGTH in KINDS[kind] else 0
    if kind == "yarn":
        if theta == 1:
            rope.refuse("rope_theta", theta, "YaRN divides by its logarithm")
        return theta, _yarn(rope, original, max_position_embeddings)
    if _is_plain(rope, kind, original, head_dim, max_position_embeddings):
        return theta, None
    if kind == "llama3":
        return theta, _llama3(rope, original)
    raise UserError(f"{rope.source} of type {kind!r} is not supported; 'yarn' and 'llama3' are")


def write_rope(scaling: RopeScaling | None) -> dict[str, Any] | None:
    """Return the `rope_scaling` of a `config.json` that transformers 4 and 5 read as this scaling."""
    if scaling is None:
        return None
    kept = dataclasses.asdict(scaling).items()
    kind = "yarn" if isinstance(scaling, YarnScaling) else "llama3"
    return {"rope_type": kind, **{k: v for k, v in kept if v is not None and (k, v) != ("truncate", True)}}


def _original_length(config: Fields, rope: Fields, max_position_embeddings: int) -> int:
    value = (config if _LENGTH in config else rope).number(_LENGTH, max_position_embeddings, least=1, most=LARGEST)
    return int(value) if value == int(value) else value  # type: ignore[return-value]  # transformers takes any number


def _factor(rope: Fields, original: float, max_position_embeddings: int) -> float:
    if not rope.given("factor"):
        return max_position_embeddings / original
    return rope.number("factor", above=True, most=LARGEST)


def _yarn(rope: Fields, original: int, max_position_embeddings: int) -> YarnScaling:
    if "factor" not in rope:
        raise UserError(f"{rope.source} of type 'yarn' needs a factor")
    factor = _factor(rope, original, max_position_embeddings)

    def or_default(name: str, default: float) -> float:
        return (rope.number(name) if rope.given(name) else 0) or default

    attention_factor = rope.number("attention_factor", above=True) if rope.given("attention_factor") else None
    mscale, all_dim = or_default("mscale", 0), or_default("mscale_all_dim", 0)
    if attention_factor is None and mscale and all_dim and factor > 1:
        attention_factor = (0.1 * mscale * math.log(factor) + 1) / (0.1 * all_dim * math.log(factor) + 1)
    return YarnScaling(
        factor=factor,
        original_max_position_embeddings=original,
        beta_fast=or_default("beta_fast", 32.0),
        beta_slow=or_default("beta_slow", 1.0),
        attention_factor=attention_factor,
        truncate=rope.values.get("truncate", True) is not None and rope.flag("truncate", True),
    )


def _llama3(rope: Fields, original: int) -> Llama3Scaling:
    factor = rope.number("factor", above=True, most=LARGEST)
    low, high = (rope.number(name, above=True) for name in ("low_freq_factor", "high_freq_factor"))
    if low >= high:
        rope.refuse("high_freq_factor", high, f"it must be above low_freq_factor, {low}")
    return Llama3Scaling(factor, original, low, high)


def _is_plain(rope: Fields, kind: str, original: float, head_dim: int, max_position_embeddings: int) -> bool:
    """Whether a kind other than YaRN, with these settings, turns every position as plain RoPE does."""
    if kind == "longrope":
        factors = [rope.values.get(name) for name in ("short_factor", "long_factor")]
        ones = all(
            isinstance(x, list) and len(x) == head_dim // 2 and set(map(repr, x)) <= {"1", "1.0"} for x in factors
        )
        factor = _factor(rope, original, max_position_embeddings)
        on_angles = rope.number("attention_factor") == 1 if rope.given("attention_factor") else factor <= 1
        return ones and on_angles
    if kind == "dynamic":
        return False  # beyond the model's context it changes with the length of the text, whatever its factor
    if rope.values.get("factor", 1 if kind == "proportional" else None) != 1:
        return False
    return kind != "llama3" or rope.number("low_freq_factor", above=True) != rope.number("high_freq_factor", above=True)


def _check_whole_heads(config: Fields, rope: Fields, head_dim: int) -> None:
    """Raise UserError if only a part of each head is rotated."""
    fields = rope if PART in rope else config
    if fields is rope or fields.given(PART):
        part = fields.number(PART)
        if int(head_dim * part) != head_dim:
            fields.refuse(PART, part, "every head must be turned whole")
