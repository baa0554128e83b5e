"""Answers of a model to many prompts, saved to disk as they arrive, so that no prompt is sent or paid for twice.

`run_dir/answers` has one JSONL file per model. An answer is found by a hash of what it depends on: the model (its
weights, if it is decoded here), the prompt and the temperature. An answer that was cut off is valid until a higher
limit of tokens is set.
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
    "length": "cut off at the limit of tokens",
    "content_filter": "stopped by a content filter",
}
LONGEST_NAME = 100  # characters of a file name
MOST = 2**53  # largest valid number of tokens in a line
REASONS_SHOWN = 5  # reasons for missing answers in a message; an endpoint's own words may differ for each prompt


class Answer(NamedTuple):
    """Answer of the model to one prompt; with an `error`, the texts are empty or incomplete."""

    thinking: str
    text: str
    error: str | None


class Answers(Sequence[Answer]):
    """Answers in the order of their prompts, read from disk one at a time because traces may be many GB."""

    def __init__(self, kept: Kept | None, keys: Sequence[str], errors: dict[str, str]) -> None:
        self._kept, self._keys, self._errors = kept, keys, errors

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, index: int) -> Answer: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Answer]: ...
    def __getitem__(self, index: int | slice) -> Answer | Sequence[Answer]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if (key := self._keys[index]) in self._errors:
            return Answer("", "", self._errors[key])
        assert self._kept is not None
        line = self._kept.read(key)
        finish = FINISH.get(line["finish"].lower(), line["finish"])
        return Answer(line["thinking"], line["text"], ENDS.get(finish, f"ended with {finish!r}"))


def ask_all(who: EndpointConfig, prompts: Sequence[str], folder: Path, bar: Progress, what: str) -> Sequence[Answer]:
    """Return the model's answers to user messages, in order; a prompt that stays without an answer gets an `error`.

    `folder` is the stage's folder; answers are saved next to it, for all stages. Raises UserError if there is no such
    model; RunError if no prompt or none of many in a row is answered, or the disk is full; KeyboardInterrupt and
    Terminated as a StopFlag does. Answers received before an error are saved.
    """
    if not prompts:
        return Answers(None, (), {})
    if not who.model:
        raise UserError(f"{what}: no model is set")
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

    # Ask for the missing answers, and save each when it arrives
    asked = [different[key] for key in new]
    with StopFlag() as stop, closing(replies_of(who, source, name, asked, path, stop)) as replies:
        for index, reply in replies:
            key = new[index]
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

    # Report prompts without an answer
    counted = Counter(errors.values()).most_common()
    others = [("others", sum(count for _, count in counted[REASONS_SHOWN:]))] if counted[REASONS_SHOWN:] else []
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in counted[:REASONS_SHOWN] + others)
    if not done:
        raise RunError(f"{name} answered none of {len(different):,} prompts ({reasons})")
    cost = f", ${spent:,.2f}" if any(who.dollars_per_million_tokens) else ""
    say(f"{what}: {len(different):,} different prompts, {len(new):,} of them sent now{cost}")
    if errors:
        say(f"{what}: {len(errors):,} have no answer ({reasons}); rerun the stage with --again-from to send only these")
    return Answers(kept, keys, errors)


class Kept:
    """File of one model's answers, with only the positions of its lines in memory.

    Raises UserError, naming file and line, if a line is not an answer; an incomplete last line is removed. The caller
    must hold the file's lock.
    """

    def __init__(self, path: Path, max_tokens: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self._max_tokens = path, max_tokens
        self._file = path.open("a+b", buffering=0)
        self._lines: dict[str, tuple[int, int, int, int]] = {}  # start, length, tokens read and written
        self._end = 0
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if line.endswith(b"\n"):
                        self._note(number, line)
            self._file.truncate(self._end)
        except BaseException:
            self._file.close()  # releases the lock even while the error's traceback refers to this object
            raise

    def __contains__(self, key: str) -> bool:
        return key in self._lines

    def __del__(self) -> None:
        if file := getattr(self, "_file", None):
            file.close()

    def tokens(self, key: str) -> tuple[int, int]:
        """Return the number of tokens of the prompt and of the answer."""
        _, _, read, written = self._lines[key]
        return read, written

    def read(self, key: str) -> dict[str, Any]:
        """Return the fields of an answer's line."""
        begin, length, *_ = self._lines[key]
        return loads(os.pread(self._file.fileno(), length, begin))

    def add(self, key: str, prompt: str, model: str, reply: Reply) -> None:
        """Append an answer and hand it to the operating system. Raises RunError if it cannot be written."""
        fields = {"key": key, "model": model, "max_tokens": self._max_tokens, **reply._asdict(), "prompt": prompt}
        line = json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        try:
            written = 0
            while written < len(line):  # a disk that fills up first accepts a part, then refuses
                written += self._file.write(line[written:])
        except OSError as error:
            self._file.truncate(self._end)
            reason = error.strerror or str(error)
            raise RunError(f"{self.path} cannot be written ({reason}); {KEPT}") from None
        self._add_line(fields, len(line))

    def _note(self, number: int, line: bytes) -> None:
        try:
            fields = loads(line)
            texts = [fields[name] for name in ("key", "thinking", "text", "finish")]
            numbers = [fields[name] for name in ("max_tokens", "tokens_read", "tokens_written")]
            if not all(isinstance(x, str) for x in texts) or not all(type(x) is int and 0 <= x < MOST for x in numbers):
                raise TypeError
            if b"\\u" in line:  # half of a surrogate pair can be escaped in a file, but not written to a table
                "".join(texts).encode()
        except (ValueError, LookupError, TypeError):
            raise UserError(
                f"{self.path}, line {number}: not an answer; remove that line, and its prompt is sent again"
            ) from None
        self._add_line(fields, len(line))

    def _add_line(self, fields: dict[str, Any], length: int) -> None:
        empty = fields["finish"] == "stop" and not fields["text"]  # saved by earlier versions; not an answer
        if not empty and (fields["finish"] != "length" or fields["max_tokens"] >= self._max_tokens):
            self._lines[fields["key"]] = self._end, length, fields["tokens_read"], fields["tokens_written"]
        self._end += length


def weights_of(who: EndpointConfig) -> list[Path]:
    """List the files that identify the model in a local folder; empty for an endpoint or a hub id."""
    if who.base_url or not who.model or not as_path(who.model).is_dir():
        return []
    return sorted([*as_path(who.model).glob("*.json"), *as_path(who.model).glob("*.safetensors")])


def _keys(who: EndpointConfig, source: Path | None, prompts: Sequence[str]) -> list[str]:
    """Return the key of each prompt's answer."""
    model: Any = who.model
    if source is not None:
        from s1_jax.curation.decode_here import unusual

        model = [fingerprint(source), who.thinking, *unusual(who, source)]
    temperature = None if who.temperature is None else float(who.temperature)
    asked = ([model, temperature, prompt] for prompt in prompts)
    return [hashlib.sha256(json.dumps(parts).encode()).hexdigest() for parts in asked]
