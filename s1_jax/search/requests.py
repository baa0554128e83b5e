"""Searches over the requests of an engine, a limited number of problems at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from s1_jax.config import SearchConfig, StepConfig
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.engine import Engine
from s1_jax.decoding.tree import Tree
from s1_jax.records import Record
from s1_jax.search.run import Extract, search_all
from s1_jax.search.verifier import Verifier
from s1_jax.tasks.classes import Classes, text_classes

TREES = 4  # problems per tree of requests, as a multiple of those searched at a time


def search_requests(
    engine: Engine,
    requests: Sequence[Request],
    questions: Sequence[str],
    search: SearchConfig,
    steps: StepConfig,
    verifier: Verifier | None,
    extract: Extract,
    progress: Callable[[int], None],
    classes: Classes = text_classes,
) -> Iterator[tuple[int, Record]]:
    """Yield the index and the record of each request's search when it is done (see `run.search_all`).

    Runs grow by `steps` if the method needs them. `progress` gets the number of finished searches. Answers of one class
    of `classes` count as the same answer in the vote. Raises UserError as `Engine.check` and `search_all` do.
    """
    at_once = search.problems_at_a_time * TREES
    for first in range(0, len(requests), at_once):
        tree = Tree(engine, requests[first : first + at_once], steps if search.by_steps else StepConfig(None))

        def show(done: int, before: int = first) -> None:
            progress(before + done)

        found = search_all(tree, search, questions[first : first + at_once], verifier, extract, show, classes)
        for index, record in found:
            yield first + index, record
