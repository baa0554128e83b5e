r"""Classification of formulas as lists, sets, tuples, intervals, vectors, inequalities or equations.

2 \le x < 5              is [2,5)                     x \ge 2 \text{ and } x < 5 too
x < 1 \text{ or } x > 3  is (-\infty,1) \cup (3,\infty)
a column of two numbers  is (a,b)                     \langle a,b \rangle too
\{1,2\} and (1,2)        are different, whatever math-verify says about their numbers
3,3,5 and 3,5,5          are different
3 cm, 5 cm               is 3, 5 cm
100,200                  is 100, 200 if the gold answer is a list of two
"""

from __future__ import annotations

import re
from collections import Counter

from s1_jax.tasks.units import split_unit

OPENERS, CLOSERS = "([{", ")]}"
LIST_WORD = re.compile(r"\s*(?:,\s*)?\\text\{\s*(?:and|or)\s*\}\s*|\s*[,;]\s*")
GROUPED = re.compile(r"(?<![0-9.,])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9])")
BOUND = r"[^<>=,;]+?"
RELATION = r"(\\le(?![a-zA-Z])|\\ge(?![a-zA-Z])|<|>)"
RELATIONS = re.compile(RELATION)
VARIABLE = re.compile(r"[A-Za-z](?:_\{?[0-9A-Za-z]\}?)?|\\(?:alpha|beta|gamma|theta|lambda|phi)")
MEMBER = re.compile(r"(?:[A-Za-z]|\\theta)\s*\\in\s*(?=[\[(\\])")
COLUMN = re.compile(r"\\begin\s*\{([pbBv]?)matrix\}(.*)\\end\s*\{\1matrix\}")
ARROW = re.compile(r"\\langle(.*)\\rangle")
COMMAND = re.compile(r"\\text\s*\{[^{}]*\}|\\(?:begin|end)\s*\{[a-zA-Z]*\}|\\[A-Za-z]+")
UNSURE = (r"\ldots", r"\approx", "mod", r"\text")  # math-verify drops or misreads these
LETTER = re.compile(r"[A-Za-z]")


def elements(text: str) -> list[str]:
    """Split a list, or the content of one bracket, at commas, semicolons, "and" and "or" outside inner brackets."""
    text = _inside(" ".join(text.split()))
    found, depth, start, position = [], 0, 0, 0
    while position < len(text):
        character = text[position]
        if character in OPENERS:
            depth += 1
        elif character in CLOSERS:
            depth -= 1
        if not depth and (word := LIST_WORD.match(text, position)):
            found.append(text[start:position])
            start = position = word.end()
            continue
        position += 1
    return [*found, text[start:]]


def bracket(text: str) -> str:
    """Return the bracket around the whole text: "(", "[", "(]" or "[)" for a half-open one, "{" for a set, or ""."""
    text = text.strip()
    if text.startswith(r"\{") and text.endswith(r"\}") and _closes_at_end(text[1:].replace(r"\}", "}")):
        return "{"
    if text[:1] not in tuple(OPENERS) or text[-1:] not in tuple(CLOSERS) or not _closes_at_end(text):
        return ""
    pair = text[0] + text[-1]
    return {"()": "(", "[]": "[", "{}": "{"}.get(pair, pair)


def with_one_unit(text: str) -> str:
    r"""Write the unit that all elements of a list share once: "3 cm, 5 cm" becomes "3, 5 cm", "\$3, \$5" "\$3, 5"."""
    parts = [] if bracket(text) else [split_unit(element) for element in elements(text)]
    units = {part.unit for part in parts}
    if len(parts) < 2 or len(units) > 1:
        return text
    values, unit = ", ".join(part.value for part in parts), units.pop()
    return next((shared for shared in (f"{values} {unit}", unit + values) if split_unit(shared).unit), text)


def has_inner_unit(text: str) -> bool:
    """Return whether an element of a list has a unit of its own, as in "3 m, 5" before the unit of the whole list."""
    found = [] if bracket(text) else elements(text)
    return len(found) > 1 and any(split_unit(element).unit for element in found)


