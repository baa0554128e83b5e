r"""Extraction of the answer from a sentence, where rules can tell which it is.

The final answer is $\frac{3}{4}$.           \frac{3}{4}, surely
73 (since 70 + 3)                            73, surely: only a reason follows
35\n\nStep 1: I'll add the apples.           35, surely: the first line
9 * 2 = 18\n\nStep 2: ...                    9 * 2 = 18, surely
There are 70 ways.                           70, perhaps: the only number in the sentence
It is 3 or 5. / It is not 3. / At least 3.   undecided
73, no, wait: 74                             undecided
"""

from __future__ import annotations

import re
from itertools import islice
from typing import NamedTuple

from s1_jax.tasks.notation import tidy, unwrap
from s1_jax.tasks.numerals import rational
from s1_jax.tasks.shapes import with_one_unit
from s1_jax.tasks.units import split_unit, unit_of

COMMAND = re.compile(r"\\text\s*\{([^{}]*)\}|\\(?:begin|end)\s*\{[a-zA-Z*]*\}|\\[A-Za-z]+")
WORD = re.compile(  # not "xyz" or "abc", which are products
    r"(?<![A-Za-z])(?:(?!(?:abcd?|ABCD?)(?![A-Za-z]))(?=[A-Za-z]*[aeiouAEIOU])[A-Za-z]{3,}|[Ii]s|[Ii]t|[Nn]o|[Oo]f|[Ss]o|[Tt]o|[Ii]n|[Oo]r|[Ii]f|[Aa]n)"
    r"(?![A-Za-z])"
)
AND_OR = re.compile(r"\\text\{\s*(?:and|or)\s*\}")
SAYS = re.compile(
    r"\b(?:answer|ans)\b[*_\s]{0,4}(?:\([a-z ]{1,30}\)\s?|to [^.\n:]{1,60} )?(?:is|=|:|would be|must be|should be)"
    r"\s*(?:equal to\s)?:?(?P<said>[^\n]*(?:\n\s*[^\n]+)?)",
    re.IGNORECASE,
)
NOTHING = re.compile(r"[\s*_:.$]*")
LABEL = re.compile(r"(?:final answer|answer|result|solution|total|conclusion|output)\s*:", re.IGNORECASE)
TURNS = re.compile(  # words that take back, soften or choose
    r"\b(?:not|no|nor|never|neither|wait|actually|instead|however|but|wrong|incorrect|correction|corrected|mistake"
    r"|mistaken|oops|sorry|or|either|otherwise|maybe|perhaps|unless|rather|except|cannot|impossible|undefined|false"
    r"|hmm|alternatively|[a-z]+n['’]t)\b",
    re.IGNORECASE,
)
VAGUE = re.compile(  # words that make a number a bound, a part or a step
    r"\b(?:about|around|approximately|approx|roughly|nearly|almost|least|most|less|more|fewer|greater|larger|smaller|over"
    r"|under|below|above|between|from|to|up|than|step|case|part|question|problem|half|halves|third|thirds|times|twice"
    r"|double|squared|cubed|square|cube|root|power|mod|modulo|base|factorial|dozen|hundred|thousand|million|billion"
    r"|trillion|minus|plus|divided|multiplied|of|per|tens?|ones|digits?|january|february|march|april|may|june|july|august|september"
    r"|october|november|december)\b",
    re.IGNORECASE,
)
TAIL = re.compile(  # where a reason or a comment begins
    r"\s\((?=[a-z]{2})|[,;:.]?\s(?=(?:because|since|as|so|where|which|for|by|that|i\.e\.|thus|hence|therefore|this|these"
    r"|the|it|we|let|done|step|check|using|from|after|given)\b)|\.\s(?=[A-Z])|\s[–—-]{1,3}\s(?=[a-z]{2})",
    re.IGNORECASE,
)
NUMERAL = re.compile(
    r"(?<![A-Za-z0-9_.\\])[+-]?(?:\\\$\s?)?(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)(?:\s?/\s?[0-9]+(?![0-9.]))?(?![A-Za-z0-9])"
)
NO_SENTENCE = re.compile(r"[0-9\\^_<>|+*/%]")
NEXT_WORD = re.compile(r"\s*([A-Za-z]+)")
DISPLAY = re.compile(r"(?:\\\[|\$\$)\n|\n(?:\\\]|\$\$)")
FEW = 8  # matches in a text that are checked
LONGEST_LINE = 300  # characters of a sentence


class Reading(NamedTuple):
    """One answer in the common notation, and whether it is certain that it was meant."""

    answer: str
    sure: bool


