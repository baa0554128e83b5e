"""How an answer is read before it is graded: letters, exact values, bases, units, sentences; all in a moment."""

import time
from fractions import Fraction

import pytest

from s1_jax.config import TaskConfig
from s1_jax.tasks import load_rules, shapes
from s1_jax.tasks.letters import letter_in
from s1_jax.tasks.notation import tidy
from s1_jax.tasks.numerals import LONGEST, digits_in_base, plain_number, rational
from s1_jax.tasks.sentences import phrase, reading, said_phrase
from s1_jax.tasks.units import conversion, split_unit, unit_of

THINK = "<|im_start|>think\nSo.\n<|im_start|>answer\n"
IN_PROCESS = 0.5  # seconds for what nothing can end; it takes a twentieth of that


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        *(("\\text{C: the reaction is exothermic}", "C"), ("\\text{Option C}", "C"), ("C - water", "C"), ("[D]", "D")),
        *(
            ("D, because the energy rises", "D"),
            ("D\n\nThis follows from A and B.", "D"),
            ('"D"', "D"),
            ("choice (B)", "B"),
        ),
        *(
            ("The correct answer is D.", "D"),
            ("Option D", "D"),
            ("D), because of symmetry", "D"),
            ("**C) 10^-4 eV**", "C"),
        ),
        *(("D is correct.", "D"), ("The answer is (b).", "B"), ("(A)", "A"), ("A: 5", "A"), ("B. none of these", "B")),
        *(
            ("A. thaliana grows faster", None),
            ("C. elegans", None),
            ("D. melanogaster has it", None),
            ("A planet", None),
        ),
        *(
            ("A or B", None),
            ("A, B", None),
            ("(A) and (C)", None),
            ("A) or B)", None),
            ("A/B", None),
            ("Both A and B", None),
        ),
        *(
            ("B. No, wait, C.", None),
            ("The answer is A or B.", None),
            ("Dogs", None),
            ("a man", None),
            ("Carbon", None),
        ),
        *(("The answer is B. The answer is C.", None), ("C. increases", None)),
    ],
)
def test_letters_of_choices(answer, letter):
    assert letter_in(answer) == letter


def test_a_labelled_choice_may_be_followed_by_small_letters_but_not_by_a_species():
    assert letter_in("C. increases", labelled=True) == "C" and letter_in("C. elegans", labelled=True) is None
    rules = load_rules(TaskConfig("gpqa_diamond"))
    for written, extracted in (("\\boxed{C. increases}", "C"), ("Answer: d. decreases", "D"), ("**Answer:** (B)", "B")):
        assert rules.extract(THINK + written, "<|im_start|>answer") == extracted


@pytest.mark.parametrize(
    ("written", "value"),
    [
        *(
            ("1,000", 1000),
            ("1 234 567", 1234567),
            ("-3/4", Fraction(-3, 4)),
            ("\\frac34", Fraction(3, 4)),
            (".5", Fraction(1, 2)),
        ),
        *(("1\\frac{4}{5}", Fraction(9, 5)), ("137 1/2", Fraction(275, 2)), ("0.\\overline{12}", Fraction(12, 99))),
        *(
            ("0.1\\overline{6}", Fraction(1, 6)),
            ("3e8", 3 * 10**8),
            ("2.5 \\times 10^{-3}", Fraction(1, 400)),
            ("10^3", 1000),
        ),
        *(
            ("\\frac{-1}{2}", Fraction(-1, 2)),
            ("(5)", 5),
            ("0,111", None),
            ("1,5", None),
            ("12 34", None),
            ("1/0", None),
        ),
        *(("x", None), ("1,00,0", None), ("1 00", None), ("3e99999999999", None), ("2^3", None), ("", None)),
    ],
)
def test_exact_values(written, value):
    assert rational(written) == value


def test_bases_and_units_as_written():
    assert digits_in_base("1A_{16}") == ("1A", 16) and digits_in_base("12_2") is digits_in_base("x_2") is None
    assert split_unit("10\\text{ cm}") == ("10", "\\text{ cm}") and split_unit("-\\$5") == ("-5", "\\$")
    assert split_unit("2\\pi m") == ("2\\pi m", "") and split_unit("5 pi") == ("5 pi", "")
    assert conversion("hours", "minutes") == (3600, 60) and conversion("kg", "miles") is False
    assert conversion("apples", "oranges") is None and conversion("", "cm") == (1, 1)
    assert unit_of("million dollars") is unit_of("\\text{ less than }") is unit_of("of them") is None


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("The answer is 73 because 70+3=73.", ("73", True)),
        ("35\n\nStep 1: add", ("35", True)),
        ("There are 70 ways.", ("70", False)),
        ("It takes 2 minutes.", ("2 minutes", False)),
        *((text, None) for text in ("The answer is 3 or so.", "I do not know", "It is 3, not 4.", "", "Step 3")),
    ],
)
def test_readings(written, said):
    assert reading(written) == said


FILLINGS = (
    *(
        " ",
        "\n",
        "(",
        ")",
        "{",
        "$",
        "*",
        "**",
        "#",
        "=",
        ",",
        "1,",
        "1 ",
        "a ",
        "is ",
        "the answer is ",
        "Answer: ",
        "\\",
    ),
    *(
        "\\\\",
        "\\text{",
        "\\text{a}",
        "\\sqrt(",
        "^(",
        "\\frac",
        "\\begin{pmatrix}",
        "x<",
        "1 000 ",
        "e1",
        "5 cm ",
        "a per ",
    ),
    *(
        "\\boxed ",
        "- ",
        "/ ",
        "\\text{ or }",
        "½",
        "√(",
        "A) ",
        "option ",
        "°",
        ":",
        "1:",
        "<",
        "'",
        "answer to ",
        "1\n",
        "_2",
    ),
)


@pytest.mark.parametrize("ending", ["", "x", "!", "answer is"])
def test_no_filling_takes_more_than_a_moment(ending):
    """Rules run in the process that asks, where nothing can end them."""
    for filling in FILLINGS:
        text = "1" + filling * (LONGEST // len(filling) - 10) + ending
        start = time.process_time()
        reading(text), phrase(tidy(text)), said_phrase(text), shapes.elements(text), shapes.as_interval(text)
        shapes.as_tuple(text), plain_number(text), rational(text), split_unit(text), letter_in(text)
        shapes.may_be_same(text, text), load_rules(TaskConfig("aime24")).extract(text, "<|im_start|>answer")
        assert time.process_time() - start < IN_PROCESS, filling
