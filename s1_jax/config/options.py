"""Options that check themselves: dataclasses that refuse values of a wrong type or out of range.

Command lines, config files, the Python API and the fields of a request all become these dataclasses. So each of them
refuses a wrong value in the same line, which names the field and the value.
"""

from __future__ import annotations

import functools
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from s1_jax.errors import UserError

LARGEST = 2**30  # of sizes and positions: two of them can be added in int32
MOST_INT, MOST_FLOAT = 2**63 - 1, 1e300  # of numbers without a range of their own
SHOWN = 60  # characters of a value that an error repeats


@dataclass(frozen=True)
class Range:
    """Range of a number, from `least` to `most`: above `least` if `above` is true, below `most` if `below` is true."""

    least: float = -math.inf
    most: float = math.inf
    above: bool = False
    below: bool = False
    also: float | None = None  # allowed besides

    def __contains__(self, value: float) -> bool:
        low = value > self.least if self.above else value >= self.least  # a NaN is neither
        return value == self.also or (low and (value < self.most if self.below else value <= self.most))

    def __str__(self) -> str:
        return self._range() + ("" if self.also is None else f", or {_number(self.also)}")

    def _range(self) -> str:
        if not (self.above or self.below or math.isinf(self.most) or math.isinf(self.least)):
            return f"from {_number(self.least)} to {_number(self.most)}"
        low = "" if math.isinf(self.least) else f"{'above' if self.above else 'of at least'} {_number(self.least)}"
        high = "" if math.isinf(self.most) else f"{'below' if self.below else 'of at most'} {_number(self.most)}"
        return " and ".join(filter(None, (low, high)))


class Filled:
    """Condition on a path or hub id: it is not blank and has no character that no path can have."""

    def __contains__(self, text: str) -> bool:
        return bool(text.strip()) and "\0" not in text

    def __str__(self) -> str:
        return "that is not blank"


Count = Annotated[int, Range(1, LARGEST)]
Whole = Annotated[int, Range(0, LARGEST)]
Seed = Annotated[int, Range(0, 2**32 - 1)]  # what grain, NumPy and JAX take
NotNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, above=True)]
BelowOne = Annotated[float, Range(0, 1, below=True)]
UnitInterval = Annotated[float, Range(0, 1)]
Place = Annotated[str, Filled()]  # a path or a hub id


class Options:
    """Base of a frozen dataclass of options, which checks the type and range of each field when it is made.

    In messages the fields of `class A(Options, section="a")` are called `a.name`. A subclass that checks more does so
    in its own `__post_init__`, after this one.
    """

    section: ClassVar[str] = ""

    def __init_subclass__(cls, section: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if section is not None:
            cls.section = f"{section}."

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for name, hint in _hints(kind).items():
            if (wrong := _mistake(value := getattr(self, name), hint, self.section + name)) is not None:
                raise UserError(wrong)
            if isinstance(value, list):  # a config file's: a tuple is wanted, which can be hashed
                object.__setattr__(self, name, tuple(value))


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {name: hint for name, hint in hints.items() if typing.get_origin(hint) is not ClassVar}


def _mistake(value: Any, hint: Any, name: str) -> str | None:
    """Return the error message for a value that is not of this type; None if it is."""
    kind, arguments = typing.get_origin(hint), typing.get_args(hint)
    if kind is Annotated and not any(isinstance(extra, OURS) for extra in arguments[1:]):  # a note for tyro
        return _mistake(value, arguments[0], name)
    if kind is tuple and isinstance(value, tuple | list):
        kinds = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        if len(kinds) == len(value):
            items = enumerate(zip(value, kinds, strict=True))
            return next(filter(None, (_mistake(*item, f"{name}[{i}]") for i, item in items)), None)
    return None if _fits(value, hint) else f"{name} is {_shown(value)}; it must be {wanted(hint)}"


def _fits(value: Any, hint: Any) -> bool:
    kind, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind is Annotated:
        return _fits(value, arguments[0]) and all(value in extra for extra in arguments[1:] if isinstance(extra, OURS))
    if kind in UNIONS:
        return any(_mistake(value, option, "") is None for option in arguments)
    if kind is Literal:
        return not isinstance(value, bool) and value in arguments
    if kind is Mapping:
        return isinstance(value, Mapping) and all(all(map(_fits, item, arguments)) for item in value.items())
    if kind is tuple:
        return isinstance(value, tuple | list) and _mistake(value, hint, "") is None
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MOST_FLOAT
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MOST_INT
    return isinstance(value, kind)


def wanted(hint: Any) -> str:
    """Return what a value of this type must be, as the end of the sentence "it must be ..."."""
    kind, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind is Annotated:
        extras = [str(extra) for extra in arguments[1:] if isinstance(extra, OURS)]
        return " ".join([wanted(arguments[0]), *extras])
    if kind in UNIONS:
        return " or ".join(map(wanted, arguments))
    if kind is Literal:
        return " or ".join(map(str, arguments))
    if kind is tuple:
        return f"a tuple, each {wanted(arguments[0])}" if arguments[-1] is ... else f"a tuple of {len(arguments)}"
    if kind is Mapping:
        return "a mapping of strings to strings"
    return NOUNS.get(kind, f"a {getattr(kind, '__name__', kind)}")


OURS = (Range, Filled)
UNIONS = (typing.Union, types.UnionType)
NOUNS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", type(None): "None"}


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
