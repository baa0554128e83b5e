r"""Exact values of numbers in many notations.

1,000   1 000   1{,}000   1000.0      one thousand
3/4   \frac34   0.75                  three quarters
1\frac{4}{5}   1 4/5                  nine fifths
0.\overline{3}                        one third; 0.333 is 333/1000
3e8   3 \times 10^{8}                 three hundred million
110_2                                 digits 110 in base 2
0,111   1,5                           no number: two numbers, or a decimal comma
"""

from __future__ import annotations

import re
from fractions import Fraction

from s1_jax.tasks.units import split_unit

LONGEST = 2000  # characters; a longer text is no final answer and is not compared as mathematics
LARGEST_EXPONENT = 1000  # of ten; larger powers are left to math-verify
ORNAMENT = re.compile(r"\\! *|\\[,;]")
NUMBER = re.compile(r"(?P<sign>[+-]?)\s*(?P<whole>[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]*)(?:\.(?P<part>[0-9]*))?\s*")
WHOLE = re.compile(r"\s*[0-9]+\s*")
GROUPED = r"[1-9][0-9]{0,2}(?:(?:,[0-9]{3})+|(?: [0-9]{3})+|(?:'[0-9]{3})+|(?:_[0-9]{3})+)"
DECIMAL = rf"(?:{GROUPED}|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+"
INSIDE = rf"(?:\{{\s*([+-]?\s*(?:{DECIMAL}))\s*\}}|([0-9]))"
FRACTION = rf"\\frac\s*{INSIDE}\s*{INSIDE}"
POWER_OF_TEN = r"10\s*\^\s*(?:\{\s*([+-]?[0-9]+)\s*\}|([+-]?[0-9]+))"
SIGN = r"(?P<sign>[+-]?)\s*"
DECIMAL_ONE = re.compile(rf"{SIGN}(?P<decimal>{DECIMAL})")
FRACTION_ONE = re.compile(rf"{SIGN}(?:(?P<whole>[0-9]+)\s*)?{FRACTION}")
SLASHED_ONE = re.compile(rf"{SIGN}(?:(?P<whole>[0-9]+)\s+)?\(?(?P<top>{DECIMAL})\)?\s*/\s*\(?(?P<bottom>{DECIMAL})\)?")
REPEATING_ONE = re.compile(rf"{SIGN}(?P<whole>[0-9]*)\.(?P<part>[0-9]*)\s*\\overline\s*\{{(?P<again>[0-9]+)\}}")
SCIENTIFIC_ONE = re.compile(
    rf"{SIGN}(?:(?P<decimal>{DECIMAL})\s*(?:[eE](?P<exponent>[+-]?[0-9]+)|(?:\\times|\\cdot|[xX])\s*{POWER_OF_TEN}))"
)
TEN_ONE = re.compile(rf"{SIGN}{POWER_OF_TEN}")
BASED = re.compile(r"\(?(?P<digits>[0-9A-Fa-f]+)\)?\s*_\s*(?:(?P<one>[0-9])|\{\s*\(?(?P<base>[0-9]{1,2})\)?\s*\})")
TIMES = re.compile(r"[0-9]+(?:\s*:\s*[0-9]+)+")
DECIMAL_COMMA = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]{3})*),[0-9]+")


def plain_number(text: str) -> tuple[str, str] | None:
    r"""Return the normalized digits of a plain number and its percent sign or unit; None for any other text.

    "1,000", "1{,}000." and "1000.0" are ("1000", ""), "10\text{ cm}" is ("10", "\text{ cm}"). Digits are returned as
    text, which is exact at any length.
    """
    if len(text) > LONGEST:
        return None
    bare = ORNAMENT.sub("", text.replace("{,}", ",").replace("−", "-"))
    if bare.count("$") - bare.count(r"\$") > 1:
        bare = bare.replace(r"\$", "\0").replace("$", "").replace("\0", r"\$")
    bare = " ".join(bare.split()).removesuffix(".")  # the searches take quadratic time on runs of spaces
    if bare[:1] == "$":
        bare = f"\\{bare}"
    value, unit = split_unit(bare)
    number = NUMBER.fullmatch(value)
    if not number or not (number["whole"] or number["part"]):
        return None
    whole, part = number["whole"].replace(",", "").lstrip("0") or "0", (number["part"] or "").rstrip("0")
    digits = f"{whole}.{part}" if part else whole
    return ("-" if number["sign"] == "-" and digits != "0" else "") + digits, unit


def rational(text: str) -> Fraction | None:
    r"""Return the value of one tidy number without a unit: "1\frac{4}{5}" is 9/5. Other texts, and 1/0, give None."""
    text = text.strip()
    if len(text) > 1 and text[0] == "(" and text[-1] == ")" and not {"(", ")", ","} & set(text[1:-1]):
        text = text[1:-1].strip()
    try:
        return _rational(text)
    except ZeroDivisionError:
        return None


