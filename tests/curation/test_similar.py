"""Near duplicates: beside a comparison of every text with every other, in plain Python."""

import itertools
import json
import random
import re
import sys

import pytest

from s1_jax.curation.similar import near_duplicates, nearest
from s1_jax.errors import UserError

TEXTS = 400
RECALLED = 0.99


def shingles(text):
    words = re.findall(r"[a-z0-9]+|[-+*/=<>^!]", text.lower())
    return set(itertools.pairwise(words)) or {(word, "") for word in words}


def similarity(text, other):
    own, others = shingles(text), shingles(other)
    return len(own & others) / max(1, len(own | others))


def problems(seed, count=TEXTS, words=120):
    """Texts of few words, half of them copies of an earlier one with some words changed."""
    random_ = random.Random(seed)
    texts = []
    for number in range(count):
        new = [f"w{random_.randrange(words)}" for _ in range(random_.randrange(5, 60))]
        if number % 2:
            new = texts[random_.randrange(number)].split()
            for _ in range(random_.randrange(0, 6)):
                new[random_.randrange(len(new))] = f"w{random_.randrange(words)}"
        texts.append(" ".join(new))
    return texts


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 1.0])
def test_near_duplicates_beside_all_pairs(threshold):
    texts = problems(seed=0)
    pairs = near_duplicates(texts, threshold)
    gone = [later for later, _, _ in pairs]
    assert gone == sorted(set(gone))
    most_similar = 0
    for later, earlier, found in pairs:
        kept = [place for place in range(later) if place not in gone]
        assert earlier in kept and found >= threshold
        assert found == pytest.approx(similarity(texts[later], texts[earlier]))
        most_similar += found == pytest.approx(max(similarity(texts[later], texts[place]) for place in kept))
    assert most_similar >= RECALLED * len(pairs)
    stays = [place for place in range(TEXTS) if place not in gone]
    missed = sum(similarity(texts[a], texts[b]) >= threshold for a in stays for b in stays if b < a)
    assert len(pairs) > TEXTS / 20 and missed <= (1 - RECALLED) * len(pairs) + 1


def test_nearest_beside_all_pairs():
    texts, others = problems(seed=1), problems(seed=1, count=TEXTS // 2)[::-1]
    pairs = nearest(texts, others, 0.5)
    expected = []
    for place, text in enumerate(texts):
        values = [similarity(text, other) for other in others]
        if max(values) >= 0.5:
            expected.append((place, values.index(max(values)), pytest.approx(max(values))))
    assert len(expected) > TEXTS / 2
    assert sum(one == other for one, other in zip(pairs, expected, strict=True)) >= RECALLED * len(expected)


def test_what_counts_as_the_same():
    text = "Find the least value of $x + 1$ for real $x > 2$."
    for same in ("find THE least value of x+1 for real x > 2", "Find the least\n value, of\\[x + 1\\]for real $x>2$."):
        assert near_duplicates([text, same], 1.0) == [(1, 0, 1.0)]
    assert not near_duplicates([text, text.replace("+", "-")], 1.0)
    assert near_duplicates([text, text.replace("+", "-")], 0.5)


def test_of_many_alike_one_stays():
    assert near_duplicates(["what is 2 plus 2"] * 3 + ["none of these words", "What is 2 plus 2?"], 0.8) == [
        (1, 0, 1.0),
        (2, 0, 1.0),
        (4, 0, 1.0),
    ]


def test_of_a_chain_every_other_one_stays():
    chain = [" ".join(f"w{number}" for number in range(first, first + 20)) for first in range(0, 12, 3)]
    assert [pair[:2] for pair in near_duplicates(chain, 0.7)] == [(1, 0), (3, 2)]


def test_texts_of_no_words_and_of_one():
    assert near_duplicates(["", "   ", "...", "one", "One.", "two"], 0.5) == [(4, 3, 1.0)]
    assert nearest(["", "one"], ["", "one", "ONE"], 0.5) == [(1, 1, 1.0)]
    assert near_duplicates([], 0.5) == [] and nearest([], ["one"], 0.5) == [] and nearest(["one"], [], 0.5) == []


@pytest.mark.parametrize("threshold", [0.0, 1.1])
def test_a_threshold_that_is_none(threshold):
    with pytest.raises(ValueError, match="threshold"):
        near_duplicates(["one"], threshold)


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(UserError, match=r"pip install 's1_jax\[curate\]'"):
        near_duplicates(["one"], 0.5)


def test_pairs_in_the_released_s1k(shared_data):
    lines = (shared_data / "s1k_released" / "s1k_released_questions_solutions.jsonl").read_text().splitlines()
    texts = [row["question"] for row in map(json.loads, lines) if row["question"]]
    bare = ["".join(text.split()) for text in texts]
    same_but_for_white_space = {place for place, text in enumerate(bare) if bare.index(text) < place}
    gone = {later for later, _, _ in near_duplicates(texts, 0.8)}
    assert len(same_but_for_white_space) == 6 and gone >= same_but_for_white_space
