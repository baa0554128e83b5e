"""Texts that files and tokenizers take: valid Unicode, which Python's strings need not be.

JSON can hold half of a surrogate pair, and bytes of a command line that are no UTF-8 become such halves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from s1_jax.errors import UserError

SHOWN = 60  # characters of a text in a message


def is_unicode(text: str) -> bool:
    """False where half of a surrogate pair stands alone."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_texts(value: Any, name: str = "") -> None:
    """Raises UserError where a config, or a list or mapping in it, holds a text that is not valid Unicode.

    `name` is that of the option, empty for the config itself.
    """
    if isinstance(value, str):
        if not is_unicode(value):
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"{option} {value[:SHOWN]!a} is not valid UTF-8, or holds half of a surrogate pair")
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            check_texts(getattr(value, field.name), f"{name}.{field.name}" if name else field.name)
    elif isinstance(value, Mapping):
        check_texts([*value.keys(), *value.values()], name)
    elif isinstance(value, list | tuple):
        for one in value:
            check_texts(one, name)
