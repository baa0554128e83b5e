"""Examples that changed between a stop and the resume are told, and the first of them is named."""

import json

import numpy as np
import pytest

from s1_jax.data.chat import Example
from s1_jax.data.identity import check_same, identity_of
from s1_jax.data.tokens import Corpus
from s1_jax.errors import UserError


def example(*ids, prompt=1):
    return Example(np.asarray(ids, np.int32), np.arange(len(ids)) >= prompt)


def corpus(*examples):
    return Corpus(tuple(f"row-{i}" for i in range(len(examples))), examples)


ONE, TWO, THREE, FOUR = example(1, 2, 3), example(4, 5), example(6, 7, 8, 9), example(10, 11)
CHANGES = {  # training and held-out examples now -> what is said of them
    "another token": (
        corpus(ONE, example(4, 6), THREE),
        corpus(FOUR),
        r"training examples \(3\), number 2 .id row-1",
    ),
    "another loss mask": (corpus(ONE, TWO, example(6, 7, 8, 9, prompt=2)), corpus(FOUR), r"number 3 \(id row-2\)"),
    "a token moved over": (corpus(example(1, 2), example(3, 4, 5), THREE), corpus(FOUR), r"number 1 \(id row-0\)"),
    "another order": (corpus(ONE, THREE, TWO), corpus(FOUR), r"\(3, all in another order\), number 2 \(id row-1\)"),
    "one gone at the end": (corpus(ONE, TWO), corpus(FOUR), r"\(2 now, 3 before\), the last ones are missing"),
    "one gone in front": (corpus(TWO, THREE), corpus(FOUR), r"\(2 now, 3 before\), number 1 \(id row-0\)"),
    "one more": (corpus(ONE, TWO, THREE, FOUR), corpus(FOUR), r"\(4 now, 3 before\), number 4 .*differs or is new"),
    "another held out": (corpus(ONE, TWO, THREE), corpus(ONE), r"held-out examples \(1\), number 1 \(id row-0\)"),
    "none held out": (corpus(ONE, TWO, THREE), corpus(), r"held-out examples \(0 now, 1 before\), the last ones"),
    "held out and trained on": (
        corpus(ONE, TWO, THREE, FOUR),
        corpus(),
        r"training examples \(4 now, 3 before",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_first_difference_is_named(name, tmp_path):
    before = identity_of(corpus(ONE, TWO, THREE), corpus(FOUR))
    before.keep(tmp_path)
    training, held_out, said = CHANGES[name]
    now = identity_of(training, held_out)
    with pytest.raises(UserError, match=rf"the-run contains a run on other examples: .*{said}") as error:
        check_same(before.digest, now, tmp_path, (training.ids, held_out.ids), "the-run")
    assert "\n" not in str(error.value)
    # the file alone may be lost, or be of another start
    for contents in (None, {"digest": "0"}):
        (tmp_path / "examples.json").unlink()
        if contents is not None:
            (tmp_path / "examples.json").write_text(json.dumps(contents))
        with pytest.raises(UserError, match="which of them differ is unknown"):
            check_same(before.digest, now, tmp_path, (training.ids, held_out.ids), "the-run")
        (tmp_path / "examples.json").touch()


def test_the_same_examples_are_the_same_by_any_name(tmp_path):
    one, other = corpus(ONE, TWO), Corpus(("a", "b"), (ONE, TWO))
    check_same(identity_of(one, corpus()).digest, identity_of(other, corpus()), tmp_path, ((), ()), "the-run")


def test_the_file_is_small(tmp_path):
    identity_of(corpus(*[ONE] * 1000), corpus()).keep(tmp_path)
    assert (tmp_path / "examples.json").stat().st_size < 9000
