"""OlympiadBench's rows become one gold answer each, which several answers and a unit are part of."""

import json

import pytest

from s1_jax.config import TaskConfig
from s1_jax.errors import UserError
from s1_jax.tasks import load_rules, load_task

ROW = {"id": 5, "question": "Which?", "final_answer": ["$2,3$"], "is_multiple_answer": True, "unit": None}


@pytest.fixture
def load(tmp_path):
    def load(**fields):
        row = {name: value for name, value in (ROW | fields).items() if value != "missing"}
        path = tmp_path / "rows.jsonl"
        path.write_text(json.dumps(row) + "\n")
        (problem,) = load_task(TaskConfig("olympiadbench", str(path))).problems
        return problem

    return load


@pytest.mark.parametrize(
    ("fields", "gold"),
    [
        ({}, "2, 3"),
        (dict(final_answer=["$2$, $3$"]), "2, 3"),
        (dict(final_answer=["$2$", "$3$"]), "2, 3"),
        (dict(final_answer=["2", "3"], is_multiple_answer=False), "2, 3"),
        (dict(final_answer=["$100,200$"]), "100, 200"),
        (dict(final_answer=["$(1,8,19),(2,7,13)$"]), "(1, 8, 19), (2, 7, 13)"),
        (dict(final_answer=["$\\frac{1}{2}$"], is_multiple_answer=False), "\\frac{1}{2}"),
        (dict(final_answer=["$1,200$"], is_multiple_answer=False), "1,200"),
        (dict(final_answer=["1{,}200, 2\\,000"]), "1{,}200, 2\\,000"),
        (dict(final_answer=["\\$5"], is_multiple_answer=False), "\\$5"),
        (dict(unit="cm"), "2, 3\\text{ cm}"),
        (dict(unit="$\\mathrm{~cm}^{2}$"), "2, 3\\mathrm{ cm}^{2}"),
        (dict(unit="cm^2"), "2, 3\\text{ cm}^2"),
        (dict(unit="$^{\\circ}$"), "2, 3^{\\circ}"),
        (dict(unit=""), "2, 3"),
        (dict(unit="missing"), "2, 3"),
        (dict(unit="$10^{3}$"), "2, 3"),
        (dict(unit="\\$"), "2, 3"),
    ],
)
def test_a_row_has_one_gold_answer(load, fields, gold):
    problem = load(**fields)
    assert (problem.id, problem.question, problem.gold) == (5, "Which?", gold)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (dict(final_answer="missing"), "no field final_answer; it has id, question"),
        (dict(final_answer=None), "no field final_answer"),
        (dict(final_answer=[]), "field final_answer is []; it must be a list and not empty"),
        (dict(final_answer="2"), "field final_answer is '2'; it must be a list"),
        (dict(final_answer=[2]), "field final_answer is [2]; it must be a list of texts, none of them empty"),
        (dict(final_answer=["2", None]), "field final_answer is ['2', None]; it must be a list of texts"),
        (dict(final_answer=["$ $"]), "it must be a list of texts, none of them empty"),
        (dict(final_answer=["\ud83d"]), "field final_answer contains half of a surrogate pair"),
        (dict(is_multiple_answer="missing"), "no field is_multiple_answer"),
        (dict(is_multiple_answer="yes"), "field is_multiple_answer is 'yes'; it must be true or false"),
        (dict(is_multiple_answer=1), "field is_multiple_answer is 1"),
        (dict(unit=5), "field unit is 5; it must be a string"),
        (dict(question=None), "no field question"),
        (dict(question=["Which?"]), "field question is ['Which?']; it must be a string"),
        (dict(id=1.5), "field id is 1.5"),
    ],
)
def test_a_bad_row_is_one_line_that_names_the_field(load, fields, words):
    with pytest.raises(UserError) as error:
        load(**fields)
    assert words in str(error.value) and "rows.jsonl, line 1: " in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "right", "wrong"),
    [
        ({}, ("2, 3", "3, 2", "\\{3, 2\\}", "2 \\text{ and } 3"), ("2", "3", "2, 3, 5", "2, 5", "(2, 3, 5)")),
        (dict(final_answer=["$100,200$"]), ("200, 100", "200,100", "100 and 200"), ("100", "100200", "300")),
        (
            dict(final_answer=["$(1,8),(2,7)$"]),
            ("(2,7), (1,8)", "(1,8) and (2,7)"),
            ("(1,8)", "(8,1), (7,2)", "(1,8), (2,7), (3,6)"),
        ),
        (dict(unit="cm"), ("2, 3", "3 cm, 2 cm", "3, 2 \\text{ cm}"), ("2 cm", "2, 5 cm", "2, 3, 5 cm", "2 kg, 3 kg")),
        (
            dict(final_answer=["$5$"], is_multiple_answer=False, unit="m"),
            ("5", "5 \\text{ m}", "500 cm"),
            ("5 cm", "5 kg", "5, 6"),
        ),
        (dict(final_answer=["$\\frac{1}{2}$"], is_multiple_answer=False), ("0.5", "1/2"), ("2", "\\frac{1}{3}")),
    ],
)
def test_an_answer_is_right_if_it_gives_all(load, fields, right, wrong):
    gold, rules = load(**fields).gold, load_rules(TaskConfig("olympiadbench"))
    for answer in right:
        assert rules.grade(answer, gold).correct, answer
    for answer in wrong:
        assert not rules.grade(answer, gold).correct, answer
