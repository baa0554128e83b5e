"""The setting of a record: reports group records by it, and a stopped run finds by it what is done."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable

from s1_jax.config import SearchConfig
from s1_jax.records import Record
from s1_jax.records.names import search_label
from s1_jax.records.options import search_of
from s1_jax.records.schema import FIELDS, REQUIRED, UNUSUAL, value_of

WORDS_SHOWN = 3  # banned words that a label lists


@dataclasses.dataclass(frozen=True)
class Setting:
    """The options that a record was decoded under, seed and sample aside.

    `ignore_string` is None where no end marker is suppressed; several strings take turns.
    """

    forcing: bool
    min_thinking_tokens: int
    max_thinking_tokens: int | None
    num_ignore: int
    ignore_string: str | tuple[str, ...] | None
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    instruction: str | None = None  # appended to the question, see config/instructions.py
    max_tries: int = 1  # more than 1: rejection sampling
    newline_grace: float = 0.0  # fraction of the maximum
    end_bias: float = 0.0  # logits added to end markers at the maximum
    search: SearchConfig | None = None  # a method that decodes several runs and chooses one
    reward: str | None = None  # kind of the reward model that scored them
    max_new_tokens: int | None = None  # limit of thinking and answer together, without forcing
    notice_fractions: tuple[float, ...] = ()
    notices: tuple[str, ...] = ()
    banned_words: tuple[str, ...] = ()
    max_repetitions: int = 0  # of the last tokens in a row, before thinking is cut; 0: any

    @classmethod
    def of(cls, record: Record) -> Setting:
        """Read the setting of a record. Where no end is suppressed, the ignore string does not tell settings apart."""
        string = record["ignore_string"] if record["num_ignore"] else None
        names = [field.name for field in dataclasses.fields(cls) if field.name not in ("search", "ignore_string")]
        values = {name: value_of(record, name) for name in names} | {"ignore_string": string}
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return cls(**values, search=search_of(record))

    @property
    def label(self) -> str:
        """Describe the setting in a few words: "max 64, 2 x Wait, T 0.8"."""
        parts = [] if self.instruction is None else [self.instruction]
        if self.max_thinking_tokens is not None:
            grace = f" + {self.newline_grace:.0%}" if self.newline_grace else ""
            parts.append(f"max {self.max_thinking_tokens}{grace}")
        if self.end_bias:
            parts.append(f"end bias {self.end_bias:g}")
        if self.num_ignore:
            parts.append(f"{self.num_ignore} x {string_label(self.ignore_string)}")
        if self.min_thinking_tokens > 1:
            parts.append(f"min {self.min_thinking_tokens}")
        if self.notices:
            parts.append(f"{len(self.notices)} notice{'s' * (len(self.notices) > 1)}")
        if self.banned_words:
            words = self.banned_words
            parts.append("no " + (f"{len(words)} words" if len(words) > WORDS_SHOWN else " ".join(words)))
        if self.max_repetitions:
            parts.append(f"at most {self.max_repetitions} repetitions")
        if not self.forcing:
            limits = [f"max {self.max_thinking_tokens}"] if self.max_thinking_tokens is not None else []
            limits += [f"max {self.max_new_tokens} in all"] if self.max_new_tokens is not None else []
            parts = [*parts[: self.instruction is not None], "no forcing", *limits]
        if self.temperature:
            parts += [f"T {self.temperature:g}"]
        if self.max_tries > 1:
            parts.append(f"up to {self.max_tries} tries")
        if self.search is not None:
            parts.insert(0, search_label(self.search, self.reward))
        return ", ".join(parts) or "natural end"


def record_key(record: Record) -> Hashable:
    """Identify a record in its run by problem, setting, sample and, above temperature 0, seed."""
    seed = record["seed"] if record["temperature"] > 0 else None
    return record["problem_id"], seed, record["sample"], Setting.of(record)


def first_difference(record: Record, known: Record) -> str | None:
    """Return the first field in which a record differs from what is known of the one to be made; None where none does.

    `known` also says which fields the record has only where they are unusual.
    """
    for name in known | dict.fromkeys(UNUSUAL.names):
        lacks = name not in record and FIELDS[name].absent is REQUIRED
        if lacks or value_of(record, name) != value_of(known, name):
            return name
    return None


def string_label(string: str | tuple[str, ...] | None) -> str:
    """Return an ignore string as people write it; an empty one and a list of them get a name."""
    if isinstance(string, tuple):
        return " / ".join(string_label(one) for one in string)
    if not string:
        return "no string"
    return string if string == string.strip() else repr(string)
