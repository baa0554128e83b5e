"""Typed reading of one JSON object, such as a model's `config.json`; every error names file, field and value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from s1_jax.errors import UserError

LARGEST = 2**31 - 1  # of any whole number: sizes and positions are int32
MOST = 1e300  # of any number: far from where products of two overflow
SHOWN = 60  # characters of a value that an error repeats
REQUIRED: Any = object()  # the default of a field that must be there


class Fields:
    """Reader of the values of one JSON object, each by its name and type.

    A field that is absent takes the default; a field without a default is required. `null` is refused unless the method
    says otherwise. `source` opens every error: the file, and the field that the object is in.
    """

    def __init__(self, values: Any, source: str):
        self.source = source
        if not isinstance(values, Mapping):
            raise UserError(f"{source} contains {_shown(values)}, not a JSON object of settings")
        self.values: Mapping[str, Any] = values

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def integer(
        self, name: str, default: Any = REQUIRED, least: int = 1, most: int = LARGEST, null: Any = REQUIRED
    ) -> Any:
        """Return a whole number from `least` to `most`, or `null` in place of a null.

        Raises UserError on any other value, as all methods do.
        """
        value = self._get(name, default)
        if value is None and null is not REQUIRED:
            return null
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            self.refuse(name, value, f"it must be a whole number from {least} to {most}")
        return value

    def number(
        self, name: str, default: Any = REQUIRED, least: float = 0.0, above: bool = False, most: float = MOST
    ) -> float:
        """Return a finite number from `least` (above it, if `above` is true) to `most`."""
        value = self._get(name, default)
        fits = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= most
        if not fits or not (value > least if above else value >= least):  # a NaN is neither
            up_to = "" if most == MOST else f" and at most {most:g}"
            self.refuse(name, value, f"it must be a number {'above' if above else 'of at least'} {least:g}{up_to}")
        return value

    def flag(self, name: str, default: Any = REQUIRED) -> bool:
        """Return a value that is true or false."""
        value = self._get(name, default)
        if not isinstance(value, bool):
            self.refuse(name, value, "it must be true or false")
        return value

    def text(self, name: str, default: Any = REQUIRED) -> str:
        """Return a value that is a string."""
        value = self._get(name, default)
        if not isinstance(value, str):
            self.refuse(name, value, "it must be a string")
        return value

    def texts(self, name: str) -> list[str] | None:
        """Return a list of strings, or None if it is absent or null."""
        value = self._get(name, None)
        if value is not None and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            self.refuse(name, value, "it must be a list of strings")
        return value

    def integers(self, name: str, count: int | None = None) -> tuple[int, ...]:
        """Return a list of whole numbers that can be sizes within a file; if `count` is given, exactly that many."""
        value = self._get(name, REQUIRED)
        fits = isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)
        if not fits or (count is not None and len(value) != count):
            many = "whole numbers" if count is None else f"{count} whole numbers"
            self.refuse(name, value, f"it must be a list of {many} from 0 on")
        return tuple(value)

    def section(self, name: str) -> Fields:
        """Return the object of that name, or an empty one if it is absent or null."""
        value = self._get(name, None)
        if value is not None and not isinstance(value, Mapping):
            self.refuse(name, value, "it must be an object")
        return Fields(value or {}, f"{self.source}: {name}")

    def given(self, name: str) -> bool:
        """Return whether a field is present and not null."""
        return self.values.get(name) is not None

    def refuse(self, name: str, value: Any, why: str) -> NoReturn:
        """Raise the UserError of a field whose value is refused."""
        raise UserError(f"{self.source}: {name} is {_shown(value)}; {why}")

    def _get(self, name: str, default: Any) -> Any:
        value = self.values.get(name, default)
        if value is REQUIRED:
            raise UserError(f"{self.source} lacks {name}")
        return value


def _shown(value: Any) -> str:
    """Format a value as in JSON, cut if it is long."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
