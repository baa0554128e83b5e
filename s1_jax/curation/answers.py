"""Answers of a model to many prompts, each kept on disk as it comes: nothing is asked, or paid for, twice.

`run_dir/answers` has a file a model, one JSON object a line. An answer is found again by what it depends on: the model
(one decoded here by its weights), the prompt, the temperature. One that was cut off counts until more tokens are
allowed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple, overload

from rich.progress import Progress

from s1_jax.checkpoints.folder import fingerprint, resolve
from s1_jax.cli import StopFlag
from s1_jax.config import RunError, UserError
from s1_jax.curation.config import EndpointConfig
from s1_jax.endpoint import Endpoint, NoAnswer, Reply
from s1_jax.json_input import loads
from s1_jax.storage import as_path

ENDS = {"length": "cut off at its last token", "content_filter": "stopped by a content filter"}
KEPT = "what was answered is kept, the same command goes on from there"
LONGEST_NAME = 100  # characters of a file's
CHARACTERS_OF_A_TOKEN = 4  # about, where an endpoint does not count
IN_A_ROW = 20  # prompts without an answer, one behind the other: then the rest is not tried
ROOM = 2**26  # bytes the disk must have free for another prompt to be asked: for what is under way


class Answer(NamedTuple):
    """What the model made of a prompt; with an `error`, the texts are empty or not whole."""

    thinking: str
    text: str
    error: str | None


class Answers(Sequence[Answer]):
    """Answers in the order of their prompts, read from disk one at a time: traces may be many GB."""

    def __init__(self, kept: Kept | None, keys: Sequence[str], errors: dict[str, str]) -> None:
        self._kept, self._keys, self._errors = kept, keys, errors

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, place: int) -> Answer: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Answer]: ...
    def __getitem__(self, place: int | slice) -> Answer | Sequence[Answer]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        if (key := self._keys[place]) in self._errors:
            return Answer("", "", self._errors[key])
        assert self._kept is not None
        line = self._kept.read(key)
        return Answer(line["thinking"], line["text"], ENDS.get(line["finish"]))


def ask_all(who: EndpointConfig, prompts: Sequence[str], folder: Path, bar: Progress, what: str) -> Sequence[Answer]:
    """The model's answers to user messages, in order; a prompt that has none after bounded attempts has an `error`.

    `folder` is the stage's: answers are kept beside it, for all stages. Raises UserError where there is no such model,
    RunError where no prompt has an answer, many in a row have none, or the disk is full, and KeyboardInterrupt and
    Terminated as a StopFlag does. What was answered is kept.
    """
    if not prompts:
        return Answers(None, (), {})
    if not who.model:
        raise UserError(f"{what}: no model is named")
    source, name = None if who.base_url else resolve(who.model), f"{what}: {who.model}"
    path = folder.parent / "answers" / (re.sub(r"[^A-Za-z0-9.-]+", "_", who.model)[-LONGEST_NAME:] + ".jsonl")
    kept, keys = Kept(path, who.max_tokens), _keys(who, source, prompts)
    different = dict(zip(keys, prompts, strict=True))
    new = [key for key in different if key not in kept]
    spent = sum(_dollars(who, *kept.tokens(key)) for key in different if key in kept)
    done, errors = len(different) - len(new), dict[str, str]()
    task = bar.add_task(what, total=len(different), completed=done, note="")

    # What is not there yet, each answer kept as it comes
    asked = [different[key] for key in new]
    with kept, StopFlag() as stop, closing(_replies(who, source, name, asked, path, stop)) as replies:
        for place, reply in replies:
            key = new[place]
            if isinstance(reply, Reply):
                kept.add(key, different[key], who.model, reply)
                spent += _dollars(who, *kept.tokens(key))
                done += 1
            else:
                errors[key] = reply
            notes = []
            if any(who.dollars_per_million_tokens) and done:
                notes.append(f"${spent:,.2f} of about ${spent / done * len(different):,.2f}")
            if errors:
                notes.append(f"{len(errors):,} unanswered")
            bar.update(task, completed=done + len(errors), note=", ".join(notes))

    # What came of it
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in Counter(errors.values()).most_common())
    if not done:
        raise RunError(f"{name} answers none of {len(different):,} prompts ({reasons})")
    cost = f", ${spent:,.2f}" if any(who.dollars_per_million_tokens) else ""
    print(f"{what}: {len(different):,} different prompts, {len(new):,} of them asked now{cost}")
    if errors:
        print(f"{what}: {len(errors):,} have no answer ({reasons}); the stage made anew asks these alone")
    return Answers(kept, keys, errors)


class Kept:
    """The file of one model's answers; only where they stand in it is in memory.

    It is this process's alone until it leaves the `with`; then it is read from. Raises UserError where another process
    has it, and, naming file and line, where a line is no answer; a torn last line is cut off.
    """

    def __init__(self, path: Path, max_tokens: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self._max_tokens = path, max_tokens
        self._file = path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another run writes to {path}; end it, or wait for it") from None
        except OSError:  # a file system without locks
            pass
        self._lines: dict[str, tuple[int, int, int, int]] = {}  # begin, length, tokens read and written
        self._end = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):
                    self._note(number, line)
        self._file.truncate(self._end)

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def __contains__(self, key: str) -> bool:
        return key in self._lines

    def __del__(self) -> None:
        if file := getattr(self, "_file", None):
            file.close()

    def tokens(self, key: str) -> tuple[int, int]:
        """Of the prompt and of the answer."""
        _, _, read, written = self._lines[key]
        return read, written

    def read(self, key: str) -> dict[str, Any]:
        """The line of an answer."""
        begin, length, *_ = self._lines[key]
        return loads(os.pread(self._file.fileno(), length, begin))

    def add(self, key: str, prompt: str, model: str, reply: Reply) -> None:
        """Appends an answer, on its way to the disk when this returns. Raises RunError where it takes no more."""
        fields = {"key": key, "model": model, "max_tokens": self._max_tokens, **reply._asdict(), "prompt": prompt}
        line = json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        try:
            written = 0
            while written < len(line):  # a disk that fills up first takes a part, then refuses
                written += self._file.write(line[written:])
        except OSError as error:
            self._file.truncate(self._end)
            reason = error.strerror or str(error)
            raise RunError(f"{self.path} cannot be written ({reason}); {KEPT}") from None
        self._place(fields, len(line))

    def _note(self, number: int, line: bytes) -> None:
        try:
            fields = loads(line)
            texts = [fields[name] for name in ("key", "thinking", "text", "finish")]
            numbers = [fields[name] for name in ("max_tokens", "tokens_read", "tokens_written")]
            if not all(isinstance(x, str) for x in texts) or not all(isinstance(x, int) for x in numbers):
                raise TypeError
        except (ValueError, LookupError, TypeError):
            raise UserError(f"{self.path}, line {number}: not an answer; remove that line, it is asked again") from None
        self._place(fields, len(line))

    def _place(self, fields: dict[str, Any], length: int) -> None:
        if fields["finish"] != "length" or fields["max_tokens"] >= self._max_tokens:
            self._lines[fields["key"]] = self._end, length, fields["tokens_read"], fields["tokens_written"]
        self._end += length


def weights_of(who: EndpointConfig) -> list[Path]:
    """Files that say which model a folder here holds; none of a model behind an endpoint or a hub id."""
    if who.base_url or not who.model or not as_path(who.model).is_dir():
        return []
    return sorted([*as_path(who.model).glob("*.json"), *as_path(who.model).glob("*.safetensors")])


def _replies(
    who: EndpointConfig, source: Path | None, name: str, prompts: Sequence[str], path: Path, stop: StopFlag
) -> Generator[tuple[int, Reply | str]]:
    """Replies with the places of their prompts, as they come, or why there is none. Raises as `ask_all` does."""
    if not prompts:
        return
    if source is not None:
        from s1_jax.curation.decode_here import decode_here  # brings JAX's model stack, which an endpoint does without

        yield from decode_here(who, source, prompts, lambda status: stop.check())
        return
    endpoint, in_a_row = Endpoint(who, name), 0
    why: RunError | None = None
    replies = endpoint.ask_many(
        prompts,
        temperature=who.temperature,
        max_tokens=who.max_tokens,
        concurrent=who.concurrent,
        asked_to_stop=lambda: stop.asked,
    )
    for place, reply in replies:
        in_a_row = in_a_row + 1 if isinstance(reply, NoAnswer) else 0
        if why is None and (why := _reason_to_end(name, reply, in_a_row, path)):
            endpoint.enough.set()
            print(f"{name}: no more is asked, what is under way is waited for")
        if isinstance(reply, NoAnswer):
            yield place, reply.reason
        else:
            read = reply.tokens_read or len(prompts[place]) // CHARACTERS_OF_A_TOKEN
            written = reply.tokens_written or len(reply.thinking + reply.text) // CHARACTERS_OF_A_TOKEN
            yield place, reply._replace(tokens_read=read, tokens_written=written)
    stop.check()
    if why is not None:
        raise why


def _reason_to_end(name: str, reply: Reply | NoAnswer, in_a_row: int, path: Path) -> RunError | None:
    """Why no other prompt is to be asked, if so."""
    if isinstance(reply, NoAnswer) and reply.for_all:
        return reply
    if isinstance(reply, NoAnswer) and in_a_row >= IN_A_ROW:
        return RunError(f"{name} left {IN_A_ROW} prompts in a row unanswered, the last by {reply.reason}; {KEPT}")
    if shutil.disk_usage(path.parent).free < ROOM:
        return RunError(f"the disk of {path} is nearly full; {KEPT}")
    return None


def _keys(who: EndpointConfig, source: Path | None, prompts: Sequence[str]) -> list[str]:
    """What each answer is found by."""
    model = who.model if source is None else [fingerprint(source), who.thinking]
    asked = ([model, float(who.temperature), prompt] for prompt in prompts)
    return [hashlib.sha256(json.dumps(parts).encode()).hexdigest() for parts in asked]


def _dollars(who: EndpointConfig, read: int, written: int) -> float:
    dollars_read, dollars_written = who.dollars_per_million_tokens
    return (read * dollars_read + written * dollars_written) / 1e6
