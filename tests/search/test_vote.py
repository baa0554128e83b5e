"""Who wins a vote, and who speaks for it."""

import pytest

from s1_jax.search.vote import Leaf, decide, path_score

LEAVES = [
    Leaf(10, "7", 0.3),
    Leaf(11, "8", 0.9),
    Leaf(12, "07", 0.5),
    Leaf(13, None, 5.0),
    Leaf(14, "9", 0.1),
    Leaf(15, "9.0", 0.2),
    Leaf(16, "9", 0.15),
]


@pytest.mark.parametrize("vote, chosen", [("best", 11), ("weighted", 11), ("majority", 15)])
def test_votes(vote, chosen):
    outcome = decide(LEAVES, vote)
    assert outcome.chosen == chosen and outcome.leaves == LEAVES


def test_the_weights_of_one_answer_add_up_however_it_is_written():
    leaves = [Leaf(0, "8", 0.7), Leaf(1, "7", 0.3), Leaf(2, "7.0", 0.5), Leaf(3, "x  + 1", 0.2), Leaf(4, "x + 1", 0.65)]
    assert decide(leaves, "weighted").chosen == 4
    assert decide(leaves[:3], "weighted").chosen == 2


@pytest.mark.parametrize("vote", ["best", "weighted", "majority"])
def test_of_equals_the_first(vote):
    leaves = [Leaf(5, None, 0.5), Leaf(3, "b", 0.5), Leaf(4, "a", 0.5)]
    assert decide(leaves, vote).chosen == 3
    assert decide(leaves[:1], vote).chosen == 5, "where none has an answer one of them stands all the same"
    assert decide([], vote) == ([], None)


def test_path_scores():
    scores = (0.5, 0.25, 0.75)
    found = {how: path_score(scores, how) for how in ("last", "min", "mean", "product")}
    assert found == {"last": 0.75, "min": 0.25, "mean": 0.5, "product": 0.09375}
