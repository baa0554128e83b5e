"""What the rows of a state hold, read back to the host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from s1_jax.decoding.core.budget import Kind
from s1_jax.decoding.core.loop import ALL_FINITE, DecodeState
from s1_jax.decoding.core.traces import Trace
from s1_jax.errors import RunError
from s1_jax.sharding import to_host

NOT_FINITE = "weights that are NaN or infinite, or too narrow a dtype, give this"


def check_logits(lost_at: np.ndarray, runs: Iterable[int], names: Sequence[str] | Mapping[int, str]) -> None:
    """Raise RunError, naming run and step, where the logits of one of the `runs` were not finite.

    `lost_at` [B] is that of a state. `runs` [B] tells the run that each row decodes, as an index into `names`; a
    negative one is none.
    """
    lost = [(int(run), int(at)) for run, at in zip(runs, lost_at, strict=True) if run >= 0 and at != ALL_FINITE]
    if lost:
        run, at = min(lost)
        raise RunError(f"{names[run]}: the model's logits are not finite at step {at + 1}; {NOT_FINITE}")


def traces_of(state: DecodeState) -> list[Trace]:
    """Read the trace that each row of a state holds; the state is that of the budget controller."""
    rows = state.controller_state
    tokens, kinds, lengths = to_host((state.tokens, state.kinds, state.num_tokens))
    own_marker, num_thinking, *how = to_host(
        (rows.own_marker, rows.num_thinking, rows.end, rows.answer_end, rows.ignores_used)
    )
    kinds = kinds.copy()
    for i in np.flatnonzero(own_marker):  # the model's own marker is known as such once it is complete
        first = num_thinking[i]
        kinds[i, first : first + own_marker[i]] = int(Kind.SUFFIX)
    ends = zip(lengths, *how, strict=True)
    return [Trace(tokens[i, :n], kinds[i, :n], *map(int, end)) for i, (n, *end) in enumerate(ends)]
