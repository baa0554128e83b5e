"""A model behind HTTP that speaks OpenAI's protocol: so many requests a minute, and again after what may pass."""

from __future__ import annotations

import http.client
import json
import os
import queue
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any

from s1_jax.config import EndpointConfig
from s1_jax.config.endpoint_url import is_here
from s1_jax.errors import RunError, UserError
from s1_jax.runtime.completion import Reply, complaint, hidden, parse, without_key
from s1_jax.runtime.deadline import opener
from s1_jax.runtime.json_input import loads

LONGEST_REPLY = 2**25  # bytes: some 32K tokens of any script, escaped, many times over
PIECE = 2**16  # bytes read at a time
LONGEST_PAUSE = 60.0  # seconds between two attempts
LONGEST_ASKED = 300.0  # seconds between two attempts where the endpoint asks for a pause
PASSING = {408, 409, 425, 429}  # statuses that another attempt may not meet; 5xx besides
OF_THE_PROMPT = {400, 413, 422}  # statuses that say nothing of other prompts: too long, or not what it answers
EMPTY_TRIES = 3  # at a prompt whose reply has no text
EMPTY = "an empty answer"
POLL = 0.1  # seconds between two looks at whether to stop
LONGEST_ERROR = 2**16  # bytes read of an error's body
LIMIT, NEWER_LIMIT = "max_tokens", "max_completion_tokens"  # fields of a request; newer models refuse the first
ADVICE = (  # where an endpoint that refuses a request names a field: how to have another one
    ("temperature", "the option temperature None leaves it out"),
    (LIMIT, "options: max_tokens, max_tokens_field"),
    (NEWER_LIMIT, "options: max_tokens, max_tokens_field"),
    ("context length", "options: max_tokens, max_tokens_field"),
)


class NoAnswer(RunError):
    """A prompt without a reply; `for_all` where others would fare no better, `of_prompt` where it is this prompt's."""

    def __init__(self, who: str, reason: str, for_all: bool, of_prompt: bool = False) -> None:
        super().__init__(f"{who} does not answer ({reason}); what it said so far is kept")
        self.reason, self.for_all, self.of_prompt = reason, for_all, of_prompt


