"""End markers of one or several tokens, matched over all rows and all markers at once.

Letters: B rows, V vocabulary, E end markers, X tokens of a suffix.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from s1_jax.decoding.core.budget import Budget, BudgetState

PLACES = 32  # tokens that all end markers may have together: the bits of an integer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Markers:
    """What the controller has to know of a tokenizer."""

    # The places of all end markers, one marker's behind the other's, are the bits of an integer. The last marker is the
    # answer's, which alone ends the thinking of a row without forcing.
    places: Array  # uint32 [V], the places at which a token may stand
    end_lengths: Array  # int32 [E], tokens of each marker, together at most 32
    is_stop: Array  # bool [V], an end of the answer
    is_known: Array  # bool [V], the tokenizer has this id (embeddings are padded beyond)
    is_newline: Array  # bool [V], the token's text ends in a newline
    suffixes: Array  # int32 [3, X], see Suffix
    suffix_lengths: Array  # int32 [3]


def undecided(budget: Budget, markers: Markers, state: BudgetState) -> Array:
    """Whether the last tokens may become an end marker, and be taken back; bool [B]."""
    return begun(budget, markers, state.written) > 0


def follow(markers: Markers, written: Array, token: Array) -> Array:
    """`written` one token [B] later: the Shift-And algorithm (Baeza-Yates and Gonnet 1992) over all markers at once."""
    first, _ = first_and_last(markers)
    return (written * 2 | first.sum(dtype=jnp.uint32)) & markers.places[token]


def whole(budget: Budget, markers: Markers, written: Array) -> Array:
    """Tokens of the longest end marker that the row's last tokens are, 0: none; int32 [B]."""
    _, last = first_and_last(markers)
    whole = (written & bits_of_row(budget, markers))[:, None] & last != 0
    return jnp.where(whole, markers.end_lengths, 0).max(axis=1)


def begun(budget: Budget, markers: Markers, written: Array) -> Array:
    """The most last tokens that an end marker begins with, without being whole; int32 [B]."""
    ends, places = jnp.cumsum(markers.end_lengths), jnp.arange(PLACES)
    begins = jnp.where(ends <= places[:, None], ends, 0).max(axis=1)  # the first place of the marker of each place
    lengths = jnp.where(jnp.isin(places + 1, ends), 0, places + 1 - begins)
    begun = (written & bits_of_row(budget, markers))[:, None] >> places.astype(jnp.uint32) & 1 == 1
    return jnp.where(begun, lengths, 0).max(axis=1)


def bits_of_row(budget: Budget, markers: Markers) -> Array:
    """The places of the markers that may end the thinking of each row, uint32 [B]."""
    first, last = first_and_last(markers)
    answer = last[-1] * 2 - first[-1]
    return jnp.where(budget.forcing, ~answer, answer)


def first_and_last(markers: Markers) -> tuple[Array, Array]:
    """The first and the last place of each marker, uint32 [E]."""
    ends = jnp.cumsum(markers.end_lengths)
    one = jnp.uint32(1)
    return one << (ends - markers.end_lengths).astype(jnp.uint32), one << (ends - 1).astype(jnp.uint32)
