"""Checks that text is valid Unicode, as files and tokenizers need it; Python's strings need not be.

JSON can contain half of a surrogate pair, and bytes on a command line that are not UTF-8 become such halves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from s1_jax.errors import UserError

SHOWN = 60  # characters of a text in a message
NOT_UNICODE = "contains half of a surrogate pair; it is not valid Unicode"  # said of a text that `is_unicode` refuses


def is_unicode(text: str) -> bool:
    """Whether a text is free of lone halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_texts(value: Any, name: str = "") -> None:
    """Raise UserError if a config, or a list or mapping in it, contains text that is not valid Unicode.

    `name` is the name of the option; it is empty for the config itself.
    """
    if isinstance(value, str):
        if not is_unicode(value):
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"{option} {value[:SHOWN]!a} is not valid UTF-8, or contains half of a surrogate pair")
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            check_texts(getattr(value, field.name), f"{name}.{field.name}" if name else field.name)
    elif isinstance(value, Mapping):
        check_texts([*value.keys(), *value.values()], name)
    elif isinstance(value, list | tuple):
        for one in value:
            check_texts(one, name)