def split_like(gold: str, answer: str) -> str:
    """Read the commas within an answer's numbers so that it has as many elements as a gold list, if it can.

    For a list of two, "100,200" becomes "100, 200" and "1,000, 2" becomes "1000, 2".
    """
    count = 1 if bracket(gold) else len(elements(gold))
    whole = GROUPED.sub(lambda found: found[0].replace(",", ""), answer)
    apart = GROUPED.sub(lambda found: found[0] if ",0" in found[0] else found[0].replace(",", ", "), answer)
    return next((text for text in (whole, apart) if count > 1 and len(elements(text)) == count), answer)


def tuples(text: str) -> int:
    r"""Return how many different tuples a list consists of; 0 if one of its elements is no tuple, or has a \pm."""
    found = elements(text)
    if r"\pm" in text or r"\mp" in text:
        return 0
    if bracket(text) == "(" and not any(map(bracket, found)):
        found = [text]
    return len({"".join(one.split()) for one in found}) if all(bracket(one) == "(" for one in found) else 0


def as_interval(text: str) -> str | None:
    r"""Convert an inequality in one variable to an interval or a union: "x \ge 2" is [2,\infty); else None."""
    for word, joined in ((r"\text{ or }", r" \cup "), (r"\text{ and }", None)):
        if word in text:
            parts = [as_interval(part) for part in text.split(word)]
            if len(parts) != 2 or None in parts or len({_variable(part) for part in text.split(word)}) != 1:
                return None
            return joined.join(str(part) for part in parts) if joined else _both(str(parts[0]), str(parts[1]))
    pieces = [piece.strip() for piece in RELATIONS.split(text)]
    if len(pieces) == 3:
        left, sign, right = pieces
        if VARIABLE.fullmatch(right) and not VARIABLE.fullmatch(left):
            left, sign, right = right, _mirrored(sign), left
        if not VARIABLE.fullmatch(left) or not _is_bound(right):
            return None
        if sign in (">", r"\ge"):
            return f"{'(' if sign == '>' else '['}{right},\\infty)"
        return f"(-\\infty,{right}{')' if sign == '<' else ']'}"
    if len(pieces) == 5:
        low, first, middle, second, high = pieces
        if first in (">", r"\ge"):
            low, first, second, high = high, _mirrored(second), _mirrored(first), low
        if not (VARIABLE.fullmatch(middle) and _is_bound(low) and _is_bound(high)) or second not in ("<", r"\le"):
            return None
        return f"{'(' if first == '<' else '['}{low},{high}{')' if second == '<' else ']'}"
    return None


def is_interval(text: str) -> bool:
    """Return whether a text is an interval or a union of intervals."""
    parts = text.split(r"\cup")
    return all(bracket(part) in ("(", "[", "(]", "[)") and len(elements(part)) == 2 for part in parts)


def without_member(text: str) -> str:
    r"""Remove the member from a membership: "x \in [-2,7]" becomes "[-2,7]"."""
    return text[found.end() :] if (found := MEMBER.match(text)) else text


def as_tuple(text: str) -> str | None:
    r"""Convert a vector to a tuple: a matrix with one row or one column, or \langle a,b \rangle; else None."""
    text = text.strip()
    if found := ARROW.fullmatch(text):
        return f"({found[1].strip()})"
    found = COLUMN.fullmatch(text)
    if not found or found[1] == "v" or r"\begin" in found[2]:
        return None
    rows = [row.strip() for row in found[2].strip().removesuffix(r"\\").split(r"\\")]
    entries = rows if all("&" not in row for row in rows) else rows[0].split("&") if len(rows) == 1 else []
    return f"({','.join(entry.strip() for entry in entries)})" if len(entries) > 1 else None


