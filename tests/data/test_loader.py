"""The order is fixed by seed and epoch; steps are whole, resumable anywhere, the same for any number of processes."""

import itertools
import threading

import numpy as np
import pytest

from s1_jax.config import DataConfig, UserError
from s1_jax.data.chat import Example
from s1_jax.data.loader import Loader, assemble
from s1_jax.data.tokens import Corpus

FLOAT32_SUM = 1e-5


def make_corpus(n, longest=60, seed=0):
    lengths = np.random.default_rng(seed).integers(3, longest + 1, size=n)
    examples = [Example(np.arange(length, dtype=np.int32), np.arange(length) >= 2) for length in lengths]
    return Corpus(tuple(f"e{i}" for i in range(n)), tuple(examples))


def config(**fields):
    return DataConfig(**({"max_length": 64, "batch_examples": 4, "micro_batch_rows": 2} | fields))


def test_s1s_recipe_has_315_steps_and_each_epoch_holds_every_example_once():
    corpus = make_corpus(1000)
    loader = Loader(corpus, config(batch_examples=16), seed=0, epochs=5)
    assert loader.total_steps == 315
    steps = list(loader.batches())
    assert [len(step.example_ids) for step in steps[:63]] == [16] * 62 + [8]
    epochs = [[i for step in steps[e * 63 : (e + 1) * 63] for i in step.example_ids] for e in range(5)]
    assert all(sorted(epoch) == sorted(corpus.ids) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 5
    assert [steps[62].examples_seen, steps[-1].examples_seen] == [1000, 5000]


def test_one_shape_for_all_steps_and_weights_of_each_sum_to_one():
    for fields in ({}, {"batch_examples": 1}, {"batch_examples": 50}, {"batch_by": "tokens", "batch_tokens": 500}):
        check_steps(Loader(make_corpus(30), config(**fields), seed=1, epochs=3))


def check_steps(loader):
    for step in loader.batches():
        for array in step.batch.values():
            assert array.shape == (loader.max_micro_batches, 2, 64)
        assert 0 < step.micro_batches <= loader.max_micro_batches
        assert (step.batch["segment_ids"] > 0).any(axis=(1, 2)).sum() == step.micro_batches
        assert step.batch["weights"].sum() == pytest.approx(1, rel=FLOAT32_SUM)
        assert step.real_tokens == (step.batch["segment_ids"] > 0).sum()
        assert step.row_tokens == step.micro_batches * 2 * 64
        assert 0 < step.real_share <= 1


def test_the_same_seed_gives_the_same_steps_and_another_seed_others():
    def ids(seed):
        return [step.example_ids for step in Loader(make_corpus(30), config(), seed, epochs=2).batches()]

    assert ids(5) == ids(5)
    assert ids(5) != ids(6)


@pytest.mark.parametrize("batch_by", ["examples", "tokens"])
def test_going_on_from_a_checkpoint_gives_what_would_have_come(batch_by):
    loader = Loader(make_corpus(30), config(batch_by=batch_by, batch_tokens=150), seed=2, epochs=3)
    whole = list(loader.batches())
    for done in (1, 5, len(whole) - 1, len(whole)):
        rest = list(loader.batches(whole[done - 1].examples_seen))
        assert [step.example_ids for step in rest] == [step.example_ids for step in whole[done:]]
        for a, b in zip(rest, whole[done:], strict=True):
            assert all(np.array_equal(a.batch[name], b.batch[name]) for name in a.batch)


def test_any_count_of_examples_is_a_place_to_go_on_from_also_with_another_batch_size():
    corpus = make_corpus(30)
    order = [i for step in Loader(corpus, config(), seed=3, epochs=2).batches() for i in step.example_ids]
    for start in range(0, 61, 7):
        for batch_examples in (1, 7, 100):
            loader = Loader(corpus, config(batch_examples=batch_examples), seed=3, epochs=2)
            steps = list(loader.batches(start))
            assert [i for step in steps for i in step.example_ids] == order[start:]
            assert all((s.examples_seen - 1) // 30 == (s.examples_seen - len(s.example_ids)) // 30 for s in steps)


def test_processes_take_disjoint_rows_of_the_same_step():
    corpus = make_corpus(40)
    settings = config(micro_batch_rows=4, batch_examples=16)
    whole = list(Loader(corpus, settings, seed=4, epochs=2).batches())
    for count in (2, 4):
        parts = [list(Loader(corpus, settings, 4, 2, index, count).batches()) for index in range(count)]
        for step, *slices in zip(whole, *parts, strict=True):
            for name, array in step.batch.items():
                np.testing.assert_array_equal(np.concatenate([s.batch[name] for s in slices], axis=1), array)
            assert all(s[1:] == step[1:] for s in slices)


def test_batches_by_tokens_are_as_full_as_they_can_be():
    corpus = make_corpus(50)
    length = dict(zip(corpus.ids, corpus.lengths, strict=True))
    for limit in (1, 40, 200, 10_000):
        steps = list(Loader(corpus, config(batch_by="tokens", batch_tokens=limit), seed=5, epochs=2).batches())
        assert sorted(i for step in steps for i in step.example_ids) == sorted(corpus.ids * 2)
        for step, following in itertools.pairwise(steps):
            assert step.real_tokens <= limit or len(step.example_ids) == 1
            if step.examples_seen % 50:  # only the end of an epoch leaves room
                assert step.real_tokens + length[following.example_ids[0]] > limit


def test_a_held_out_set_is_one_step_whose_weights_sum_to_one():
    corpus = make_corpus(9)
    step = assemble(corpus, config())
    assert step.example_ids == corpus.ids
    assert step.batch["weights"].sum() == pytest.approx(1, rel=FLOAT32_SUM)


def test_leaving_early_leaves_no_thread_behind():
    before = threading.active_count()
    steps = Loader(make_corpus(30), config(), seed=1, epochs=3).batches()
    next(steps)
    steps.close()
    del steps
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(timeout=5)
    assert threading.active_count() <= before + 1  # grain keeps one idle thread for its life


@pytest.mark.parametrize(
    ("fields", "arguments", "message"),
    [
        ({"batch_by": "tokens"}, {}, "needs data.batch_tokens"),
        ({"batch_examples": 0}, {}, "batch_examples is 0"),
        ({"micro_batch_rows": 3}, {"process_count": 2}, "not a multiple"),
        ({}, {"seed": -1}, "seed -1"),
    ],
)
def test_settings_that_fit_nothing_are_user_errors(fields, arguments, message):
    with pytest.raises(UserError, match=message):
        Loader(make_corpus(3), config(**fields), **({"seed": 0, "epochs": 1} | arguments))
