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
from typing import Any, NamedTuple, Protocol

from s1_jax.config import RunError
from s1_jax.json_input import loads

LONGEST_REPLY = 2**25  # bytes: some 32K tokens of any script, escaped, many times over
PIECE = 2**16  # bytes read at a time
LONGEST_PAUSE = 60.0  # seconds between two attempts
LONGEST_ASKED = 300.0  # seconds between two attempts where the endpoint asks for a pause
PASSING = {408, 409, 425, 429}  # statuses that another attempt may not meet; 5xx besides
OF_THE_PROMPT = {400, 413, 422}  # statuses that say nothing of other prompts: too long, or not what it answers
EMPTY_TRIES = 3  # at a prompt whose reply is empty
POLL = 0.1  # seconds between two looks at whether to stop
THINK, END_OF_THINKING = "<think>", "</think>"


class Options(Protocol):
    """What a config says of an endpoint."""

    @property
    def model(self) -> str | None: ...  # noqa: D102
    @property
    def base_url(self) -> str | None: ...  # noqa: D102
    @property
    def key_variable(self) -> str: ...  # noqa: D102
    @property
    def requests_per_minute(self) -> int: ...  # noqa: D102
    @property
    def timeout_seconds(self) -> float: ...  # noqa: D102
    @property
    def attempts(self) -> int: ...  # noqa: D102


class Reply(NamedTuple):
    """What the model wrote; both texts may be empty."""

    thinking: str
    text: str
    finish: str  # "stop", "length", "content_filter"
    tokens_read: int  # 0: the endpoint does not say
    tokens_written: int  # thinking included


class NoAnswer(RunError):
    """A prompt without a reply; `for_all` where others would fare no better."""

    def __init__(self, who: str, reason: str, for_all: bool) -> None:
        super().__init__(f"{who} does not answer ({reason}); what it said so far is kept")
        self.reason, self.for_all = reason, for_all


class Endpoint:
    """The model; `name` is how errors call it. Several threads may ask at once, they share its limit and its pauses.

    Once there is `enough`, no further request is made, and what is under way comes yet.
    """

    def __init__(
        self,
        options: Options,
        name: str,
        sleep: Callable[[float], Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        assert options.base_url is not None
        self._options, self._who = options, f"{name} at {options.base_url}"
        self._url = options.base_url.rstrip("/") + "/chat/completions"
        self._open = urllib.request.build_opener(_NoRedirect).open
        self.enough = threading.Event()
        self._sleep, self._clock = sleep or self.enough.wait, clock
        self._lock, self._next = threading.Lock(), -float("inf")

    def ask(self, prompt: str, *, temperature: float, max_tokens: int) -> Reply:
        """The reply to one user message. Raises NoAnswer where every attempt failed, or one for good; it has no key."""
        message = {"role": "user", "content": prompt}
        asked = {"messages": [message], "temperature": temperature, "max_tokens": max_tokens}
        failure, for_all = "", False
        for attempt in range(self._options.attempts):
            self._take_turn()
            pause = 0.0
            try:
                return self._reply({"model": self._options.model} | asked)
            except urllib.error.HTTPError as error:
                error.close()
                pause = asked_pause(error.headers)
                failure = f"status {error.code}" + (f", wait {pause:,.0f} seconds" if pause > LONGEST_ASKED else "")
                if error.code < 500 and error.code not in PASSING:
                    for_all = error.code not in OF_THE_PROMPT
                    break
            except (OSError, http.client.HTTPException) as error:  # refused, cut off, timed out
                reason = getattr(error, "reason", error)
                failure = type(reason if isinstance(reason, Exception) else error).__name__
            except (ValueError, LookupError, TypeError, AttributeError):
                failure = "not a completion in OpenAI's form"
            if attempt + 1 < self._options.attempts:
                pause = min(pause, LONGEST_ASKED)
                self._hold(pause)
                self._wait(max(min(2.0**attempt, LONGEST_PAUSE), pause))
        raise NoAnswer(self._who, failure, for_all)

    def ask_many(
        self,
        prompts: Sequence[str],
        *,
        temperature: float,
        max_tokens: int,
        concurrent: int,
        asked_to_stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[int, Reply | NoAnswer]]:
        """Replies with the places of their prompts, as they come, `concurrent` of them under way at a time.

        Ends at once when asked to stop, with what has come. The endpoint makes no further request after that.
        """
        left, turn = iter(range(len(prompts))), threading.Lock()
        found: queue.SimpleQueue[tuple[int, Reply | NoAnswer] | BaseException | None] = queue.SimpleQueue()

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

    def _ask_again(self, prompt: str, temperature: float, max_tokens: int) -> Reply | NoAnswer:
        """A reply that says something, or why there is none."""
        try:
            for _ in range(EMPTY_TRIES):
                reply = self.ask(prompt, temperature=temperature, max_tokens=max_tokens)
                if reply.thinking or reply.text or reply.finish != "stop":
                    return reply
        except NoAnswer as error:
            return error
        return NoAnswer(self._who, "an empty answer", for_all=False)

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

    def _reply(self, asked: Mapping[str, Any]) -> Reply:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self._options.key_variable, "").strip():
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self._url, json.dumps(asked).encode(), headers)
        until = self._clock() + self._options.timeout_seconds
        with self._open(request, timeout=self._options.timeout_seconds) as response:
            return parse(loads(self._read(response, until)))

    def _read(self, response: http.client.HTTPResponse, until: float) -> bytes:
        """The whole body; the socket's own timeout is one of each piece."""
        body = bytearray()
        while len(body) <= LONGEST_REPLY and (piece := response.read1(PIECE)):
            body += piece
            if self._clock() > until:
                raise TimeoutError
        return bytes(body)


