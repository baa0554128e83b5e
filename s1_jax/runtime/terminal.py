r"""What is printed: texts of models, files and endpoints, without the characters that would steer a terminal.

Such a character is shown as Python writes it, `\x1b` or `\u202e`. All printing of commands goes through here; files
keep the text as it is.
"""

from __future__ import annotations

import re
import sys
from typing import Any, TextIO

# Control characters but for newline and tab, line separators, marks of the direction of writing, half surrogate pairs
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ud800-\udfff]")


def shown(text: str) -> str:
    """A text of several lines as a terminal may have it."""
    return STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def in_a_line(text: str) -> str:
    """A text as one line of a terminal: of an error, a table's cell, a note beside a bar."""
    return shown(text.strip("\n").replace("\n", " ").replace("\t", " "))


def say(text: object = "", file: TextIO | None = None, end: str = "\n", flush: bool = False) -> None:
    """Prints a text as `shown`, on standard output where no file is named."""
    print(shown(str(text)), file=file, end=end, flush=flush)


def say_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """In place of `warnings.showwarning`: one line on standard error."""
    say(f"warning: {in_a_line(str(message))}", file=sys.stderr)
