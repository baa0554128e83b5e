"""Rejection sampling repeats a run until its thinking ends naturally within the budget (s1 paper, section 5.2).

The reference implementation samples without limit. Here, the number of tries is limited, and the last try is kept even
if its thinking was cut and its answer forced.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.engine import Engine, Progress, Status
from s1_jax.records import Record, make

TRY_APART = 2**20  # sample numbers between two tries, more than any run has samples: each try has its own seed


def sample_until_natural(
    engine: Engine, requests: Sequence[Request], max_tries: Sequence[int], progress: Progress | None = None
) -> Iterator[tuple[int, Record]]:
    """Yield the index and the record of each request when it is done: the first try that ends naturally, or the last.

    Each round samples another try of all requests that are not done; requests that differ only in their budget share
    it. Records have two more fields: `tries`, and `tried_tokens`, the thinking tokens of all tries. `max_tries` holds
    one limit per request. Raises UserError as `Engine.run_shared` does.
    """
    left, tokens, done = list(range(len(requests))), Counter[int](), 0

    def show(status: Status) -> None:
        if progress is not None:
            progress(status._replace(done=done, total=len(requests)))

    for number in itertools.count(1):
        asked = [_again(requests[index], number - 1) for index in left]
        rejected = []
        for i, record in engine.run_shared(asked, show):
            index = left[i]
            tokens[index] += record["num_thinking_tokens"]
            if record["end"] != "natural" and number < max_tries[index]:
                rejected.append(index)
                continue
            done += 1
            sample = requests[index].sample
            yield index, make.tried(record, sample=sample, tries=number, tried_tokens=tokens[index])
        left = sorted(rejected)
        if not left:
            return


def _again(request: Request, tries: int) -> Request:
    return dataclasses.replace(request, sample=request.sample + tries * TRY_APART)
