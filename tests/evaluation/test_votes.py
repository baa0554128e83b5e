"""A majority over records: the class of each answer, whatever order the records came in, and the vote over classes."""

import itertools
import random
from collections import Counter

import pytest

from s1_jax.config import TaskConfig
from s1_jax.evaluation.votes import with_classes
from s1_jax.reporting.summary import summarize
from s1_jax.reporting.table import format_report
from s1_jax.search.vote import Leaf, decide
from s1_jax.tasks import load_rules
from s1_jax.tasks.classes import grader_classes, text_classes
from tests.reporting.made_up import record, searched

ROUNDING = 1e-9
ISSUE = ["3", "3.0", "$3$", "x=3", "3.", "\\frac12", "0.5", "1/2"]  # five wrong, three right


def drawn(answers, right=(), problem=0, **fields):
    made = [{"extracted_answer": one, "temperature": 1.0, "sample": i} | fields for i, one in enumerate(answers)]
    return [record(problem, one["extracted_answer"] in right, 9, **one) for one in made]


def majority(records):
    (run,) = summarize(records)
    return {one.k: one.accuracy for one in run.majority}


def test_wrong_answers_are_one_vote_too_however_they_are_written():
    classes = grader_classes(load_rules(TaskConfig("math500")))
    records = with_classes(drawn(ISSUE, ISSUE[5:]), classes)
    found = majority(records)
    # of the 70 draws of four: three right ones in 5, two in 30 of which half are lost to who came first
    assert found == pytest.approx({1: 37.5, 2: 37.5, 4: 100 * (5 + 30 / 2) / 70, 8: 0.0})
    (run,) = summarize(records)
    assert run.pass_at[-1].accuracy == 100 and run.compared_as_text == 0
    for order in (ISSUE, ISSUE[::-1], ISSUE[5:] + ISSUE[:5]):
        leaves = [Leaf(i, answer, 1.0) for i, answer in enumerate(order)]
        chosen = decide(leaves, "majority", classes).chosen
        assert order[chosen] == next(answer for answer in order if answer in ISSUE[:5]), "the first of the class"


def vote_by_hand(order):
    """The winner of (class, right) votes in the order they were drawn: the most common, of equals the first seen."""
    counts = Counter(name for name, _ in order if name is not None)
    if not counts:
        return False
    winner = next(name for name, _ in order if name is not None and counts[name] == max(counts.values()))
    return next(right for name, right in order if name == winner)


def test_the_estimate_is_that_over_all_orders():
    rng = random.Random(0)
    for _ in range(60):
        votes = [(rng.choice([0, 0, 1, 2, None]), rng.random() < 0.5) for _ in range(rng.choice([2, 4, 5, 6]))]
        votes = [(name, right and name is not None) for name, right in votes]  # of a class some may be right
        records = [
            record(0, right, 9, sample=i, extracted_answer=None if name is None else f"a{i}", answer_class=name)
            for i, (name, right) in enumerate(votes)
        ]
        for k, accuracy in majority(records).items():
            orders = list(itertools.permutations(votes, k))
            assert accuracy == pytest.approx(100 * sum(map(vote_by_hand, orders)) / len(orders), abs=ROUNDING)


def test_all_samples_as_a_vote_of_a_search():
    """Without a tie the estimate for all samples is what `decide` finds over them."""
    rng = random.Random(1)
    for _ in range(200):
        answers = [rng.choice(["1", "01", "2", "2.0", "x", "x ", "3", None]) for _ in range(8)]
        right = {"1", "01"} if rng.random() < 0.5 else {"2", "2.0", "x", "x "}
        records = with_classes(drawn(answers, right), text_classes)
        numbers = Counter(one["answer_class"] for one in records if one["answer_class"] is not None)
        top = [number for number, count in numbers.items() if count == max(numbers.values())]
        chosen = decide([Leaf(i, answer, 1.0) for i, answer in enumerate(answers)], "majority").chosen
        if len(top) == 1:
            assert majority(records)[8] == pytest.approx(100 * (answers[chosen] in right))
        assert not top or records[chosen]["answer_class"] == top[0], "of equals the first seen"


def test_classes_depend_neither_on_the_order_of_records_nor_on_other_settings():
    def near(answers):  # not transitive: numbers that differ by one at most
        firsts, found = [], []
        for answer in map(int, answers):
            found.append(next((i for i, first in enumerate(firsts) if abs(first - answer) <= 1), len(firsts)))
            firsts += [answer] if found[-1] == len(firsts) else []
        return found

    rng = random.Random(2)
    records = [
        one
        for problem, budget, seed in itertools.product((0, "a"), (8, None), (0, 1))
        for one in drawn(
            [str(rng.randrange(9)) for _ in range(6)], problem=problem, seed=seed, max_thinking_tokens=budget
        )
    ]
    records += [searched(0, False, 4, sample=i, extracted_answer=str(i)) for i in range(3)]

    def key(one):
        return [str(one.get(name)) for name in ("problem_id", "max_thinking_tokens", "method", "seed", "sample")]

    expected = {str(key(one)): one["answer_class"] for one in with_classes(records, near)}
    assert len(expected) == len(records)
    for _ in range(20):
        some = [one for one in records if rng.random() < 0.5 or one["seed"] == 0]  # later seeds change no earlier one
        rng.shuffle(some)
        found = with_classes(some, near)
        assert [key(one) for one in found] == [key(one) for one in some]
        assert all(one["answer_class"] == expected[str(key(one))] for one in found if one["seed"] == 0)
    halves = [with_classes([one for one in records if one["problem_id"] == name], near) for name in (0, "a")]
    assert all(one["answer_class"] == expected[str(key(one))] for half in halves for one in half)
    assert {one["answer_class"] for one in with_classes(records[-3:], near)} == {0, 1}


def test_what_has_classes_is_left_alone_and_what_was_added_changes_its_own_setting():
    records = with_classes(drawn(["1", "2"]) + drawn(["1", "3"], max_thinking_tokens=8), text_classes)
    assert all(a is b for a, b in zip(records, with_classes(records, lambda _: pytest.fail("asked")), strict=True))
    added = record(0, False, 9, extracted_answer="3", temperature=1.0, sample=2, max_thinking_tokens=8)
    again = with_classes([*records, added], text_classes)
    assert [one["answer_class"] for one in again] == [0, 1, 0, 1, 1]
    assert all(a is b for a, b in zip(records[:2], again[:2], strict=True))
    alone = drawn(["1"])
    assert with_classes(alone, lambda _: pytest.fail("asked"))[0] is alone[0], "nobody votes"
    no_answer = with_classes(drawn([None, None]), text_classes)
    assert all(one.get("answer_class") is None for one in no_answer)


def test_records_without_classes_are_compared_as_numbers_and_text_and_that_is_said():
    records = drawn(["7", "07", "7.0", "8", "x  y", "x y"], {"8"})
    assert majority(records)[4] < 100 / 6
    runs = summarize(records)
    assert runs[0].compared_as_text == 1
    said = "Majority: 1 votes compare answers only as numbers or text"
    assert said in format_report(runs, [], "across")
    part = [one | {"answer_class": 0} for one in records[:3]] + records[3:]
    assert majority(part) == majority(records), "numbers of different kinds are not mixed"
    whole = summarize(with_classes(records, text_classes))
    assert whole[0].majority == runs[0].majority and said not in format_report(whole, [], "across")
    (single,) = summarize(drawn(["7"]))
    assert single.compared_as_text == 0, "nobody votes"
