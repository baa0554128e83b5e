r"""Extraction of the letter of a choice, with or without the choice's text.

b   (B)   [B]   "B"   \text{B}.   **B**        B
B) Mercury   B: Mercury   B - water            B
Option B   choice (B)   The answer is B.       B
B, because it is closest                       B
Mercury   A or B   A. thaliana grows faster    none
"""

from __future__ import annotations

import re

LETTERS = "ABCD"
LONGEST = 2000  # characters that are read
AROUND_A_LETTER = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\b|[\s(){}*$.:]")
FONT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathsf|mbox|boldsymbol|bm|boxed)\s*(?=\{)")
NAME = re.compile(
    r"(?:the\s+)?(?:(?:correct|right|final|best)\s+)?(?:option|choice|answer|letter)(?:\s+choice)?\b\s*(?:is\b)?\s*:?\s*",
    re.IGNORECASE,
)
OPENED = " \t([{\"'“‘*`$_"
CLOSED = re.compile(r"[\])}\"'”’*`$_]+")
FOLLOWS = re.compile(  # what may follow a letter without a closing bracket
    r"[.:,;]?\s*$|[.:,;]?\s*\n|:\s|\s+[-–—]{1,3}\s|\s+\((?=[a-z])|\s+is\s+(?:the\s+)?(?:correct|right|best)\b"
    r"|[,;]?\s+(?:because|since|as|so|due|which|that|the|this|it|for|where|given)\b"
)
SENTENCE = re.compile(r"\.\s+(?P<word>[^\s,;:.]+)")
SMALL_WORDS = set(
    "a all an any as at because both by each for from given hence if in it its neither no none of on only since so some"
    " than that the then there therefore these they this thus to we when which while with you".split()
)
SPECIES = set(
    "aegypti aeruginosa albicans anthracis aureus burgdorferi carolinensis cerevisiae coli crassa cylindrica difficile"
    " discoideum elegans enterica falciparum gambiae influenzae laevis lycopersicum melanogaster musculus niger"
    " norvegicus officinalis pneumoniae pombe pylori rerio reinhardtii rubra sapiens sativa simulans subtilis"
    " tabacum thaliana tropicalis tuberculosis tumefaciens vulgaris".split()
)
SAYS = re.compile(
    r"\b(?:answer|option|choice)\b(?:\s+(?:is|would be|must be|should be)\b)?[\s:*_]*(?:option\s+|choice\s+)?"
    r"[\s({\[*\"'`$]*(?P<letter>[A-Da-d])(?=[\s)}\]*\"'`$]*(?:$|[.,:;\n]))",
    re.IGNORECASE,
)
OTHERS = re.compile(r"[\s,;/&]*(?:\b(?:or|and)\b|[,/&])[\s({\[*]*[A-D](?![A-Za-z])")
TAKES_BACK = re.compile(
    r"\b(?:wait|actually|instead|incorrect|correction|mistaken?|sorry|no|wrong|(?:is|was)n't|not the)\b", re.IGNORECASE
)


def letter_in(answer: str, labelled: bool = False) -> str | None:
    r"""Return the letter that an answer names: "b", "(B)", "\text{B}.", "B) Mercury", "Option B"; None without one.

    `labelled` says that the answer stood in a box or after "Answer:", where "C. increases" is a choice with its text.
    Elsewhere a lowercase word after "C." may be part of a name, as in "C. elegans".
    """
    bare = AROUND_A_LETTER.sub("", answer)
    if len(bare) == 1 and bare.upper() in LETTERS:
        return bare.upper()
    text = FONT.sub("", answer[:LONGEST]).replace("：", ": ").strip(" \t\n*_`")
    first = _first_letter(text, labelled)
    said = {match["letter"].upper() for match in SAYS.finditer(text) if not OTHERS.match(text, match.end())}
    found = said | ({first} if first else set())
    return found.pop() if len(found) == 1 else None


def _first_letter(text: str, labelled: bool) -> str | None:
    """Return the letter of the choice that a text begins with, or None."""
    named = NAME.match(text)
    start = named.end() if named else 0
    while start < len(text) and text[start] in OPENED:
        start += 1
    letter, after = text[start : start + 1], start + 1
    if not letter or letter.upper() not in LETTERS or OTHERS.match(text, after) or TAKES_BACK.search(text, after):
        return None
    closed = CLOSED.match(text, after)
    if closed and not text[closed.end() : closed.end() + 1].isalnum():
        return None if OTHERS.match(text, closed.end()) else letter.upper()
    if sentence := SENTENCE.match(text, after):
        word = sentence["word"]
        name = word in SPECIES or (word[0].islower() and word not in SMALL_WORDS and not labelled and not named)
        return None if name else letter.upper()
    if FOLLOWS.match(text, after) and (letter.isupper() or text[after : after + 1] == ":"):
        return letter.upper()
    return None
