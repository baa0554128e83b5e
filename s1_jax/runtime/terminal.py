r"""Printing of foreign text, of models, files and endpoints, without characters that control a terminal.

Such a character is printed as Python writes it, `\x1b` or `\u202e`. All commands print through this module; files keep
the text as it is.
"""

from __future__ import annotations

import re
import sys
from typing import Any, TextIO

# control characters except newline and tab, line separators, marks of writing direction, lone surrogates
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ud800-\udfff]")


def shown(text: str) -> str:
    """Escape the control characters of a text that may have several lines."""
    return STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def in_a_line(text: str) -> str:
    """Escape a text and put it on one line, for an error, a cell of a table, or a note beside a bar."""
    return shown(text.strip("\n").replace("\n", " ").replace("\t", " "))


def say(text: object = "", file: TextIO | None = None, end: str = "\n", flush: bool = False) -> None:
    """Print a text, escaped by `shown`, to standard output or to `file`."""
    print(shown(str(text)), file=file, end=end, flush=flush)


def say_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Replace `warnings.showwarning` by one line on standard error."""
    say(f"warning: {in_a_line(str(message))}", file=sys.stderr)
