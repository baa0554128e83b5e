"""Reads JSON and JSONL from outside, by one set of rules for all commands.

Text is UTF-8, with or without a byte-order mark. A line of a JSONL file ends in a newline, perhaps after a carriage
return, and in nothing else; blank lines are skipped. These are mistakes: a key that occurs twice in an object, NaN,
Infinity, a number that Python cannot represent, and nesting deeper than MAX_DEPTH. A mistake raises one UserError that
names file and line. Reading takes time in proportion to the length of the text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from s1_jax.errors import UserError
from s1_jax.runtime.storage import check_input

MAX_DEPTH = 200  # nested lists and objects; far below the limit of Python's recursion
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
SHOWN = 40  # characters of a key or number in a message
BLANK = b"\xef\xbb\xbf \t\r\n"  # characters of a blank line: a byte-order mark and white space
NO_OBJECT = "a {} where an object is needed"


class DuplicateKey(ValueError):
    """Error of a key that occurs twice in one object."""


def parse_json(text: str | bytes, where: str, ours: bool = False) -> Any:
    """Parse one JSON text; `where` names it in messages, `ours` is as in `loads`. Raises UserError."""
    try:
        return loads(text, ours)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def read_json(path: Path, ours: bool = False) -> Any:
    """Read a JSON file, local or in a bucket. Raises UserError if it is missing or not JSON."""
    check_input(path)
    try:
        contents = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    return parse_json(contents, str(path), ours)


def read_object(path: Path, ours: bool = False) -> dict[str, Any]:
    """Read a JSON file that must contain an object. Raises UserError if it is missing or contains anything else."""
    value = read_json(path, ours)
    if not isinstance(value, dict):
        raise UserError(f"{path}: {NO_OBJECT.format(type(value).__name__)}")
    return value


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) for each line of a JSONL file, local or in a bucket. Raises UserError."""
    check_input(path)
    try:
        lines = path.open("rb")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    with lines:
        yield from parse_lines(lines, str(path))


def parse_lines(lines: Iterable[bytes], where: str, ours: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) of lines that were split at newlines; `where` names the file. Raises UserError."""
    for number, line in enumerate(lines, start=1):
        if not line.strip(BLANK):
            continue
        value = parse_json(line.rstrip(b"\r\n"), f"{where}, line {number}", ours)
        if not isinstance(value, dict):
            raise UserError(f"{where}, line {number}: {NO_OBJECT.format(type(value).__name__)}")
        yield number, value


def loads(text: str | bytes, ours: bool = False) -> Any:
    """Parse one JSON text, for callers that add their own words to the ValueError, which says what is wrong.

    `ours` says that this project wrote the text: then it may contain NaN and Infinity, as options and scores can.
    """
    if isinstance(text, bytes):
        if text.startswith(UTF16_MARKS):
            raise ValueError("not JSON in UTF-8 (it begins as UTF-16 does); save it as UTF-8")
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"not JSON in UTF-8 ({error})") from None
    text = text.removeprefix("\ufeff")
    too_deep = ValueError(f"lists and objects are nested more than {MAX_DEPTH} deep")
    try:
        value = (_OURS if ours else _OUTSIDE).decode(text)
    except RecursionError:
        raise too_deep from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise ValueError(f"not JSON ({error.msg.removesuffix(' at')} at {place})") from None
    # a text with few brackets cannot be nested deeply, so the walk is rarely needed
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
        raise too_deep
    return value


def _is_deeper(value: Any, depth: int) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(depth):
        children = (child for one in level for child in (one.values() if isinstance(one, dict) else one))
        level = [child for child in children if isinstance(child, dict | list)]
    return bool(level)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise DuplicateKey(f"the key {_short(key)!r} occurs twice in one object")
            seen.add(key)
    return found


def _int(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:  # more digits than Python converts
        raise ValueError(f"the number {_short(digits)} has {len(digits.lstrip('-')):,} digits, too many") from None


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"the number {_short(digits)} is too large")
    return value


def _constant(name: str) -> None:
    raise ValueError(f"not JSON ({name} is not a number in JSON; use null)")


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


_OURS = json.JSONDecoder(object_pairs_hook=_object, parse_int=_int)
_OUTSIDE = json.JSONDecoder(object_pairs_hook=_object, parse_int=_int, parse_float=_float, parse_constant=_constant)
