"""End markers of one or several tokens, matched for all rows and all markers at once with the bits of an integer.

This is the Shift-And algorithm (Baeza-Yates and Gonnet 1992). The tokens of all end markers are written one marker
after the other, and each of them is one bit. Bit i of `BudgetState.marker_bits` says that a row's last tokens match a
marker from its first token up to the one that bit i stands for. The last marker is the answer's. It alone ends the
thinking of a row without forcing, and the others alone that of a row with forcing.

Letters: B rows, V vocabulary, E end markers, X tokens of a suffix.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from s1_jax.decoding.core.budget import Budget, BudgetState

MARKER_BITS = 32  # tokens that all end markers may have together: the bits of an integer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Markers:
    """Everything that the controller has to know of a tokenizer."""

    bits: Array  # uint32 [V], the tokens of end markers that a token of the vocabulary can stand for
    end_lengths: Array  # int32 [E], tokens of each marker, together at most MARKER_BITS
    is_stop: Array  # bool [V], the token ends an answer
    is_known: Array  # bool [V], the tokenizer has this id (embeddings are padded beyond)
    is_newline: Array  # bool [V], the token's text ends in a newline
    banned: Array  # uint32 [V], bit i: the token is on list i of words that are banned (`Budget.banned`)
    suffixes: Array  # int32 [3, X], see Suffix
    suffix_lengths: Array  # int32 [3]


def follow(markers: Markers, marker_bits: Array, token: Array) -> Array:
    """Bring `marker_bits` [B] up to date with one more token [B]."""
    first, _ = _first_and_last(markers)
    return (marker_bits * 2 | first.sum(dtype=jnp.uint32)) & markers.bits[token]


def whole(budget: Budget, markers: Markers, marker_bits: Array) -> Array:
    """Count the tokens of the longest end marker that the last tokens complete; int32 [B], 0: none."""
    _, last = _first_and_last(markers)
    completes = (marker_bits & _bits_of_row(budget, markers))[:, None] & last[None] != 0
    return jnp.where(completes, markers.end_lengths[None], 0).max(axis=1)


def begun(budget: Budget, markers: Markers, marker_bits: Array) -> Array:
    """Count the last tokens, as many as possible, that begin an end marker without completing it; int32 [B]."""
    ends, bits = jnp.cumsum(markers.end_lengths), jnp.arange(MARKER_BITS)
    first_of_marker = jnp.where(ends[None] <= bits[:, None], ends[None], 0).max(axis=1)
    lengths = jnp.where(jnp.isin(bits + 1, ends), 0, bits + 1 - first_of_marker)
    matches = (marker_bits & _bits_of_row(budget, markers))[:, None] >> bits.astype(jnp.uint32)[None] & 1 == 1
    return jnp.where(matches, lengths[None], 0).max(axis=1)


def undecided(budget: Budget, markers: Markers, state: BudgetState) -> Array:
    """Tell whether the last tokens may become an end marker and be taken back; bool [B]."""
    return begun(budget, markers, state.marker_bits) > 0


def next_tokens(budget: Budget, markers: Markers, state: BudgetState, forced_thinking: Array) -> tuple[Array, Array]:
    """Find the tokens that continue an end marker, and those that do not complete one too early; both bool [B, V].

    An end is too early where its marker begins below the minimum of thinking tokens or right after an ignore string.
    That holds for rows that are `forced_thinking` [B]: they think, and with forcing.
    """
    first, last = (of_marker[None] for of_marker in _first_and_last(markers))
    before_last = markers.end_lengths[None] - 1
    lacks_last = (before_last == 0) | (state.marker_bits[:, None] & last // 2 != 0)
    early = state.num_thinking[:, None] - before_last < budget.min_thinking_tokens[:, None]
    early |= (state.ignores_used[:, None] > 0) & (state.num_sampled[:, None] == before_last)
    of_row = _bits_of_row(budget, markers)
    too_early = jnp.where(forced_thinking[:, None] & lacks_last & early, last, 0).sum(axis=1, dtype=jnp.uint32) & of_row
    matched = state.marker_bits[:, None] & (last * 2 - first)  # within each marker
    longest = jnp.uint32(1) << (MARKER_BITS - 1 - jax.lax.clz(matched))
    following = jnp.where(matched == 0, first, longest * 2).sum(axis=1, dtype=jnp.uint32) & of_row
    bits = markers.bits[None]
    return bits & following[:, None] != 0, bits & too_early[:, None] == 0


def _bits_of_row(budget: Budget, markers: Markers) -> Array:
    """Select the markers that may end the thinking of each row, as a mask uint32 [B]."""
    first, last = _first_and_last(markers)
    answer = last[-1] * 2 - first[-1]
    return jnp.where(budget.forcing, ~answer, answer)


def _first_and_last(markers: Markers) -> tuple[Array, Array]:
    """Give the bits of each marker's first and last token, uint32 [E]."""
    ends = jnp.cumsum(markers.end_lengths)
    one = jnp.uint32(1)
    return one << (ends - markers.end_lengths).astype(jnp.uint32), one << (ends - 1).astype(jnp.uint32)
