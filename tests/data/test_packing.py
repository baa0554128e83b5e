"""Packing loses nothing, mixes nothing, and weighs every example (or every token) the same."""

import numpy as np
import pytest

from s1_jax.config import UserError
from s1_jax.data.chat import Example
from s1_jax.data.packing import assign_rows, loss_tokens, pack

SEEDS = range(50)
FLOAT32_SUM = 1e-5  # up to 3,000 float32 weights are added up


def random_examples(seed, row_length):
    """Examples with token ids that occur once in the whole step, so that a misplaced one shows."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, row_length + 1, size=rng.integers(1, 25))
    starts = np.cumsum([1, *lengths])
    return [
        Example(np.arange(start, start + n, dtype=np.int32), np.arange(n) >= rng.integers(1, n))
        for start, n in zip(starts, lengths, strict=False)
    ]


def unpack(batch):
    """(row, segment) -> slice of that row."""
    for row, segments in enumerate(batch["segment_ids"]):
        for segment in range(1, segments.max() + 1):
            (places,) = np.nonzero(segments == segment)
            assert (np.diff(places) == 1).all(), "a document is not in one piece"
            yield row, slice(places[0], places[-1] + 1)


@pytest.mark.parametrize("weighting", ["example", "token"])
def test_every_token_once_in_its_own_segment_with_its_own_target(weighting):
    for seed in SEEDS:
        row_length = int(np.random.default_rng(seed).integers(4, 130))
        examples = random_examples(seed, row_length)
        batch = pack(examples, row_length, weighting)
        assert {name: array.dtype for name, array in batch.items()} == {
            "weights": np.float32,
            **dict.fromkeys(["token_ids", "positions", "segment_ids", "targets"], np.int32),
        }
        by_first = {int(e.token_ids[0]): e for e in examples}
        for row, places in unpack(batch):
            example = by_first.pop(int(batch["token_ids"][row, places][0]))
            np.testing.assert_array_equal(batch["token_ids"][row, places], example.token_ids)
            np.testing.assert_array_equal(batch["positions"][row, places], np.arange(len(example.token_ids)))
            np.testing.assert_array_equal(batch["targets"][row, places][:-1], example.token_ids[1:])
            np.testing.assert_array_equal(batch["weights"][row, places][:-1] > 0, example.loss_mask[1:])
            assert batch["weights"][row, places][-1] == 0
        assert not by_first, "an example is nowhere"
        padding = batch["segment_ids"] == 0
        assert padding.size - padding.sum() == sum(len(e.token_ids) for e in examples)
        assert not any(batch[name][padding].any() for name in batch)


def test_weights_of_a_step_sum_to_one_and_each_example_or_token_counts_the_same():
    for seed in SEEDS:
        examples = random_examples(seed, 120)
        per_example = pack(examples, 120, "example")
        assert per_example["weights"].sum() == pytest.approx(1, rel=FLOAT32_SUM)
        for row, places in unpack(per_example):
            assert per_example["weights"][row, places].sum() == pytest.approx(1 / len(examples), rel=FLOAT32_SUM)
        per_token = pack(examples, 120, "token")["weights"]
        expected = 1 / sum(loss_tokens(e) for e in examples)
        np.testing.assert_allclose(per_token[per_token > 0], expected, rtol=FLOAT32_SUM)
        assert per_token.sum() == pytest.approx(1, rel=FLOAT32_SUM)


def test_weights_are_the_references_mean_over_examples_of_means_over_tokens():
    examples = random_examples(3, 120)
    nll = np.random.default_rng(0).random(1 + sum(len(e.token_ids) for e in examples))  # of each token, by its id
    reference = np.mean([np.mean(nll[e.token_ids[e.loss_mask]]) for e in examples])
    batch = pack(examples, 120)
    assert (batch["weights"] * nll[batch["targets"]]).sum() == pytest.approx(reference, rel=FLOAT32_SUM)


def test_rows_are_filled_best_fit_longest_first():
    assert assign_rows([5, 9, 3, 1, 2], 10) == [[1, 3], [0, 2, 4]]
    assert assign_rows([7, 5, 3], 10) == [[0, 2], [1]]
    assert assign_rows([4, 4, 4], 4) == [[0], [1], [2]]
    for seed in SEEDS:
        lengths = [len(e.token_ids) for e in random_examples(seed, 100)]
        rows = assign_rows(lengths, 100)
        assert all(sum(lengths[i] for i in row) <= 100 for row in rows)
        assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
        # no two rows could be one
        totals = sorted(sum(lengths[i] for i in row) for row in rows)
        assert len(totals) == 1 or totals[0] + totals[1] > 100
    with pytest.raises(UserError, match="does not fit"):
        assign_rows([11], 10)
