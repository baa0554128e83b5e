"""Filter: each rule drops what the reference drops, counts are those of the first rule, nothing else goes."""

import re
from typing import get_args

import numpy as np
import pytest

from s1_jax.config.curate import FilterConfig, RuleName
from s1_jax.curation import stages
from s1_jax.curation.filter import RULES, filter
from s1_jax.errors import UserError
from tests.curation.pools import call, made_up

SPACES = (" ", "\n", "\x0b", "\u00a0", "\u2003")
PIECES = ("**", "*", "1", "٣", "a", "]", *SPACES, "p", "p1", ".", "0", "[asy]", "![Image]")


def with_questions(questions, **columns):
    return made_up(len(questions)) | {"question": list(questions)} | columns


def kept(tmp_path, columns, **options):
    return call(filter, tmp_path, columns, filter=FilterConfig(**options)).rows.tolist()


def test_every_rule_has_its_name():
    assert tuple(RULES) == get_args(RuleName)
    with pytest.raises(UserError, match=r"filter\.rules\[1\] is 'nonsense'; it must be no_trace or "):
        FilterConfig(rules=("no_trace", "nonsense"))


def test_patterns_are_the_references(tmp_path):
    rng = np.random.default_rng(0)
    questions = ["".join(rng.choice(PIECES, rng.integers(1, 16))) for _ in range(8000)]
    theirs = {
        "bold_numbers": lambda text: re.search(r"\*\*(?=.*\d)[^\s\]]*\*\*", text),
        "numbered_parts": lambda text: any(f"p{i}." in text for i in range(1, 1000)),
        "images": lambda text: "![Image]" in text,
        "asymptote": lambda text: "[asy]" in text,
    }
    for rule, drops in theirs.items():
        columns = with_questions(questions, source=["math"] * len(questions))
        expected = [i for i, text in enumerate(questions) if not drops(text)]
        assert kept(tmp_path, columns, rules=(rule,)) == expected, rule
        assert 20 < len(expected) < len(questions) - 20, f"{rule}: both kinds are there"


@pytest.mark.parametrize(
    ("question", "drops"),
    [("p1.", True), ("see p999. ", True), ("p0.", False), ("p1000.", False), ("p01.", False), ("p12 .", False)],
)
def test_numbered_parts(tmp_path, question, drops):
    assert kept(tmp_path, with_questions([question]), rules=("numbered_parts",)) == ([] if drops else [0])


def test_asymptote_stays_where_a_source_is_spared(tmp_path):
    columns = with_questions(["[asy] draw(); [/asy]"] * 3, source=["aime", "math", None])
    assert kept(tmp_path, columns, rules=("asymptote",)) == [0]
    assert kept(tmp_path, columns, rules=("asymptote",), asymptote_sources=("math",)) == [1]


def test_what_is_blank_is_missing(tmp_path):
    columns = with_questions(list("abcdef"))
    columns["thinking"][:3] = None, "", " \n\t"
    columns["attempt"][3] = None
    columns["solution"][4] = " "
    assert kept(tmp_path, columns, rules=("no_trace",)) == [4, 5]
    assert kept(tmp_path, columns, rules=("no_solution",)) == [0, 1, 2, 3, 5]


@pytest.mark.parametrize("rows_of_group", [1, 3, 1000])
def test_counts_and_rows(tmp_path, monkeypatch, rows_of_group):
    monkeypatch.setattr(stages, "ROWS_OF_GROUP", rows_of_group)
    columns = with_questions(["fine", "![Image]", "![Image] p3.", "p3.", "also **fine**", "**12**", "p7."])
    columns["thinking"][6] = None
    made = call(filter, tmp_path, columns)
    assert made.rows.tolist() == [0, 4]
    assert list(made.dropped) == [
        ("no_trace", 1),
        ("asymptote", 0),
        ("images", 2),  # one of them has numbered parts too
        ("numbered_parts", 1),
        ("bold_numbers", 1),
    ]


def test_hard_is_what_no_solver_is_known_to_have_right(tmp_path):
    columns = with_questions(list("abcde"))
    columns["solver_1_correct"] = [True, False, None, None, False]
    columns["solver_2_correct"] = [False, False, None, True, True]
    columns["question"][1] = "![Image]"
    made = call(filter, tmp_path, columns)
    assert made.columns["hard"].to_pylist() == [False, True, False, False]
    for name in ("solver_1_correct", "solver_2_correct"):
        del columns[name]
    assert call(filter, tmp_path, columns).columns["hard"].to_pylist() == [True] * 4


def test_a_table_without_rows_and_no_rules(tmp_path):
    assert call(filter, tmp_path, made_up(0)).rows.tolist() == []
    assert kept(tmp_path, with_questions(["![Image]"]), rules=()) == [0]


def test_a_missing_column_is_named(tmp_path):
    columns = made_up(2)
    del columns["attempt"]
    with pytest.raises(UserError, match="rule no_trace needs column 'attempt'; the table has id, question"):
        call(filter, tmp_path, columns)