def parse(completion: Any) -> Reply:
    """A completion's reply; thinking is what the endpoint sets apart, or what stands before `</think>`.

    Raises ValueError, LookupError, TypeError or AttributeError where it is none.
    """
    choice = completion["choices"][0]
    message, usage = choice["message"], completion.get("usage") or {}
    thinking = message.get("reasoning_content") or message.get("reasoning") or ""
    text = message.get("content")
    if text is None and thinking:  # ended before the answer began
        text = ""
    if not isinstance(text, str) or not isinstance(thinking, str):
        raise TypeError("content is no string")
    if not thinking and END_OF_THINKING in text:  # where the chat template opens the thinking, the text does not
        thinking, _, text = text.partition(END_OF_THINKING)
        thinking = thinking.strip().removeprefix(THINK)
    elif not thinking and text.lstrip().startswith(THINK):
        thinking, text = text.lstrip().removeprefix(THINK), ""
    tokens = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    read, written = (count if isinstance(count, int) else 0 for count in tokens)
    return Reply(_whole(thinking), _whole(text), str(choice.get("finish_reason") or "stop"), read, written)


def asked_pause(headers: Mapping[str, str] | Message) -> float:
    """Seconds that a response's Retry-After asks for, as a number or as an HTTP date; 0 without one that can be read.

    A date counts from the response's own, where it has one: the two clocks may differ.
    """
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?", value):
        return float(value)
    until, now = _timestamp(value), _timestamp(headers.get("Date", ""))
    return 0.0 if until is None else max(until - (time.time() if now is None else now), 0.0)


def _timestamp(date: str) -> float | None:
    """Unix time of an HTTP date, of which one form names no zone."""
    try:
        parsed = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    return parsed.replace(tzinfo=parsed.tzinfo or UTC).timestamp()


def _whole(text: str) -> str:
    """The text without white space around it, and with no half of a surrogate pair, which no file takes."""
    return text.strip().encode("utf-8", "replace").decode()


class _Enough(Exception):
    """No further request is to be made."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The key is for the host that was named, not for where it points to."""

    def redirect_request(self, *args: Any) -> None:
        return None
