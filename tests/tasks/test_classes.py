"""Which answers are one vote: first-of-class over what a grader says, without the right answer."""

import itertools
import random

import pytest

from s1_jax.config import TaskConfig
from s1_jax.tasks import Rules, Verdict, load_rules
from s1_jax.tasks.classes import grader_classes, text_classes

MATH = load_rules(TaskConfig("math500"))
LETTERS = load_rules(TaskConfig("gpqa_diamond"))


@pytest.mark.parametrize(
    "rules, answers, classes",
    [
        (MATH, ["3", "3.0", "$3$", "x=3", "3.", "\\frac12", "0.5", "1/2"], [0, 0, 0, 0, 0, 1, 1, 1]),
        (MATH, ["x=3", "3", "3.0", "4", "y = 4"], [0, 0, 0, 1, 1]),
        (MATH, ["1,000", "1000", "\\$1000", "10", "10\\text{ cm}"], [0, 0, 0, 1, 1]),
        (MATH, [None, "7", None, "07", "8", None], [None, 0, None, 0, 1, None]),
        (MATH, ["x + 1", "1+x", "x  +  1", "x+2"], [0, 0, 0, 1]),
        (MATH, ["3 million", "3", "3  million", "3 billion"], [0, 1, 0, 2]),  # undecided: equal to itself alone
        (MATH, [], []),
        (MATH, [None, None], [None, None]),
        (LETTERS, ["A", "B", "A", "Mercury", "Mercury", "Venus", None], [0, 1, 0, 2, 2, 3, None]),
    ],
)
def test_answers_that_the_grader_calls_equal_are_one_class(rules, answers, classes):
    assert grader_classes(rules)(answers) == classes


def test_text_alone_knows_numbers_and_spaces():
    answers = ["7", "07", "7.0", "x + 1", "x  + 1", "1+x", None, "\\frac12", "0.5"]
    assert text_classes(answers) == [0, 0, 0, 1, 1, 2, None, 3, 4]


def near(answer, right):
    """Numbers that differ by one at most: not transitive."""
    return Verdict(abs(int(answer) - int(right)) <= 1, "number")


def by_hand(answers, grade):
    groups = []
    for answer in answers:
        if answer is not None:
            for group in groups:
                if answer == group[0] or grade(answer, group[0]).correct:
                    group.append(answer)
                    break
            else:
                groups.append([answer])
    return groups


def test_where_equality_is_not_transitive_the_first_of_a_class_decides():
    classes = grader_classes(Rules(lambda *_: None, near))
    assert classes(["1", "2", "3"]) == [0, 0, 1] and classes(["2", "1", "3"]) == [0, 0, 0]
    assert classes(["2", "4", "3"]) == [0, 1, 0], "of two classes the first"
    rng = random.Random(0)
    for _ in range(200):
        answers = [rng.choice([None, *map(str, range(8))]) for _ in range(rng.randrange(12))]
        found = classes(answers)
        groups = [[a for a, c in zip(answers, found, strict=True) if c == i] for i in range(len(set(found) - {None}))]
        # an answer seen before stays in its class
        seen = list(dict.fromkeys(answers))
        assert [list(dict.fromkeys(group)) for group in groups] == by_hand(seen, near)
        assert all((answer is None) == (number is None) for answer, number in zip(answers, found, strict=True))


def test_the_right_way_round_and_each_pair_once():
    asked = []

    def grade(answer, right):
        asked.append((right, answer))
        return Verdict(False, "undecided")

    classes = grader_classes(Rules(lambda *_: None, grade))
    for _ in range(3):  # other settings of the same problem
        assert classes(["a", "b", "a", "c", "b"]) == [0, 1, 0, 2, 1]
    assert asked == [("a", "b"), ("a", "c"), ("b", "c")], "the first of a class stands where the right answer would"


def test_what_is_undecided_is_not_equal():
    undecided = grader_classes(Rules(lambda *_: None, lambda *_: Verdict(False, "undecided")))
    assert undecided(["p", "q", "p"]) == [0, 1, 0]


def test_classes_do_not_depend_on_how_they_are_numbered():
    """Where the grader's equality is one, any order gives the same partition."""
    answers = ["3", "1/2", "x=3", "0.5"]
    partitions = set()
    for order in itertools.permutations(answers):
        found = dict(zip(order, grader_classes(MATH)(list(order)), strict=True))
        partitions.add(frozenset(frozenset(a for a in answers if found[a] == c) for c in found.values()))
    assert partitions == {frozenset({frozenset({"3", "x=3"}), frozenset({"1/2", "0.5"})})}
