r"""Normalization of answers to one LaTeX notation, without punctuation, Markdown or keyboard notation.

**73**.            73                 $\frac{1}{2}$,      \frac{1}{2}
\text{(C)}         (C)                \left( 3, 4 \right)  ( 3, 4 )
x**2, x²           x^2, x^{2}         √(2·3)              \sqrt{2\cdot 3}
-2*pi              -2\cdot \pi        (−∞, 2]             (-\infty , 2]
exp(16)            e^{16}             x <= 2              x \le 2
1{,}000, 1\,000    1,000, 1 000       12^{\text{th}}      12

Each rule passes over the text once, so the time is linear in its length.
"""

from __future__ import annotations

import re

from s1_jax.tasks.symbols import (
    BASES,
    CHARACTERS,
    COMMANDS,
    FUNCTIONS,
    LOWERED,
    LOWERED_RUN,
    NAMES,
    RAISED,
    RAISED_RUN,
)

TAGS = re.compile(r"</?(?:answer|strong|s|br|sup|sub)\s*/?>", re.IGNORECASE)
FONT = re.compile(
    r"\\(?:text|textbf|textit|textrm|textnormal|texttt|mathrm|mathbf|mathit|mathsf|mathnormal|boldsymbol|bm|mbox|boxed"
    r"|fbox|framebox|operatorname|emph|underline)\s*\{([^{}\\]*)\}"
)
ONLY_FONT = re.compile(r"\\(?:mathbf|boldsymbol|bm|mathit|boxed|fbox|framebox|underline)\b")
SIZED = re.compile(r"\\(?:left|right)(?![A-Za-z])")
DOUBLED = re.compile(r"\\\\(?=[A-Za-z])")
TOKEN = re.compile(
    r"\\\\|\\text\s*\{[^{}]*\}|\\(?:begin|end)\s*\{[a-zA-Z*]*\}|\\[A-Za-z]+|\\[!,;:> ]"
    r"|\*+|<=|>=|!=|=<|=>|~|[A-Za-z]+|\{,\}"
)
ORDINAL = re.compile(r"(?<=[0-9])\s*(?:\^\s*\{?\s*)?(?:\\text\{\s*)?(?:st|nd|rd|th)\b(?:\s*\}){0,2}")
BASE = re.compile(r"_\s*\{\s*\\text\{\s*(?:base )?(" + "|".join(BASES) + r")\s*\}\s*\}")
ENVELOPES = (
    *(("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("```", "```"), ("``", "``"), ("`", "`")),
    *((mark, mark) for mark in ('"', "'", "**", "__", "*", "_", "~~")),
)
ARGUMENT = re.compile(r"(?:\\sqrt(?:\[[^\]\[]*\])?|\\exp|\^)\s*(?=[({0-9A-Za-z])")
DIGITS = re.compile(r"[0-9]+(?:\.[0-9]+)?")
BEFORE = ",;:= \t\n\r\f\v\0~"
AFTER = ".,;:= \t\n\r\f\v\0~"
ENDLESS = 8  # nested envelopes that are opened


def tidy(text: str) -> str:
    """Rewrite an answer in one notation; parts that it cannot read stay as they are."""
    text = TAGS.sub(" ", text)
    text = RAISED_RUN.sub(lambda run: f"^{{{run[0].translate(RAISED)}}}", text)
    text = LOWERED_RUN.sub(lambda run: f"_{{{run[0].translate(LOWERED)}}}", text)
    text = unwrap(text.translate(CHARACTERS))
    if r"\begin" not in text:
        text = DOUBLED.sub(r"\\", text)
    text = SIZED.sub("", text)  # as in \text{\left(C\right)}
    for _ in range(2):  # \textbf{\text{...}}
        text = FONT.sub(_font, text)
    text = unwrap(text.strip())
    text = BASE.sub(lambda base: f"_{{{BASES[base[1]]}}}", text)
    text = ORDINAL.sub("", TOKEN.sub(_token, text))
    text = _unescaped_dollars(text)
    text = _braced_arguments(text)
    return unwrap(" ".join(text.split()))


def unwrap(text: str) -> str:
    r"""Remove what encloses the whole text: "**$5$.**", "= 5" and "### 5" become "5"."""
    for _ in range(ENDLESS):
        before = text
        text = _without_marks(text)
        for opener, closer in ENVELOPES:
            inner = text[len(opener) : len(text) - len(closer)]
            whole = text.startswith(opener) and text.endswith(closer) and len(text) > len(opener) + len(closer)
            if whole and opener not in inner and closer not in inner and not inner.endswith("\\"):
                text = inner
        if text == before:
            break
    return text


def _without_marks(text: str) -> str:
    """Strip white space and punctuation; a point before digits belongs to them."""
    text = text.lstrip(BEFORE)
    if text.startswith("#"):
        text = text.lstrip("#").lstrip(BEFORE)
    end = len(text)
    while end and text[end - 1] in AFTER:
        end -= 2 if text[end - 2 : end - 1] == "\\" else 1  # "\\," is a LaTeX space
    return text[: max(end, 0)]


def _font(found: re.Match[str]) -> str:
    """Replace a font command by its text if that contains no words."""
    inner = found[1]
    if ONLY_FONT.match(found[0]) or not any(character.isalpha() for character in inner):
        return inner
    bare = inner.strip("(). ")
    if found[0].startswith(r"\operatorname") and bare in FUNCTIONS | {"exp"}:
        return f"\\{bare} "
    if bare in ("i", "e", "d") and found[0].startswith(r"\math"):
        return inner
    return f"\\text{{{inner}}}"


def _token(found: re.Match[str]) -> str:
    token = found[0]
    if token == r"\\":
        return token
    if token.startswith("\\"):
        if token[1].isalpha():
            name = token[1:]
            return COMMANDS.get(name, token)
        return "" if token == r"\!" else " "
    if token[0] == "*":
        return {1: r"\cdot ", 2: "^"}.get(len(token), token)
    if token in ("<=", "=<"):
        return r"\le "
    if token == ">=":
        return r"\ge "
    if token == "!=":
        return r"\ne "
    if token == "~":
        return " "
    if token == "{,}":
        return ","
    if token in FUNCTIONS:
        return f"\\{token} "
    if token in ("and", "or"):
        return f"\\text{{ {token} }}"
    if token in NAMES:
        return NAMES[token]
    if token == "i" and found.string[found.start() - 1 : found.start()].isdigit():
        return " i"  # math-verify takes a letter by itself for the imaginary unit
    if token == "U":
        before, after = found.string[: found.start()].rstrip()[-1:], found.string[found.end() :].lstrip()[:1]
        return r"\cup " if before in tuple(")]}") and after in tuple("([{\\") else token
    return token


def _unescaped_dollars(text: str) -> str:
    r"""Remove the dollar signs around formulas; a single one stands for money."""
    pieces = re.split(r"(?<!\\)\$", text)
    return "".join(pieces) if len(pieces) % 2 or len(pieces) > 2 else r"\$".join(pieces)


def _braced_arguments(text: str) -> str:
    r"""Put the arguments of roots and exponents in braces: "\sqrt(2+x)", "\sqrt 12", "^(1/2)", "\exp(16)"."""
    partners = _partners(text)
    changed: dict[int, str] = {}
    for command in ARGUMENT.finditer(text):
        start = command.end()
        if command[0].startswith(r"\exp"):
            changed |= dict.fromkeys(range(command.start(), start), "") | {command.start(): "e^"}
        if start in partners:
            changed |= {start: "{", partners[start]: "}"}
        elif command[0].startswith(r"\sqrt") and (number := DIGITS.match(text, start)):
            last = number.end() - 1
            changed |= {start: "{" + text[start], last: text[last] + "}"}
            if last == start:
                changed[start] = "{" + text[start] + "}"
    return "".join(changed.get(i, character) for i, character in enumerate(text))


def _partners(text: str) -> dict[int, int]:
    """Map the index of each opening parenthesis to that of its closing one."""
    partners, opened = {}, []
    for i, character in enumerate(text):
        if character == "(":
            opened.append(i)
        elif character == ")" and opened:
            partners[opened.pop()] = i
    return partners
