"""Fields of a config dataclass that come as a mapping: from Python, from a row of a file, from another program."""

from __future__ import annotations

import dataclasses
import difflib
import json
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from s1_jax.errors import UserError
from s1_jax.runtime.texts import NOT_UNICODE, is_unicode

T = TypeVar("T")


def override(base: T, values: Mapping[str, Any], where: str) -> T:
    """Return the config dataclass `base` with the fields in `values` replaced.

    Raises UserError naming `where` on an unknown field, and on a value that its field cannot take.
    """
    hints = typing.get_type_hints(type(base))
    for name, value in values.items():
        if name not in hints:
            near = difflib.get_close_matches(name, hints, n=1, cutoff=0.4)
            advice = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(hints)}"
            raise UserError(f"{where}: unknown field {name!r}; {advice}")
        if not is_unicode(json.dumps(value, ensure_ascii=False)):
            raise UserError(f"{where}: field {name!r} {NOT_UNICODE}")
    try:
        return dataclasses.replace(base, **values)  # type: ignore[type-var]
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
