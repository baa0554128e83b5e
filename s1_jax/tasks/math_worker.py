"""Worker process that runs math-verify, so that no expression can hang, crash or exhaust the process that asks.

It reads pairs [gold, answer] as JSON lines from standard input and replies with one line each: "equal", "different",
"unread" (it cannot parse one of the two), "too long" or "killed". Each pair is compared in a fork, in which math-verify
is already imported. The operating system ends the fork at its limits of processor time and memory, even inside C code.
Only processor time counts, so the load of the machine makes no difference. The worker ends when its standard input
does.

Run it as a file, not as a module of the package: every fork would carry the package's imports.
"""

import json
import math
import os
import re
import resource
import signal
import sys

from latex2sympy2_extended import NormalizationConfig, latex2sympy2
from math_verify import LatexExtractionConfig, grader, parse, verify
from sympy import Abs, Basic, Eq, Expr, Float, Integral, MatrixBase, Rational, S, Sum

MEMORY = 2**30  # bytes of address space of a fork
FIRST = (  # warms up lazy imports and caches before the first fork; else each fork spends 0.1 to 0.3 s on them
    ("\\frac{1}{2}x", "x/2"),
    ("\\sqrt{3}", "\\frac{4}{9}"),
    ("[1, \\pi]", "\\left[ 1, 2\\pi \\right]"),
)
DIGITS = 2000  # two constants that agree to this many digits are equal
DIGITS_OF_SUMS = 50  # the same for sums and integrals, which are slow to evaluate
CHAIN = 16  # equations of a chain a = b = c that are checked
DECIMAL = re.compile(r"[+-]?[0-9]*\.([0-9]+)")
FORMULAS = LatexExtractionConfig(  # units are compared before this; it would drop "cents" as it drops "c"
    normalization_config=NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all", equations=False
    )
)


def main(seconds: float) -> None:
    """Compare pairs, each within `seconds` of processor time, until standard input ends."""
    replies = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):  # libraries must not print into the replies
        os.dup2(nowhere, descriptor)
    for pair in FIRST:
        compare(*pair)
    os.write(replies, b"ready\n")
    for line in sys.stdin.buffer:
        if (child := os.fork()) == 0:
            answer(line, seconds, replies)
        _, status = os.waitpid(child, 0)
        if status != 0:
            too_long = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGPROF, signal.SIGXCPU)
            os.write(replies, b"too long\n" if too_long else b"killed\n")


def answer(line: bytes, seconds: float, replies: int) -> None:
    """Write the reply to one pair and exit; runs in a fork, which may be ended from outside."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    whole = math.ceil(seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (whole + 1, whole + 2))  # in case a library changes the timer or the signal
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    failed = 1
    try:
        reply = compare(*json.loads(line)).encode()
        signal.setitimer(signal.ITIMER_PROF, 0)
        failed = os.write(replies, reply + b"\n") == 0
    finally:
        os._exit(failed)  # never return into the parent's loop


def compare(gold: str, answer: str) -> str:
    """Return "equal", "different" or "unread". math-verify is not symmetric: the gold answer comes first."""
    expected, given = read(gold), read(answer)
    equal = verify(expected, given, timeout_seconds=None)  # its own limits are alarms, which do not interrupt C code
    if equal:
        return "equal" if names_its_value(expected[0], given[0]) else "unread"
    both_read = all(isinstance(side[0], Basic | MatrixBase) for side in (expected, given) if side)
    if not (expected and given and both_read) or approximates(gold, answer, expected[0], given[0]):
        return "unread"
    return "different"


def read(text: str) -> list:
    """Parse a final answer with math-verify; a text without delimiters is one formula."""
    text = text.replace("\\$", "")
    if "$" not in text and "\\(" not in text and "\\[" not in text:
        text = f"${text}$"
    return parse(text, [FORMULAS], extraction_mode="first_match", parsing_timeout=None)


def names_its_value(expected: Basic, given: Basic) -> bool:
    """Return whether an equation states a value: "x = 5", "m+n = 5" and "2+3 = 5" do, "x+2 = 5" does not."""
    if grader.is_relation(expected) or not grader.is_equation(given):
        return True
    equations = [given] if isinstance(given, Eq) else list(given._unsorted_args)[:CHAIN]
    for equation in equations:
        names, values = equation.lhs.free_symbols, equation.rhs.free_symbols
        if not names and not values and not exactly_equal(equation.lhs, equation.rhs):
            return False
    left = equations[0].lhs
    if not isinstance(left, Expr) or len(left.free_symbols) != 1:
        return True
    if left.is_Function:
        return not isinstance(left, Abs)
    return not (left.is_Add or left.is_Mul or left.is_Pow)


def approximates(gold: str, answer: str, expected: Basic, given: Basic) -> bool:
    """Return whether one is a decimal that equals the other up to its last digit, as 0.333 and 1/3."""
    for text, value in ((gold, expected), (answer, given)):
        if (decimal := DECIMAL.fullmatch(text.strip())) and isinstance(expected, Expr) and isinstance(given, Expr):
            last_digit = Rational(1, 10 ** len(decimal[1]))
            try:
                return bool(abs((expected - given).evalf(30)) < last_digit <= abs(value) / 100)
            except TypeError:  # not a real number
                return False
    return False


def exactly_equal(one: Basic | MatrixBase, other: Basic | MatrixBase, *_) -> bool:
    """Return whether two constants or matrices are exactly equal; math-verify itself compares rounded values."""
    one, other = grader.safe_sympy_doit(one), grader.safe_sympy_doit(other)
    if isinstance(one, MatrixBase) and isinstance(other, MatrixBase):
        pairs = zip(one.flat(), other.flat(), strict=True) if one.shape == other.shape else [(S.One, S.Zero)]
        return all(exactly_equal(*pair) or grader.sympy_symbolic_eq(*pair) for pair in pairs)
    if one == other:
        return True
    if not (isinstance(one, Expr) and isinstance(other, Expr)) or (one - other).free_symbols:
        return False  # formulas are left to the symbolic comparison
    difference = one - other
    if difference.is_Rational:
        return difference == 0
    digits = DIGITS_OF_SUMS if difference.has(Integral, Sum) else DIGITS
    seen = difference.evalf(2, maxn=digits)
    numbers = seen.atoms(Float)
    return bool(numbers or seen == 0) and all(number == 0 or number._prec == 1 for number in numbers)


def exact_number(_, text: str) -> Rational:
    """Parse a written number without rounding: 0.1 is a tenth."""
    return Rational(text.replace(",", ""))


assert hasattr(grader, "sympy_numeric_eq") and hasattr(latex2sympy2._Latex2Sympy, "parse_number")
grader.sympy_numeric_eq = exactly_equal
latex2sympy2._Latex2Sympy.parse_number = exact_number


if __name__ == "__main__":
    main(float(sys.argv[1]))
