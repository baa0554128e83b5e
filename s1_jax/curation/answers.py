"""Answers of a model to many prompts, each kept on disk as it comes: nothing is asked, or paid for, twice.

`run_dir/answers` has a file a model, one JSON object a line. An answer is found again by what it depends on: the model
(one decoded here by its weights), the prompt, the temperature. One that was cut off counts until more tokens are
allowed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, overload

from rich.progress import Progress

from s1_jax.checkpoints.folder import fingerprint, resolve
from s1_jax.config import EndpointConfig
from s1_jax.curation.replies import KEPT, dollars, replies_of
from s1_jax.errors import RunError, UserError
from s1_jax.runtime.cli import StopFlag
from s1_jax.runtime.completion import FINISH
from s1_jax.runtime.endpoint import Reply
from s1_jax.runtime.json_input import loads
from s1_jax.runtime.locks import locked_file
from s1_jax.runtime.storage import as_path
from s1_jax.runtime.terminal import say

ENDS: dict[str, str | None] = {
    "stop": None,
    "length": "cut off at its last token",
    "content_filter": "stopped by a content filter",
}
LONGEST_NAME = 100  # characters of a file's
MOST = 2**53  # tokens that a line may say
REASONS_SHOWN = 5  # of prompts without an answer: an endpoint's own words may differ from prompt to prompt


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
        finish = FINISH.get(line["finish"].lower(), line["finish"])
        return Answer(line["thinking"], line["text"], ENDS.get(finish, f"ended with {finish!r}"))


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
    path = folder.parent / "answers" / (re.sub(r"[^A-Za-z0-9.-]+", "_", who.model)[-LONGEST_NAME:] + ".jsonl")
    with locked_file(path):  # `answers` may be a link to a folder that several runs share
        return _ask(who, prompts, path, bar, what)


def _ask(who: EndpointConfig, prompts: Sequence[str], path: Path, bar: Progress, what: str) -> Answers:
    source, name = None if who.base_url else resolve(who.model), f"{what}: {who.model}"
    kept, keys = Kept(path, who.max_tokens), _keys(who, source, prompts)
    different = dict(zip(keys, prompts, strict=True))
    new = [key for key in different if key not in kept]
    spent = sum(dollars(who, *kept.tokens(key)) for key in different if key in kept)
    done, errors = len(different) - len(new), dict[str, str]()
    task = bar.add_task(what, total=len(different), completed=done, note="")

    # What is not there yet, each answer kept as it comes
    asked = [different[key] for key in new]
    with StopFlag() as stop, closing(replies_of(who, source, name, asked, path, stop)) as replies:
        for place, reply in replies:
            key = new[place]
            if isinstance(reply, Reply):
                kept.add(key, different[key], who.model, reply)
                spent += dollars(who, *kept.tokens(key))
                done += 1
            else:
                errors[key] = reply.reason
            notes = []
            if any(who.dollars_per_million_tokens) and done:
                notes.append(f"${spent:,.2f} of about ${spent / done * len(different):,.2f}")
            if errors:
                notes.append(f"{len(errors):,} unanswered")
            bar.update(task, completed=done + len(errors), note=", ".join(notes))

    # What came of it
    counted = Counter(errors.values()).most_common()
    others = [("others", sum(count for _, count in counted[REASONS_SHOWN:]))] if counted[REASONS_SHOWN:] else []
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in counted[:REASONS_SHOWN] + others)
    if not done:
        raise RunError(f"{name} answers none of {len(different):,} prompts ({reasons})")
    cost = f", ${spent:,.2f}" if any(who.dollars_per_million_tokens) else ""
    say(f"{what}: {len(different):,} different prompts, {len(new):,} of them asked now{cost}")
    if errors:
        say(f"{what}: {len(errors):,} have no answer ({reasons}); the stage made anew asks these alone")
    return Answers(kept, keys, errors)


class Kept:
    """The file of one model's answers; only where they stand in it is in memory.

    Raises UserError, naming file and line, where a line is no answer; a torn last line is cut off. Whoever has it must
    hold its lock.
    """

    def __init__(self, path: Path, max_tokens: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self._max_tokens = path, max_tokens
        self._file = path.open("a+b", buffering=0)
        self._lines: dict[str, tuple[int, int, int, int]] = {}  # begin, length, tokens read and written
        self._end = 0
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if line.endswith(b"\n"):
                        self._note(number, line)
            self._file.truncate(self._end)
        except BaseException:
            self._file.close()  # and the lock with it, whoever still looks at the error
            raise

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
            if not all(isinstance(x, str) for x in texts) or not all(type(x) is int and 0 <= x < MOST for x in numbers):
                raise TypeError
            if b"\\u" in line:  # escaped, half of a surrogate pair can stand in a file; no table takes it
                "".join(texts).encode()
        except (ValueError, LookupError, TypeError):
            raise UserError(f"{self.path}, line {number}: not an answer; remove that line, it is asked again") from None
        self._place(fields, len(line))

    def _place(self, fields: dict[str, Any], length: int) -> None:
        empty = fields["finish"] == "stop" and not fields["text"]  # kept by earlier versions: no answer
        if not empty and (fields["finish"] != "length" or fields["max_tokens"] >= self._max_tokens):
            self._lines[fields["key"]] = self._end, length, fields["tokens_read"], fields["tokens_written"]
        self._end += length


def weights_of(who: EndpointConfig) -> list[Path]:
    """Files that say which model a folder here holds; none of a model behind an endpoint or a hub id."""
    if who.base_url or not who.model or not as_path(who.model).is_dir():
        return []
    return sorted([*as_path(who.model).glob("*.json"), *as_path(who.model).glob("*.safetensors")])


def _keys(who: EndpointConfig, source: Path | None, prompts: Sequence[str]) -> list[str]:
    """What each answer is found by."""
    model: Any = who.model
    if source is not None:
        from s1_jax.curation.decode_here import unusual

        model = [fingerprint(source), who.thinking, *unusual(who, source)]
    temperature = None if who.temperature is None else float(who.temperature)
    asked = ([model, temperature, prompt] for prompt in prompts)
    return [hashlib.sha256(json.dumps(parts).encode()).hexdigest() for parts in asked]
