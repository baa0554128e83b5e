"""The process that runs math-verify, so that no expression can hang, crash or fill the process that asks.

Reads pairs [gold, answer] as JSON, one a line, from standard input and answers each with a line: "equal", "different",
"unread" (one of the two is no mathematics to it), "too long", or "killed". Every pair has a fork of its own, which the
kernel ends at the limit of processor time even inside C code and which cannot take more than its share of memory; it
starts with math-verify imported and leaves nothing behind. How busy the machine is makes no difference: time that a
fork waits is not counted. Ends with its standard input.

Run as a file, not as a module of the package: whatever it imported besides, every fork would carry along.
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

MEMORY = 2**30  # bytes of address space a fork may have
FIRST = (  # what these import and make is there for every fork; else each spends 0.1 to 0.3 s on it
    ("\\frac{1}{2}x", "x/2"),
    ("\\sqrt{3}", "\\frac{4}{9}"),
    ("[1, \\pi]", "\\left[ 1, 2\\pi \\right]"),
)
DIGITS = 2000  # two constants that agree in so many are equal
DIGITS_OF_SUMS = 50  # where each digit takes a sum or an integral
CHAIN = 16  # equations in a row that are looked at
DECIMAL = re.compile(r"[+-]?[0-9]*\.([0-9]+)")
FORMULAS = LatexExtractionConfig(  # units are compared before: it would drop "cents" as it drops "c"
    normalization_config=NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all", equations=False
    )
)


def main(seconds: float) -> None:
    """Answers pairs, each within `seconds` of processor time, until there are no more."""
    replies = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):  # what libraries print is no reply
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
    """In a fork: writes the reply to one pair and exits; or is ended from outside."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    whole = math.ceil(seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (whole + 1, whole + 2))  # should a library set the timer or the signal
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    failed = 1
    try:
        reply = compare(*json.loads(line)).encode()
        signal.setitimer(signal.ITIMER_PROF, 0)
        failed = os.write(replies, reply + b"\n") == 0
    finally:
        os._exit(failed)  # not into the loop of the process that forked


def compare(gold: str, answer: str) -> str:
    """ "equal", "different" or "unread". math-verify is not symmetric: the gold answer comes first."""
    expected, given = read(gold), read(answer)
    equal = verify(expected, given, timeout_seconds=None)  # its own time limits are alarms, which C code does not hear
    if equal:
        return "equal" if names_its_value(expected[0], given[0]) else "unread"
    both_read = all(isinstance(side[0], Basic | MatrixBase) for side in (expected, given) if side)
    if not (expected and given and both_read) or approximates(gold, answer, expected[0], given[0]):
        return "unread"
    return "different"


def read(text: str) -> list:
    """What math-verify makes of a final answer: all of it is one formula, if it says nothing else."""
    text = text.replace("\\$", "")
    if "$" not in text and "\\(" not in text and "\\[" not in text:
        text = f"${text}$"
    return parse(text, [FORMULAS], extraction_mode="first_match", parsing_timeout=None)


def names_its_value(expected: Basic, given: Basic) -> bool:
    """Whether an equation given for a value is one like "x = 5", "m+n = 5" or "2+3 = 5", not "x+2 = 5" or "2+2 = 5"."""
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
    """Whether one is a decimal number with which the other agrees to its last place: 0.333 and 1/3."""
    for text, value in ((gold, expected), (answer, given)):
        if (decimal := DECIMAL.fullmatch(text.strip())) and isinstance(expected, Expr) and isinstance(given, Expr):
            place = Rational(1, 10 ** len(decimal[1]))
            try:
                return bool(abs((expected - given).evalf(30)) < place <= abs(value) / 100)
            except TypeError:  # not a real number
                return False
    return False


def exactly_equal(one: Basic | MatrixBase, other: Basic | MatrixBase, *_) -> bool:
    """Whether two constants or matrices are the same: in place of math-verify's comparison of rounded ones."""
    one, other = grader.safe_sympy_doit(one), grader.safe_sympy_doit(other)
    if isinstance(one, MatrixBase) and isinstance(other, MatrixBase):
        pairs = zip(one.flat(), other.flat(), strict=True) if one.shape == other.shape else [(S.One, S.Zero)]
        return all(exactly_equal(*pair) or grader.sympy_symbolic_eq(*pair) for pair in pairs)
    if one == other:
        return True
    if not (isinstance(one, Expr) and isinstance(other, Expr)) or (one - other).free_symbols:
        return False  # formulas are for the symbolic comparison
    difference = one - other
    if difference.is_Rational:
        return difference == 0
    digits = DIGITS_OF_SUMS if difference.has(Integral, Sum) else DIGITS
    seen = difference.evalf(2, maxn=digits)
    numbers = seen.atoms(Float)
    return bool(numbers or seen == 0) and all(number == 0 or number._prec == 1 for number in numbers)


def exact_number(_, text: str) -> Rational:
    """A written number without rounding: 0.1 is a tenth."""
    return Rational(text.replace(",", ""))


assert hasattr(grader, "sympy_numeric_eq") and hasattr(latex2sympy2._Latex2Sympy, "parse_number")
grader.sympy_numeric_eq = exactly_equal
latex2sympy2._Latex2Sympy.parse_number = exact_number


if __name__ == "__main__":
    main(float(sys.argv[1]))
