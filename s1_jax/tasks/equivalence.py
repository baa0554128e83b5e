r"""Comparison of an answer with the gold answer: by number, by text, by exact value, and last by math-verify.

gold 025    answer 25            right, by number
gold 1000   answer \$1,000.      right, by number
gold 10     answer 10\text{ cm}  right, by number
gold x+1    answer x+1           right, by text
gold \frac{1}{2}   answer 0.5    right, by math
gold 2, 3    answer x = 3 or x = 2   right, by math: all of several answers, in any order
gold 2, 3    answer 2             wrong, by math
gold 70     answer The final answer is 70.   right, by number: sentences.py finds it
gold \$5    answer 5 cents       wrong, by number: units.py
gold \frac{1}{3}   answer 0.333  wrong, undecided: a rounded number may or may not be accepted
gold 7      answer 9^{9^{9^9}}   wrong, undecided: math-verify reached its time limit
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from s1_jax.tasks import shapes
from s1_jax.tasks.letters import letter_in
from s1_jax.tasks.math_process import mathematically_equal
from s1_jax.tasks.notation import tidy
from s1_jax.tasks.numerals import (
    DECIMAL_COMMA,
    LONGEST,
    WHOLE,
    plain_number,
    rational,
    rounded,
    same_in_base,
    same_times,
)
from s1_jax.tasks.sentences import phrase, reading, said_phrase
from s1_jax.tasks.units import MULTIPLIER, TRIGONOMETRIC, conversion, split_unit, unit_of

GradedBy = Literal["none", "number", "text", "math", "letter", "judge", "unparsed", "undecided"]


class Verdict(NamedTuple):
    """Whether an answer is correct, and which rule decided.

    `by` is "none" if there is no answer; "number", "text", "math" or "letter" for the rule that decided; "judge" for an
    LLM judge. If no rule could decide, `by` is "unparsed" for an answer that names no letter and "undecided" for any
    other; both count as wrong until a judge decides.
    """

    correct: bool
    by: GradedBy


DEGREES = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*\^\s*(?:\\circ|\{\s*\\circ\s*\})")
UNDECIDED = Verdict(False, "undecided")


def grade_plain(answer: str | None, gold: str) -> Verdict:
    """Compare numbers by value and other answers as text; a sentence that states one number counts as that number."""
    if verdict := _settled(answer, gold):
        return verdict
    assert answer is not None
    read = reading(answer) if len(answer) <= LONGEST else None
    verdict = _settled(read.answer, gold) if read else None
    return verdict if verdict and verdict.correct else Verdict(False, "text")


def grade_math(answer: str | None, gold: str) -> Verdict:
    """Compare an answer as `grade_plain` does, and as mathematics with math-verify where that cannot decide.

    An answer that no rule can decide gets "undecided". The call takes about 5 seconds of processor time at most,
    whatever the texts are. Raises RunError if math-verify cannot be started.
    """
    if verdict := _settled(answer, gold):
        return verdict
    assert answer is not None
    if max(len(answer), len(gold)) > LONGEST or MULTIPLIER.search(answer + gold):  # math-verify drops "million"
        return UNDECIDED
    if (words := _same_words(gold, answer)) is not None:
        return Verdict(words, "math")
    expected, given = reading(gold), reading(answer)
    if expected is None or given is None or not expected.sure:
        return UNDECIDED
    verdict = _settled(given.answer, expected.answer)
    if verdict is None:
        same = same_formulas(expected.answer, given.answer)
        verdict = UNDECIDED if same is None else Verdict(same, "math")
    return verdict if verdict.correct or given.sure else UNDECIDED


def same_formulas(gold: str, answer: str) -> bool | None:
    """Return whether two tidy formulas, with their units, are equal; None if no rule can decide."""
    if gold == answer:
        return True
    (expected, unit), (given, other) = split_unit(gold), split_unit(answer)
    sizes = conversion(unit, other)
    if rational(expected) is not None and rational(given) is not None:
        return _same_values(expected, given, unit, other)
    for same in (same_in_base(expected, given), same_times(expected, given)):
        if not isinstance(same, str):
            return same and sizes is not False
    if sizes is False:
        return False
    if sizes is None or sizes[0] != sizes[1]:
        return None
    if _measures(unit, "angle") != _measures(other, "angle") and r"\pi" in expected + given:
        return _same_angle(expected, given, _measures(unit, "angle"))
    if {expected, given} & {_decimal_point(expected), _decimal_point(given)}:
        return None
    if shapes.has_inner_unit(expected) or shapes.has_inner_unit(given):  # math-verify takes "m" for a variable
        return None
    return _asked(expected, given)


def _settled(answer: str | None, gold: str) -> Verdict | None:
    """Return the verdict that needs no mathematics; None where numbers differ but a unit may make them equal."""
    if answer is None:
        return Verdict(False, "none")
    if WHOLE.fullmatch(answer) and WHOLE.fullmatch(gold):  # as in s1's code, but as text: int() refuses 5,000 digits
        return Verdict(answer.strip().lstrip("0") == gold.strip().lstrip("0"), "number")
    given, expected = plain_number(answer), plain_number(gold)
    if given and expected:
        if given[0] == expected[0]:
            same = _same_values(expected[0], given[0], expected[1], given[1])
            return None if same is None else Verdict(same, "number")
        if not given[1] and not expected[1]:
            return Verdict(False, "number")
    return Verdict(True, "text") if answer.strip() == gold.strip() else None


def _same_values(gold: str, answer: str, unit: str, other: str) -> bool | None:
    """Return whether two numbers with their written units ("" for none) are the same."""
    expected, given = rational(gold), rational(answer)
    assert expected is not None and given is not None
    sizes = conversion(unit, other)
    if not isinstance(sizes, tuple):
        return False if sizes is False or expected != given else None
    if bool(unit) != bool(other) and _measures(unit or other, "fraction"):
        if expected == given:  # "0.5%" for 0.5 may be a notation or a mistake
            return True if abs(expected) > 1 or not expected else None
        return expected * (100 if other else 1) == given * (100 if unit else 1)
    if expected * sizes[0] == given * sizes[1]:
        return True
    return None if sizes[0] == sizes[1] and rounded(gold, answer) else False


def _same_words(gold: str, answer: str) -> bool | None:
    """Return whether two answers are the same words; None if the gold answer is no word or a synonym is possible."""
    right = tidy(gold)
    expected = phrase(right)
    if expected is None or "\n" in gold:
        return None
    given = phrase(tidy(answer))
    if len(expected) == 1:
        return _same_letter(right, answer)
    if expected in (given, said_phrase(answer)):
        return True
    if given is None:
        return None
    several = {" ", "-"} & set(given + expected)
    alike = given.rstrip("s") == expected.rstrip("s") or {given, expected} & NUMBER_WORDS
    return None if several or alike else False


def _same_letter(gold: str, answer: str) -> bool | None:
    r"""Return whether an answer names the letter of the gold choice, as in \text{(C)}; None if one names no letter."""
    expected, given = letter_in(gold), letter_in(answer)
    return None if expected is None or given is None else expected == given


def _same_angle(gold: str, answer: str, in_degrees: bool) -> bool | None:
    """Return whether an angle in degrees equals one in radians; None if math-verify does not say that it does."""
    degrees, radians = (gold, answer) if in_degrees else (answer, gold)
    same = mathematically_equal(radians, rf"({degrees}) \cdot \frac{{\pi}}{{180}}")
    return same or None


def _asked(gold: str, answer: str) -> bool | None:
    """Return math-verify's verdict on two formulas without units; None where it is not reliable."""
    answer = shapes.split_like(gold, answer)
    counts = shapes.tuples(gold), shapes.tuples(answer)
    if all(counts) and counts[0] != counts[1]:
        return False
    gold, answer = (_in_radians(shapes.without_member(text)) for text in (gold, answer))
    gold, answer, other_kind = shapes.in_one_kind(gold, answer)
    same = mathematically_equal(gold, answer)
    if same is None or other_kind is None:
        return None
    return same if same is False and not other_kind else (True if same and shapes.may_be_same(gold, answer) else None)


def _in_radians(text: str) -> str:
    r"""Convert the degrees in "\sin 45^\circ" to multiples of pi, which math-verify understands."""
    return DEGREES.sub(r"(\\frac{\1 \\pi}{180})", text) if TRIGONOMETRIC.search(text) else text


def _measures(unit: str, quantity: str) -> bool:
    named = unit_of(unit)
    return named is not None and named.quantities == ((quantity, 1),)


def _decimal_point(text: str) -> str | None:
    """Replace a decimal comma with a point; None for a text that has none."""
    return text.replace(".", "").replace(",", ".") if DECIMAL_COMMA.fullmatch(text) else None


NUMBER_WORDS = set(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety half".split()
)