def _rational(text: str) -> Fraction | None:
    if found := DECIMAL_ONE.fullmatch(text):
        return _signed(found, _decimal(found["decimal"]))
    if found := SLASHED_ONE.fullmatch(text):
        return _signed(found, int(found["whole"] or 0) + _decimal(found["top"]) / _decimal(found["bottom"]))
    if found := FRACTION_ONE.fullmatch(text):
        top, bottom = (_decimal(found[i] or found[i + 1]) for i in (3, 5))
        if found["whole"] and min(top, bottom) < 0:
            return None
        return _signed(found, int(found["whole"] or 0) + top / bottom)
    if found := REPEATING_ONE.fullmatch(text):
        part, again = found["part"], found["again"]
        tail = Fraction(int(again), 10 ** len(part) * (10 ** len(again) - 1))
        return _signed(found, _decimal(f"{found['whole'] or '0'}.{part}") + tail)
    if found := SCIENTIFIC_ONE.fullmatch(text):
        return _signed(found, _power(found["exponent"] or found[4] or found[5], _decimal(found["decimal"])))
    if found := TEN_ONE.fullmatch(text):
        return _signed(found, _power(found[2] or found[3], Fraction(1)))
    return None


def decimal_places(text: str) -> int | None:
    """Return the number of digits after the decimal point; None for a text without one."""
    found = DECIMAL_ONE.fullmatch(text.strip())
    return len(found["decimal"].partition(".")[2]) or None if found and "." in found["decimal"] else None


def rounded(one: str, other: str) -> bool:
    """Return whether one of two numbers may be the other, rounded or truncated: 0.333 for 1/3, but not 0.3."""
    first, second = rational(one), rational(other)
    if first is None or second is None:
        return False
    for places, value in ((decimal_places(one), first), (decimal_places(other), second)):
        if places and value and abs(first - second) < Fraction(1, 10**places) <= abs(value) / 100:
            return True
    return False


def digits_in_base(text: str) -> tuple[str, int] | None:
    r"""Return the digits and the base of "110_2", "(110)_{2}" or "110_{\text{two}}"; None for any other text."""
    found = BASED.fullmatch(text.strip())
    if not found:
        return None
    base = int(found["one"] or found["base"])
    digits = found["digits"].lstrip("0").upper() or "0"
    return (digits, base) if 2 <= base <= 36 and all(int(one, 36) < base for one in digits) else None


def same_in_base(gold: str, answer: str) -> bool | str | None:
    """Return whether two numbers are equal, at least one of which names its base; "no base" if neither does.

    The base may be omitted, since the question states it. Returns None if the values agree in a base that was not
    asked for.
    """
    expected, given = digits_in_base(gold), digits_in_base(answer)
    if expected is None and given is None:
        return "no base"
    if expected and given and expected[1] == given[1]:
        return expected[0] == given[0]
    bare = [rational(text) for text in (gold, answer)]
    if expected and not given:
        if bare[1] is None or bare[1].denominator != 1:
            return None
        return True if str(bare[1]) == expected[0] else (None if bare[1] == int(*expected) else False)
    if given and not expected:
        if bare[0] is None or bare[0].denominator != 1:
            return None
        if given[1] == 10 or str(bare[0]) != given[0]:
            return str(bare[0]) == given[0] if given[1] == 10 else None if bare[0] == int(*given) else False
        return None
    assert expected and given
    return None if int(*expected) == int(*given) else False


def same_times(gold: str, answer: str) -> bool | str | None:
    """Return whether two times of day or ratios ("3:30", "1:2:3") are equal; "no time" if one is neither."""
    if not (TIMES.fullmatch(gold) and TIMES.fullmatch(answer)):
        return "no time"
    expected, given = ([int(part) for part in text.split(":")] for text in (gold, answer))
    if expected == given:
        return True
    crossed = len(expected) == len(given) and all(
        a * given[0] == b * expected[0] for a, b in zip(expected, given, strict=True)
    )
    return None if crossed else False


def _decimal(text: str) -> Fraction:
    digits = re.sub(r"[, '_]", "", text)
    return Fraction(f"0{digits}" if digits.startswith(".") else digits.removesuffix("."))


def _signed(found: re.Match[str], value: Fraction | None) -> Fraction | None:
    return -value if value is not None and found["sign"] == "-" else value


def _power(exponent: str, factor: Fraction) -> Fraction | None:
    if len(exponent) > 8 or abs(int(exponent)) > LARGEST_EXPONENT:
        return None
    return factor * Fraction(10) ** int(exponent)