def reading(text: str) -> Reading | None:
    """Return the answer that a text states; None if the text leaves it open."""
    text = "\n".join(line.strip() for line in unwrap(text).split("\n") if line.strip())
    text = DISPLAY.sub(lambda found: found[0].strip(), text)
    whole = with_one_unit(tidy(text))
    lines = [line.strip() for line in text.split("\n") if tidy(line[:LONGEST_LINE])]
    if not lines:
        return None
    if is_formula(whole) and (len(lines) == 1 or r"\begin" in text):
        return Reading(whole, True)
    first, rest = lines[0], text[text.index(lines[0]) + len(lines[0]) :]
    formula = _formula(first)
    if (said := _said(text)) is not None:
        return said if said.answer and formula in (None, said.answer) else None
    if len(first) > LONGEST_LINE or TURNS.search(rest) or LABEL.search(rest) or _other_answers(formula, lines[1:]):
        return None
    if formula is not None:
        return Reading(formula, True)
    if (head := _head(first)) is not None:
        return Reading(head, True)
    only = _only_number(first)
    return Reading(only, False) if only is not None else None


def is_formula(text: str) -> bool:
    """Return whether a tidy text contains no words except "and", "or" and a unit."""
    value, _ = split_unit(text)
    return not WORD.search(COMMAND.sub(lambda found: found[1] or " ", AND_OR.sub(",", value)))


def phrase(text: str) -> str | None:
    r"""Return the words of an answer in words, without an article: "\text{An ellipse}" is "ellipse"; else None."""
    bare = COMMAND.sub(lambda found: found[1] or "\\", text)
    words = re.sub(r"^(?:an?|the)\s+(?=\S)", "", " ".join(bare.strip(" .()").split()).casefold())
    if not re.fullmatch(r"[^\W\d_]+(?:[ '-]{1,3}[^\W\d_]+)*", words):
        return None
    return words if r"\text" in text or not is_formula(text) else None


def said_phrase(text: str) -> str | None:
    """Return the words after "the answer is", up to the end of the sentence; None if several such phrases differ."""
    found = {phrase(tidy(re.split(r"[.\n]", said)[0])) for said in _sayings(text)}
    return found.pop() if len(found) == 1 else None


def _sayings(text: str) -> list[str]:
    found = [match["said"].strip() for match in islice(SAYS.finditer(text), FEW)]
    found = [said.replace("**", "", 2) if said.startswith("**") else said for said in found]
    found = [said.lstrip("} ") for said in found]
    return [said for said in found if not NOTHING.fullmatch(said)]


def _said(text: str) -> Reading | None:
    """Return what follows "the answer is"; an empty answer if there are several, None if the phrase is missing."""
    sayings = _sayings(text)
    if not sayings:
        return None
    found = {_formula(said.split("\n")[0]) or _head(said) or "" for said in sayings}
    return Reading(found.pop() if len(found) == 1 else "", True)


def _formula(line: str) -> str | None:
    """Return the line in one notation if it is a formula, else None."""
    bare = with_one_unit(tidy(line))
    return bare if bare and is_formula(bare) and not bare.endswith((r"\text{ or }", r"\text{ and }")) else None


def _head(line: str) -> str | None:
    """Return the formula that a line begins with, if only a reason or a comment follows it."""
    for tail in islice(TAIL.finditer(line), FEW):
        if head := _formula(line[: tail.start()]):
            return None if TURNS.search(line, tail.start()) else head
    return None


def _only_number(line: str) -> str | None:
    """Return the only number in a sentence that counts something, or the right side of an equation in words."""
    line = tidy(line)
    if TURNS.search(line) or VAGUE.search(line):
        return None
    if "=" in line:
        last = line.rpartition("=")[2].strip()
        return last if is_formula(last) and rational(split_unit(last).value) is not None else None
    found = [*NUMERAL.finditer(line)]
    if len(found) != 1 or NO_SENTENCE.search(NUMERAL.sub(" ", line)):
        return None
    number, word = found[0][0].strip(), NEXT_WORD.match(line, found[0].end())
    unit = unit_of(word[1]) if word else None
    return f"{number} {word[1]}" if word and unit and unit.quantities else number


def _other_answers(formula: str | None, lines: list[str]) -> bool:
    """Return whether a later line is another number, which makes the first one of several answers."""
    below = [tidy(line) for line in lines[:FEW] if len(line) < LONGEST_LINE]
    return any(line != formula and rational(split_unit(line).value) is not None for line in below)
