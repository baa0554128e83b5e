"""The thread that decodes: jobs come to it from the event loop, and their events go back there."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from s1_jax.decoding.core.scores import NOTHING, OWN, WITH_LIKELIEST
from s1_jax.decoding.engine import Engine
from s1_jax.decoding.host.blocks import Runs
from s1_jax.decoding.queue import News, Queue, Scored
from s1_jax.serving.generation import Generation

# steps between two looks at the queue: as many as fit into the seconds, but no more than these
SILENT = 0.1, 32  # while nobody reads along
STREAMED = 0.02, 4  # while somebody does
AWAITED = 0.02, 1  # while somebody waits for a first token and a row is free for it
MOST_READ = 256  # tokens of prompts between two steps, in whole chunks, while somebody reads along
FORGETS = 0.8  # of what was known of a step's time, at each look


@dataclasses.dataclass(eq=False)
class Job:
    """One generation on its way: its choices and the queue in which their news arrive, in the event loop."""

    generation: Generation
    runs: Runs
    news: asyncio.Queue[tuple[int, News] | None] = dataclasses.field(default_factory=asyncio.Queue)  # None: hung up
    numbers: list[int] = dataclasses.field(default_factory=list)  # of its runs; those of the thread alone
    left: int = 0  # choices that have not ended

    def hang_up(self) -> None:
        """Tell the reader of the news that no more are wanted."""
        self.news.put_nowait(None)


@dataclasses.dataclass
class _Choice:
    """A choice that waits or is being decoded."""

    job: Job
    index: int  # within the job
    kept: list[News] | None  # its news so far, where nobody reads along; else None
    begun: bool = False  # whether its first token has come


class Worker(threading.Thread):
    """The thread of the engine, which decodes until it is ended.

    All methods are called from the event loop. `failed` is called there too, where the engine fails.
    """

    def __init__(self, engine: Engine, queue: Queue, failed: Callable[[BaseException], None]) -> None:
        super().__init__(name="engine", daemon=True)
        self._engine, self._queue, self._failed = engine, queue, failed
        self._loop = asyncio.get_running_loop()
        self._asked = threading.Condition()
        self._inbox: collections.deque[Callable[[], None]] = collections.deque()
        self._ending = False
        self._choices: dict[int, _Choice] = {}  # by the number of the run
        self._step_seconds = 0.0
        self._checking = threading.Lock()  # checks may come from several threads
        self.running = 0  # choices that are being decoded
        self.decoded_tokens = 0  # thinking and answer tokens since the server began, forced ones included
        self.open: set[Job] = set()  # jobs that have been submitted and have not ended; of the event loop

    @property
    def open_choices(self) -> int:
        """The number of choices that wait or are being decoded."""
        return sum(job.left for job in self.open)

    @property
    def waiting(self) -> int:
        """The number of choices that wait for a slot."""
        return max(self.open_choices - self.running, 0)

    def prepare(self, generation: Generation) -> Job:
        """Check a generation and make its arrays; this may be called from any thread. Raises UserError."""
        with self._checking:
            for request in dict.fromkeys(generation.requests):
                self._engine.check(request)
        top = generation.logprobs
        wanted = NOTHING if top is None else WITH_LIKELIEST if top else OWN
        count = len(generation.requests)
        prompt_scores = [generation.echo and top is not None] * count
        runs = self._engine.runs(generation.requests, [wanted] * count, prompt_scores if any(prompt_scores) else None)
        return Job(generation, runs, left=count)

    def submit(self, job: Job) -> None:
        """Let a job's choices wait for slots."""
        self.open.add(job)
        self._ask(lambda: self._submit(job))

    def close(self, job: Job) -> None:
        """Forget a job, whether it has ended or not."""
        if job in self.open:
            self.open.discard(job)
            self._ask(lambda: self._cancel(job))

    def end(self) -> None:
        """End the thread after what it is doing now."""
        with self._asked:
            self._ending = True
            self._asked.notify()

    def run(self) -> None:
        """Decode until `end` is called."""
        try:
            while self._take():
                if not self._queue.idle:
                    self._tell(self._look())
        except BaseException as error:
            self._loop.call_soon_threadsafe(self._failed, error)

    def _ask(self, act: Callable[[], None]) -> None:
        with self._asked:
            self._inbox.append(act)
            self._asked.notify()

    def _take(self) -> bool:
        """Do what was asked; where there is nothing to do, wait. Return whether to go on."""
        with self._asked:
            while not (self._inbox or self._ending) and self._queue.idle:
                self._asked.wait()
            acts = [*self._inbox]
            self._inbox.clear()
            ending = self._ending
        for act in acts:
            act()
        return not ending

    def _submit(self, job: Job) -> None:
        job.numbers = self._queue.submit(job.generation.requests, job.runs)
        for choice, number in enumerate(job.numbers):
            self._choices[number] = _Choice(job, choice, None if job.generation.stream else [])

    def _cancel(self, job: Job) -> None:
        left = [number for number in job.numbers if self._choices.pop(number, None) is not None]
        self._queue.cancel(left)
        self.running = self._queue.num_running

    def _look(self) -> list[News]:
        found = self._queue.look(*self._pace())
        self.running, self.decoded_tokens = self._queue.num_running, self._engine.use.tokens
        self._step_seconds = FORGETS * self._step_seconds + (1 - FORGETS) * self._queue.step_seconds
        return found

    def _pace(self) -> tuple[int, int | None]:
        """Choose the steps until the next look, and the tokens of prompts that may be read before them.

        Both are few while somebody reads along or waits for a first token.
        """
        streams = [choice for choice in self._choices.values() if choice.kept is None]
        free = self._queue.num_running < self._engine.batch_size
        awaited = free and any(not choice.begun for choice in streams)
        seconds, most = AWAITED if awaited else STREAMED if streams else SILENT
        steps = int(np.clip(seconds / max(self._step_seconds, 1e-6), 1, most))
        return steps, MOST_READ if streams else None

    def _tell(self, found: Sequence[News]) -> None:
        """Send news to the event loop: at once where they are read along, else with the last of their choice."""
        told: list[tuple[Job, int, News]] = []
        for news in found:
            choice = self._choices[news.number]
            choice.begun = True
            if news.ended is not None:
                del self._choices[news.number]
            if choice.kept is None:
                told.append((choice.job, choice.index, news))
                continue
            choice.kept.append(news)
            if news.ended is not None:
                told.append((choice.job, choice.index, joined(choice.kept)))
        if told:
            self._loop.call_soon_threadsafe(_deliver, told)


def joined(news: Sequence[News]) -> News:
    """Join the news of one run, in their order."""
    last = news[-1]
    if len(news) == 1:
        return last
    scored: Any = None
    if last.scored is not None:
        parts = zip(*(one.scored for one in news if one.scored), strict=True)
        scored = Scored(*map(np.concatenate, parts))
    tokens, kinds = (np.concatenate(parts) for parts in zip(*((one.tokens, one.kinds) for one in news), strict=True))
    return last._replace(tokens=tokens, kinds=kinds, scored=scored)


def _deliver(told: Sequence[tuple[Job, int, News]]) -> None:
    for job, choice, news in told:
        if news.ended is not None:
            job.left -= 1
        job.news.put_nowait((choice, news))
