"""A gold answer that is a list is met by all of its answers, in any order, with or without their unit."""

import time

import pytest

from s1_jax.tasks.equivalence import Verdict, grade_math
from s1_jax.tasks.numerals import LONGEST
from s1_jax.tasks.shapes import has_inner_unit, split_like, tuples, with_one_unit

RIGHT, WRONG, UNDECIDED = Verdict(True, "math"), Verdict(False, "math"), Verdict(False, "undecided")


@pytest.mark.parametrize(
    ("gold", "answer", "verdict"),
    [
        ("1, 2", "2, 1", RIGHT),
        ("1, 2", "n = 2 \\text{ or } n = 1", RIGHT),
        ("1, 2, 3", "3, 1, and 2", RIGHT),
        ("1, 2", "1", WRONG),
        ("1, 2", "1, 2, 3", WRONG),
        ("1, 2", "1, 1", WRONG),
        ("1, 2", "1, 3", WRONG),
        ("1", "1, 2", WRONG),
        ("\\sqrt{2}, 2^{1/3}", "\\sqrt[3]{2}, \\sqrt2", RIGHT),
        ("f(x)=2x, f(x)=0", "f(x)=0, f(x)=2x", RIGHT),
        ("f(x)=2x, f(x)=0", "f(x)=0", WRONG),
        ("(1,2), (3,4)", "(3,4), (1,2)", RIGHT),
        ("(1,2), (3,4)", "(2,1), (4,3)", WRONG),
        ("(1,2), (3,4)", "(1,2)", WRONG),
        ("(1,2), (3,4)", "(1,2), (3,4), (5,6)", WRONG),
        ("(1,2)", "(1,2), (3,4)", WRONG),
        ("(\\pm 1, 2)", "(1,2), (-1,2)", UNDECIDED),
        ("(1,2)", "(1,2)", Verdict(True, "text")),
        ("3, 5 \\text{ cm}", "5 cm, 3 cm", RIGHT),
        ("3, 5 \\text{ cm}", "5 \\text{ cm and } 3 \\text{ cm}", UNDECIDED),
        ("3 \\text{ cm}, 5 \\text{ cm}", "5, 3", RIGHT),
        ("3, 5", "5 cm, 3 cm", RIGHT),
        ("3, 5", "The answer is 5 miles, 3 miles.", RIGHT),
        ("3, 5 \\text{ cm}", "5 kg, 3 kg", WRONG),
        ("3, 5 \\text{ cm}", "5 cm", WRONG),
        ("3, 5 \\text{ cm}", "0.05 m, 3 cm", UNDECIDED),
        ("50, 20", "20\\%, 50\\%", RIGHT),
        ("\\$5, \\$7", "\\$7, \\$5", RIGHT),
        ("\\$5, \\$7", "7, 5", RIGHT),
        ("100, 200", "200,100", RIGHT),
        ("100, 200", "100,300", WRONG),
        ("1000, 2", "2, 1{,}000", RIGHT),
        ("1, 0", "1,000", WRONG),
        ("1,000", "1000", Verdict(True, "number")),
    ],
)
def test_all_answers_are_needed_in_any_order(gold, answer, verdict):
    assert grade_math(answer, gold) == verdict


@pytest.mark.parametrize(
    ("text", "shared"),
    [
        ("3 cm, 5 cm", "3, 5 cm"),
        ("\\$3, \\$5", "\\$3, 5"),
        ("3 cm, 5 m", "3 cm, 5 m"),
        ("3 cm, 5", "3 cm, 5"),
        ("(3 cm, 5 cm)", "(3 cm, 5 cm)"),
        ("3 cm", "3 cm"),
        ("3, 5", "3, 5"),
        ("", ""),
    ],
)
def test_a_shared_unit_is_written_once(text, shared):
    assert with_one_unit(text) == shared


def test_an_inner_unit_is_found():
    assert has_inner_unit("3 cm, 5") and has_inner_unit("3, 5 cm")
    assert not any(map(has_inner_unit, ("3, 5", "3 cm", "(3 cm, 5)", "")))


@pytest.mark.parametrize(
    ("gold", "answer", "split"),
    [
        ("1, 2", "100,200", "100, 200"),
        ("1, 2", "1,000, 2,000", "1000, 2000"),
        ("1, 2, 3", "1,200,300", "1, 200, 300"),
        ("1, 2", "1,000", "1,000"),
        ("1, 2", "1,200,300", "1,200,300"),
        ("1", "100,200", "100,200"),
        ("(1, 2)", "100,200", "100,200"),
    ],
)
def test_commas_within_numbers_are_read_as_the_gold_answer_needs(gold, answer, split):
    assert split_like(gold, answer) == split


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("(1,2)", 1),
        ("(1,2), (2,1)", 2),
        ("(1,2), (1, 2)", 1),
        ("(1,2), 3", 0),
        ("1, 2", 0),
        ("(\\pm 1,2)", 0),
        ("[1,2]", 0),
    ],
)
def test_tuples_are_counted(text, count):
    assert tuples(text) == count


@pytest.mark.parametrize("filling", ["1 cm, ", ",100", "(1,2), ", "((", "\\$1, ", " cm"])
def test_long_lists_take_little_time_in_this_process(filling):
    text = "1, 2" + filling * (LONGEST // len(filling) - 1)
    start = time.thread_time()
    for step in (with_one_unit, has_inner_unit, tuples, lambda one: split_like("1, 2", one)):
        step(text)
    assert time.thread_time() - start < 0.5