class Endpoint:
    """The model; `name` is how errors call it. Several threads may ask at once, they share its limit and its pauses.

    Once there is `enough`, no further request is made, and what is under way comes yet. Raises UserError where the key
    is one that no request can carry.
    """

    def __init__(
        self,
        options: EndpointConfig,
        name: str,
        sleep: Callable[[float], Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        assert options.base_url is not None
        self._options, self._key = options, os.environ.get(options.key_variable, "").strip()
        if not (self._key.isascii() and self._key.isprintable() and " " not in self._key):
            raise UserError(
                f"the key in {options.key_variable} holds characters that no key has (white space, non-ASCII)"
            )
        self._who = without_key(f"{name} at {options.base_url}", self._key)
        self._url = options.base_url.rstrip("/") + "/chat/completions"
        # a proxy is another machine: what is for this one does not go there
        self._open = opener(clock, proxies=not is_here(self._url))
        self._limit = LIMIT if options.max_tokens_field == "auto" else options.max_tokens_field
        self.enough = threading.Event()
        self._sleep, self._clock = sleep or self.enough.wait, clock
        self._lock, self._next = threading.Lock(), -float("inf")

    def ask(self, prompt: str, *, temperature: float | None, max_tokens: int) -> Reply:
        """The reply to one user message; a temperature of None is left out of the request.

        Raises NoAnswer where every attempt failed, or one for good; it has the endpoint's own words, and no key.
        """
        asked: dict[str, Any] = {"messages": [{"role": "user", "content": prompt}]}
        asked |= {} if temperature is None else {"temperature": temperature}
        failure, for_all, of_prompt, attempt = "", False, False, 0
        while attempt < self._options.attempts:
            self._take_turn()
            pause, limit = 0.0, self._limit
            try:
                return self._reply(asked if limit == "none" else asked | {limit: max_tokens})
            except urllib.error.HTTPError as error:
                said = self._said(error)
                if self._takes_newer_limit(error.code, said, limit):
                    continue
                pause = asked_pause(error.headers)
                failure = f"status {error.code}" + (f", wait {pause:,.0f} seconds" if pause > LONGEST_ASKED else "")
                if words := complaint(said, self._key):
                    failure += f": {words}"
                if error.code < 500 and error.code not in PASSING:
                    of_prompt = error.code in OF_THE_PROMPT
                    for_all = not of_prompt
                    failure += advice(words) if of_prompt else ""
                    break
            except (OSError, http.client.HTTPException, ValueError) as error:  # refused, cut off, timed out, no HTTP
                reason = getattr(error, "reason", error)
                failure = type(reason if isinstance(reason, Exception) else error).__name__
            except _NoCompletion as error:
                failure = ": ".join(
                    filter(None, ("not a completion in OpenAI's form", complaint(error.said, self._key)))
                )
            attempt += 1
            if attempt < self._options.attempts:
                pause = min(pause, LONGEST_ASKED)
                self._hold(pause)
                self._wait(max(min(2.0 ** (attempt - 1), LONGEST_PAUSE), pause))
        raise NoAnswer(self._who, failure, for_all, of_prompt)

    def ask_many(
        self,
        prompts: Sequence[str],
        *,
        temperature: float | None,
        max_tokens: int,
        concurrent: int,
        asked_to_stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[int, Reply | NoAnswer]]:
        """Replies with the places of their prompts, as they come, `concurrent` of them under way at a time.

        Ends at once when asked to stop, with what has come. The endpoint makes no further request after that.
        """
        left, turn = iter(range(len(prompts))), threading.Lock()
        # Not a SimpleQueue: a signal whose handling ends after the timeout of its `get` makes it wait for ever (3.11)
        found: queue.Queue[tuple[int, Reply | NoAnswer] | BaseException | None] = queue.Queue()

        def work() -> None:
            try:
                while not self.enough.is_set():
                    with turn:
                        place = next(left, None)
                    if place is None:
                        break
                    found.put((place, self._ask_again(prompts[place], temperature, max_tokens)))
            except _Enough:
                pass
            except BaseException as error:
                found.put(error)
            found.put(None)

        threads = min(concurrent, len(prompts))
        for _ in range(threads):  # daemons: an end of the process does not wait for what is under way
            threading.Thread(target=work, daemon=True).start()
        try:
            while threads and not (asked_to_stop() and found.empty()):
                try:
                    said = found.get(timeout=POLL)
                except queue.Empty:
                    continue
                if isinstance(said, BaseException):
                    raise said
                if said is None:
                    threads -= 1
                else:
                    yield said
                if asked_to_stop():
                    self.enough.set()
        finally:
            self.enough.set()

    def _ask_again(self, prompt: str, temperature: float | None, max_tokens: int) -> Reply | NoAnswer:
        """A reply that says something, or why there is none."""
        try:
            for _ in range(EMPTY_TRIES):
                reply = self.ask(prompt, temperature=temperature, max_tokens=max_tokens)
                if reply.text or reply.finish != "stop":
                    return reply
        except NoAnswer as error:
            return error
        return NoAnswer(self._who, EMPTY, for_all=False, of_prompt=True)

    def _take_turn(self) -> None:
        """Waits until the limit allows a request, and for as long as any thread was told to."""
        while True:
            with self._lock:
                now = self._clock()
                if now >= self._next:
                    self._next = now + 60 / self._options.requests_per_minute
                    return
                wait = self._next - now
            self._wait(wait)

    def _hold(self, seconds: float) -> None:
        """No thread asks for so long."""
        if seconds:
            with self._lock:
                self._next = max(self._next, self._clock() + seconds)

    def _wait(self, seconds: float) -> None:
        self._sleep(seconds)
        if self.enough.is_set():
            raise _Enough

    def _takes_newer_limit(self, status: int, said: bytes, limit: str) -> bool:
        """Whether the endpoint refuses `max_tokens` for its newer name, which every request has from then on."""
        chosen = self._options.max_tokens_field == "auto" and limit == LIMIT
        if not (chosen and status in OF_THE_PROMPT and NEWER_LIMIT.encode() in said):
            return False
        self._limit = NEWER_LIMIT
        return True

    def _said(self, error: urllib.error.HTTPError) -> bytes:
        """The body of an error; empty where it cannot be read in time."""
        try:
            return _read(error.fp, LONGEST_ERROR)
        except (OSError, http.client.HTTPException, AttributeError, ValueError):
            return b""
        finally:
            error.close()

    def _reply(self, asked: Mapping[str, Any]) -> Reply:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        body = json.dumps({"model": self._options.model, **asked}).encode()
        request = urllib.request.Request(self._url, body, headers)
        with self._open(request, timeout=self._options.timeout_seconds) as response:
            read = _read(response, LONGEST_REPLY)
        try:
            return hidden(parse(loads(read)), self._key)
        except (ValueError, LookupError, TypeError, AttributeError):
            raise _NoCompletion(read) from None


def _read(response: Any, most: int) -> bytes:
    """The whole body, or somewhat more than `most` bytes of it."""
    body = bytearray()
    while len(body) <= most and (piece := response.read1(PIECE)):
        body += piece
    return bytes(body)


def asked_pause(headers: Mapping[str, str] | Message) -> float:
    """Seconds that a response's Retry-After asks for, as a number or as an HTTP date; 0 without one that can be read.

    A date counts from the response's own, where it has one: the two clocks may differ.
    """
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?", value):
        return float(value)
    until, now = _timestamp(value), _timestamp(headers.get("Date", ""))
    return 0.0 if until is None else max(until - (time.time() if now is None else now), 0.0)


def advice(words: str) -> str:
    """Name the options that change the field which an endpoint's message names; empty where it names none."""
    told = dict.fromkeys(text for field, text in ADVICE if re.search(rf"\b{field}\b", words))
    return f" ({'; '.join(told)})" if told else ""


def _timestamp(date: str) -> float | None:
    """Unix time of an HTTP date, of which one form names no zone."""
    try:
        parsed = parsedate_to_datetime(date)
        return parsed.replace(tzinfo=parsed.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError, TypeError, LookupError):  # the last two: dates that the parser trips over
        return None


class _Enough(Exception):
    """No further request is to be made."""


class _NoCompletion(Exception):
    """What came is no completion; it may be an error all the same."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.said = body if b'"error"' in body[:LONGEST_ERROR] else b""