def in_one_kind(gold: str, answer: str) -> tuple[str, str, bool | None]:
    r"""Convert both formulas to intervals or to tuples if one of them is an inequality or a vector.

    The third value says whether they are still of different kinds, so that "different" decides nothing. It is None if
    "equal" decides nothing either, as for a row and a column.
    """
    expected, given = as_interval(gold), as_interval(answer)
    if expected and given:
        return (expected, given, False) if _variables(gold) == _variables(answer) else (gold, answer, False)
    if expected and is_interval(answer):
        return expected, answer, False
    if given and is_interval(gold):
        return gold, given, False
    vectors = as_tuple(gold), as_tuple(answer)
    if any(vectors):
        one, other = vectors[0] or gold, vectors[1] or answer
        if bracket(one) == bracket(other) == "(":
            turned = all(vectors) and ("&" in gold) != ("&" in answer)
            return one, other, None if turned else False
        return gold, answer, True
    kinds = {bracket(gold), bracket(answer)}
    relations = [bool(RELATIONS.search(text)) or r"\ne" in text for text in (gold, answer)]
    other_kind = relations[0] != relations[1] or (
        len(kinds) > 1 and max(len(elements(gold)), len(elements(answer))) > 1
    )
    return gold, answer, other_kind or any(word in gold + answer for word in UNSURE)


def may_be_same(gold: str, answer: str) -> bool:
    """Return whether two formulas agree in what math-verify ignores: set or tuple, repeated elements, case."""
    if ("=" in gold) != ("=" in answer) and 1 in (len(elements(gold)), len(elements(answer))):
        gold, answer = gold.rpartition("=")[2], answer.rpartition("=")[2]  # "(x,y) = (3,4)" for (3,4)
    kinds = {bracket(gold), bracket(answer)}
    lists = elements(gold), elements(answer)
    if "{" in kinds and kinds & {"(", "[", "(]", "[)"} and max(map(len, lists)) > 1:
        return False
    if max(map(len, lists)) > 1 and r"\pm" not in gold + answer and r"\mp" not in gold + answer:
        counts = [Counter("".join(one.split()) for one in each) for each in lists]
        repeated = any(count > 1 for each in counts for count in each.values())
        if len(lists[0]) != len(lists[1]) or (repeated and counts[0] != counts[1]):
            return False
    letters = [set(LETTER.findall(COMMAND.sub("", text))) for text in (gold, answer)]
    lower = [{letter.lower() for letter in each} for each in letters]
    if lower[0] == lower[1] and letters[0] != letters[1]:
        return False
    return ("'" in gold) == ("'" in answer)


def _inside(text: str) -> str:
    text = text.strip()
    kind = bracket(text)
    if not kind:
        return text
    return text[2:-2] if text.startswith(r"\{") else text[1:-1]


def _closes_at_end(text: str) -> bool:
    """Return whether the bracket that opens the text is the one that its last character closes."""
    depth = 0
    for i, character in enumerate(text):
        depth += (character in OPENERS) - (character in CLOSERS)
        if depth <= 0:
            return i == len(text) - 1
    return False


def _mirrored(sign: str) -> str:
    return {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}[sign]


def _is_bound(text: str) -> bool:
    """Return whether a text is a constant: no variable, no list."""
    return bool(text) and "," not in text and "=" not in text and not LETTER.search(COMMAND.sub("", text))


def _variables(text: str) -> set[str]:
    pieces = re.split(r"\\text\{ (?:and|or) \}", text)
    return {_variable(piece) for piece in pieces}


def _variable(text: str) -> str:
    return next((piece.strip() for piece in RELATIONS.split(text)[::2] if VARIABLE.fullmatch(piece.strip())), "")


def _both(one: str, other: str) -> str | None:
    r"""Return the intersection of two half-lines: [2,\infty) and (-\infty,5) give [2,5); else None."""
    lower, upper = (one, other) if one.endswith(r"\infty)") else (other, one)
    if not (lower.endswith(r",\infty)") and upper.startswith(r"(-\infty,")):
        return None
    return lower.removesuffix(r"\infty)") + upper.removeprefix(r"(-\infty,")
