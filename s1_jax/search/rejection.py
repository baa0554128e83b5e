"""Rejection sampling: a run is drawn again until its thinking ends by itself within the budget (paper, section 5.2).

The reference draws for ever; here a number of tries ends it, and what the last of them gave stands as it is: cut, with
a forced answer.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.engine import Engine, Progress, Status

TRY_APART = 2**20  # a try draws as a sample so many further on would: no run has that many


def sample_until_natural(
    engine: Engine, requests: Sequence[Request], max_tries: Sequence[int], progress: Progress | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Records of the requests with their places, as they are done: of each the first try whose end is natural.

    One round asks at once for another try of all that have none yet; requests that differ in their budget alone share
    it. Records have two fields more: `tries`, and `tried_tokens`, the thinking tokens of all tries. `max_tries` are
    those of each request. Raises UserError as `Engine.run_shared` does.
    """
    left, tokens, done = list(range(len(requests))), Counter[int](), 0

    def show(status: Status) -> None:
        if progress is not None:
            progress(status._replace(done=done, total=len(requests)))

    for number in itertools.count(1):
        asked = [_again(requests[place], number - 1) for place in left]
        rejected = []
        for i, record in engine.run_shared(asked, show):
            place = left[i]
            tokens[place] += record["num_thinking_tokens"]
            if record["end"] != "natural" and number < max_tries[place]:
                rejected.append(place)
                continue
            done += 1
            yield (
                place,
                record | {"sample": requests[place].sample, "tries": number, "tried_tokens": tokens[place]},
            )
        left = sorted(rejected)
        if not left:
            return


def _again(request: Request, tries: int) -> Request:
    return dataclasses.replace(request, sample=request.sample + tries * TRY_APART)
