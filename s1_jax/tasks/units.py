r"""Units of measure after or before a number: which are equal, which convert, which contradict each other.

5\text{ cm}^2     and  5 square centimeters   the same
2 hours           and  120 minutes            the same: an hour is 60 minutes
\$5               and  5 cents                other values: a cent is a hundredth of a dollar
5 kg              and  5 miles                contradict each other
5 apples          and  5                      the same: a unit may be left out
5 apples          and  5 oranges              undecided
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Literal, NamedTuple

TAIL = 80  # characters at the end of an answer that may be its unit
SIZES: dict[str, dict[str, str]] = {  # units of each quantity, and their sizes relative to the first one
    "length": {
        "m meter meters metre metres": "1",
        "mm millimeter millimeters millimetre millimetres": "1/1000",
        "cm centimeter centimeters centimetre centimetres": "1/100",
        "km kilometer kilometers kilometre kilometres": "1000",
        "in inch inches": "254/10000",
        "ft foot feet": "3048/10000",
        "yd yard yards": "9144/10000",
        "mi mile miles": "1609344/1000",
    },
    "time": {
        "s sec secs second seconds": "1",
        "ms millisecond milliseconds": "1/1000",
        "min mins minute minutes": "60",
        "h hr hrs hour hours": "3600",
        "day days": "86400",
        "week weeks": "604800",
    },
    "calendar": {"month months": "1", "year years yr yrs": "12"},
    "mass": {"g gram grams": "1", "mg milligram milligrams": "1/1000", "kg kilogram kilograms": "1000"},
    "weight": {"lb lbs pound pounds": "16", "oz ounce ounces": "1"},
    "volume": {"L liter liters litre litres": "1", "mL ml milliliter milliliters millilitre millilitres": "1/1000"},
    "gallons": {"gal gallon gallons": "1"},
    "dollars": {"dollar dollars USD": "1", "cent cents": "1/100"},
    "euros": {"euro euros EUR": "1"},
    "angle": {"degree degrees deg": "1"},
    "radians": {"radian radians rad": "1"},
    "arc minutes": {"arcminutes": "1"},
    "fraction": {"percent": "1"},
    "morning": {"am": "1"},
    "evening": {"pm": "1"},
}
SPEEDS = {"mph": "miles per hour", "kmh": "km per hour", "kph": "km per hour", "fps": "feet per second"}
SYMBOL = re.compile(r"\s*(?:\\?%|\^\\circ|\^\{\s*\\circ\s*\}|\\degree|°|¢)(?:\s*(?:C|F|Celsius|Fahrenheit)\b)?$")
TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
MONEY = re.compile(r"(?P<sign>[+-]?)\s*(?:US\s*)?(?:\\\$|(?P<other>€|£))\s*(?=[0-9.\\])")
IN_TEXT = re.compile(r"\s*\\(?:text|textrm|mathrm|mbox)\s*\{(?P<words>[^{}]*)\}\s*(?:\^\s*\{?(?P<power>[23])\}?)?$")
IN_WORDS = re.compile(
    r"(?P<space>(?<=[0-9)}])|(?<=[0-9]\.)|\s)\s?(?P<words>[A-Za-z][A-Za-z. /-]*?)(?:\s*\^\s*\{?(?P<power>[23])\}?)?$"
)
MULTIPLIER = re.compile(r"\b(?:hundred|thousand|million|billion|trillion|dozen)", re.IGNORECASE)  # no unit of measure
NEUTRAL = {"unit", "units"}
NO_NOUN = re.compile(  # words that are not the name of what is counted
    r"(?:a|about|above|actually|after|all|almost|also|an|and|answer|approximately|around|as|at|base|because|before|below"
    r"|between|but|by|correct|cos|cot|csc|cube|cubed|each|either|exactly|exp|factorial|false|fewer|for|from|fourths|gcd"
    r"|greater|halves|half|hence|how|however|i|if|iff|in|inf|infinity|instead|is|isn|it|lcm|least|less|ln|log|max|maybe"
    r"|min|minus|mod|modulo|more|most|neither|never|no|nor|not|nothing|of|off|only|or|out|over|pi|plus|power|prime"
    r"|quarters|radical|root|rooted|roots|sec|sin|since|so|sqrt|square|squared|squares|tan|ten|tens|than|that|the|then"
    r"|there|therefore|they|thirds|this|thus|times|to|true|under|undefined|until|up|wait|was|we|when|where|which|while"
    r"|with|wrong|x|y|z|[a-z]+n't|(?:third|fourth|fif|six|seven|eigh|nin|ten|million|[a-z]+d)ths?)",
    re.IGNORECASE,
)
WORD = re.compile(r"[A-Za-z]{3,}")


class Unit(NamedTuple):
    """Meaning of a written unit: size, quantities with their powers, nouns that are no measure, divisor (`per`)."""

    size: Fraction
    quantities: tuple[tuple[str, int], ...]
    nouns: tuple[str, ...]
    per: Unit | None = None


class Split(NamedTuple):
    """Value of an answer and its unit as written ("" for none)."""

    value: str
    unit: str


def split_unit(text: str) -> Split:
    r"""Split an answer into value and unit: "10\text{ cm}" is ("10", "\text{ cm}"), "\$5" is ("5", "\$").

    Only the last 80 characters are searched, so the time does not depend on the length.
    """
    text = text.strip()
    if money := MONEY.match(text):
        value = text[money.end() :]
        inner = split_unit(value)
        named = unit_of(inner.unit)
        if named is None or named.nouns or named.per or not named.quantities:
            value = inner.value if named and not MULTIPLIER.search(inner.unit) else value
        elif inner.unit:
            value = inner.value
        return Split(money["sign"] + value, money["other"] or "\\$")
    start = max(len(text) - TAIL, 0)
    tail = text[start:]
    found = SYMBOL.search(tail)
    if found and TRIGONOMETRIC.search(text):
        return Split(text, "")  # "\\sin 45^\\circ" is no angle
    if found:
        return Split(text[: start + found.start()].rstrip(), found[0].strip())
    for pattern in (IN_TEXT, IN_WORDS):
        if (found := pattern.search(tail)) and (start or found.start()):
            value, written = text[: start + found.start()].rstrip(), found[0].strip()
            if value and unit_of(written) and (pattern is IN_TEXT or _counts(value, written)):
                return Split(value, written)
    return Split(text, "")


def with_unit(value: str, unit: str) -> str:
    r"""Return a value with a unit as data sets write one: "5" and "cm^2" give "5\text{ cm}^2".

    A unit that cannot be read is left out.
    """
    bare = unit.replace("$", "").replace("~", " ").strip()
    words, caret, power = bare.partition("^")
    symbol = bare.startswith(("\\", "^", "%", "°"))
    written = value + (bare if symbol else rf"\text{{ {words}}}{caret}{power}")
    return written if split_unit(written).unit else value


def unit_of(written: str) -> Unit | None:
    """Return the meaning of a written unit; None if the words are not a unit."""
    written = written.strip()
    if symbol := SYMBOL.fullmatch(written):
        if symbol[0].strip()[-1] in "CsFt":  # Celsius, Fahrenheit
            return _phrase(f"degrees {'celsius' if symbol[0].strip()[-1] in 'Cs' else 'fahrenheit'}", 1)
        return _phrase("cents" if "¢" in written else "percent" if "%" in written else "degrees", 1)
    if written in ("\\$", "$"):
        return _phrase("dollars", 1)
    if written in ("€", "£"):
        return _phrase("euros" if written == "€" else "sterling", 1)
    found = IN_TEXT.fullmatch(written) or IN_WORDS.fullmatch(f" {written}")
    if not found or MULTIPLIER.search(found["words"]):
        return None
    return _phrase(found["words"], int(found["power"] or 1))


def conversion(first: str, second: str) -> tuple[Fraction, Fraction] | Literal[False] | None:
    """Return the sizes of two written units, by which their values are multiplied before they are compared.

    The sizes are (1, 1) if the units are the same or one is missing. Returns False if they contradict each other and
    None if that cannot be decided.
    """
    one, other = unit_of(first), unit_of(second)
    if one is None or other is None:
        return None if (first and second) else (Fraction(1), Fraction(1))
    if one.per and other.per:
        rates = _conversion(one.per, other.per)
        if not isinstance(rates, tuple):
            return rates
        counts = _conversion(one, other)
        return (counts[0] / rates[0], counts[1] / rates[1]) if isinstance(counts, tuple) else counts
    return _conversion(one, other)


def _conversion(one: Unit, other: Unit) -> tuple[Fraction, Fraction] | Literal[False] | None:
    if one.quantities != other.quantities:
        return None if one.nouns or other.nouns or not (one.quantities and other.quantities) else False
    if one.nouns != other.nouns and not {*one.nouns, *other.nouns} & NEUTRAL:
        return None
    return one.size, other.size


def _phrase(words: str, power: int) -> Unit | None:
    """Return the meaning of a phrase like "square inches a day"."""
    tokens = words.replace("/", " per ").replace("a.m", "am").replace("p.m", "pm").replace(".", " ").split()
    for i, token in enumerate(tokens):
        if token.lower() in ("per", "a", "an") and (i or token == "per"):
            if not tokens[i + 1 :] or {"per", "a", "an"} & {*tokens[i + 1 :]}:
                return None
            count = _count(tokens[:i], 1) if i else Unit(Fraction(1), (), ())
            per = _count(tokens[i + 1 :], power)
            return count._replace(per=per) if count and per else None
    if len(tokens) == 1 and tokens[0].lower() in SPEEDS:
        return _phrase(SPEEDS[tokens[0].lower()], 1)
    return _count(tokens, power)


def _count(tokens: list[str], power: int) -> Unit | None:
    size, quantities, nouns = Fraction(1), [], []
    for prefix, exponent in (("square", 2), ("sq", 2), ("cubic", 3), ("cu", 3)):
        if tokens and tokens[0].lower() == prefix and len(tokens) > 1:
            tokens, power = tokens[1:], exponent
    if len(tokens) == 2 and tokens[1].lower() in ("squared", "cubed") and tokens[0] in UNITS:
        tokens, power = tokens[:1], {"squared": 2, "cubed": 3}[tokens[1].lower()]
    if [token.lower() for token in tokens[-2:]] == ["in", "total"]:
        tokens = tokens[:-2] or ["units"]
    for token in tokens:
        if known := UNITS.get(token) or UNITS.get(token.lower() if len(token) > 2 or token in ("AM", "PM") else token):
            size *= known[1] ** power
            quantities.append((known[0], power))
        elif NO_NOUN.fullmatch(token) or not WORD.fullmatch(token.strip("-").replace("-", "")):
            return None
        else:
            nouns.append(token.lower())
    if len(quantities) > 1 or len(nouns) > 2 or not (quantities or nouns):
        return None
    return Unit(size, tuple(quantities), tuple(nouns))


def _counts(value: str, written: str) -> bool:
    """Return whether plain words are a unit: any noun after a number, or a known unit after a formula.

    One letter after a formula is a variable: "2\\pi m" may be anything.
    """
    unit = unit_of(written)
    if unit is None or re.search(r"[A-Za-z]{3}", re.sub(r"\\(?:text\s*\{[^{}]*\}|[A-Za-z]+)", "", value)):
        return False  # prose in front of it
    ends_in_digit = value[-1].isdigit() or (value[-1] == "." and value[-2:-1].isdigit())
    if len(written) == 1 or {*unit.nouns} - NEUTRAL:
        return ends_in_digit and "=" not in value[-3:] and not re.search(r"[A-Za-z,=]", value)
    return value[-1] in "0123456789.})" or re.search(r"\\[a-zA-Z]+$", value) is not None


UNITS = {
    name: (quantity, Fraction(size))
    for quantity, units in SIZES.items()
    for names, size in units.items()
    for name in names.split()
}
