r"""When an answer is the right one: whole numbers, plain numbers, the same text, and then math-verify.

gold 025    answer 25            right, by number
gold 1000   answer \$1,000.      right, by number
gold 10     answer 10\text{ cm}  right, by number
gold x+1    answer x+1           right, by text
gold \frac{1}{2}   answer 0.5    right, by math
gold 7      answer 9^{9^{9^9}}   wrong, undecided: nothing can tell within the time it has
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from s1_jax.tasks.math_helper import mathematically_equal

LONGEST = 2000  # characters; what is longer is no final answer, and is not compared as mathematics
GradedBy = Literal["none", "number", "text", "math", "letter", "judge", "unparsed", "undecided"]


class Verdict(NamedTuple):
    """Whether an answer is right, and what says so.

    `by` is "none" where there is no answer; "number", "text", "math" or "letter" for the rule that decided; "judge" for
    an LLM. Of what no rule could decide, "unparsed" is no letter and "undecided" all else: wrong until a judge has seen
    it.
    """

    correct: bool
    by: GradedBy


def grade_plain(answer: str | None, gold: str) -> Verdict:
    """Numbers are compared as numbers, all else as text."""
    return _settled(answer, gold) or Verdict(False, "text")


def grade_math(answer: str | None, gold: str) -> Verdict:
    """As `grade_plain`, but of other texts math-verify says whether they mean the same.

    Takes little more than 5 seconds of processor time, whatever is written. Raises RunError where math-verify cannot be
    started.
    """
    if verdict := _settled(answer, gold):
        return verdict
    assert answer is not None
    if max(len(answer), len(gold)) > LONGEST or MULTIPLIER.search(answer + gold):  # math-verify drops "million"
        return Verdict(False, "undecided")
    equal = mathematically_equal(gold, answer)
    return Verdict(False, "undecided") if equal is None else Verdict(equal, "math")


def plain_number(text: str) -> tuple[str, str] | None:
    r"""A plain number's digits without what does not count, and its percent sign or unit; None for all else.

    "1,000", "\$1{,}000." and "1000.0" are ("1000", ""), "10\text{ cm}" is ("10", "\text{ cm}"). Text, not a number:
    exact at any length.
    """
    if len(text) > LONGEST:
        return None
    bare = ORNAMENT.sub("", text.replace("{,}", ",").replace("−", "-"))
    bare = " ".join(bare.split()).removesuffix(".")  # runs of spaces would cost a search the square of their length
    unit = UNIT.search(bare)
    if unit and MULTIPLIER.search(unit[0]):
        return None
    number = NUMBER.fullmatch(bare[: unit.start()] if unit else bare)
    if not number or not (number["whole"] or number["part"]):
        return None
    whole, part = number["whole"].replace(",", "").lstrip("0") or "0", (number["part"] or "").rstrip("0")
    digits = f"{whole}.{part}" if part else whole
    return ("-" if number["sign"] == "-" and digits != "0" else "") + digits, unit[0].strip() if unit else ""


ORNAMENT = re.compile(r"\\! *|\\[$,;]|\$")
UNIT_NAMES = (
    r"(?:(?:square|cubic)\s+)?(?:cents?|dollars?|euros?|percent|degrees?|units?|mph|seconds?|minutes?|hours?|days?|weeks?"
    r"|months?|years?|inch(?:es)?|feet|foot|yards?|miles?|(?:milli|centi|kilo)?(?:met(?:er|re)|gram)s?|lit(?:er|re)s?"
    r"|pounds?|ounces?)"
)
UNIT = re.compile(
    r"(?:\s*(?:\\?%|\^\\circ|\^\{\\circ\}|°|\\(?:text|textrm|mathrm|mbox)\s*\{[^{}]*\}(?:\^\{?[0-9]\}?)?)"
    rf"|\s+{UNIT_NAMES}(?:\s+(?:per|an?)\s+[a-z]+)?|\s+per\s+[a-z]+)$",
    re.IGNORECASE,
)
MULTIPLIER = re.compile(r"\b(?:hundred|thousand|million|billion|trillion|dozen)", re.IGNORECASE)  # no unit of measure
NUMBER = re.compile(r"(?P<sign>[+-]?)\s*(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]*)(?:\.(?P<part>[0-9]*))?\s*")
WHOLE = re.compile(r"\s*[0-9]+\s*")


def _settled(answer: str | None, gold: str) -> Verdict | None:
    """What can be told without mathematics. Numbers that differ, and of which one has a unit, may still be the same."""
    if answer is None:
        return Verdict(False, "none")
    if WHOLE.fullmatch(answer) and WHOLE.fullmatch(gold):  # the reference's rule; as text, int() refuses 5,000 digits
        return Verdict(answer.strip().lstrip("0") == gold.strip().lstrip("0"), "number")
    given, expected = plain_number(answer), plain_number(gold)
    if given and expected:
        if given[0] == expected[0]:
            return Verdict(True, "number")
        if not given[1] and not expected[1]:
            return Verdict(False, "number")
    return Verdict(True, "text") if answer.strip() == gold.strip() else None
