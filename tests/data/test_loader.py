"""The order is fixed by seed and epoch; steps are whole, full, resumable anywhere, whatever the processes."""

import json
import runpy
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from s1_jax.config import DataConfig
from s1_jax.data.chat import Example
from s1_jax.data.loader import Loader, assemble
from s1_jax.data.packing import pack
from s1_jax.data.tokens import Corpus
from s1_jax.errors import UserError
from tests.runs import PATIENCE

FLOAT32_SUM = 1e-5
FULL = 0.97  # real tokens of the steps by tokens


def make_corpus(n, longest=60, seed=0):
    return corpus_of(np.random.default_rng(seed).integers(3, longest + 1, size=n))


def corpus_of(lengths):
    n = len(lengths)
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


def test_each_step_takes_the_shortest_rows_that_hold_it_and_no_shape_beside():
    row_lengths = (64, 80, 96, 128, 200)
    for seed in range(5):
        settings = config(row_lengths=row_lengths, micro_batch_rows=4, batch_examples=12)
        loader = Loader(make_corpus(100, seed=seed), settings, seed, epochs=3)
        steps = list(loader.batches())
        shapes = {step.batch["token_ids"].shape for step in steps}
        assert loader.max_micro_batches == 1
        assert 1 < len(shapes) <= len(row_lengths)
        assert {shape[:2] for shape in shapes} == {(1, 4)} and {shape[2] for shape in shapes} <= set(row_lengths)
        for step in steps:
            T = step.batch["token_ids"].shape[2]
            assert step.row_tokens == 4 * T
            tokens = (step.batch["segment_ids"] > 0).sum(axis=2)
            assert tokens.sum() == step.real_tokens and tokens.max() > max(
                [0, *row_lengths][: row_lengths.index(T) + 1]
            )
            assert step.batch["weights"].sum() == pytest.approx(1, rel=FLOAT32_SUM)
            assert 0 < step.balance <= 1


def test_all_shapes_have_the_micro_batches_of_the_step_that_needs_most_and_one_where_none_needs_more():
    corpus = make_corpus(60)
    for batch_examples in (2, 8, 40):
        settings = config(row_lengths=(64, 70, 90), batch_examples=batch_examples)
        loader = Loader(corpus, settings, seed=1, epochs=3)
        steps = list(loader.batches())
        assert {step.batch["weights"].shape[0] for step in steps} == {loader.max_micro_batches}
        assert max(step.micro_batches for step in steps) == loader.max_micro_batches
        assert (loader.max_micro_batches == 1) == (batch_examples == 2)


def test_the_same_seed_gives_the_same_steps_and_another_seed_others():
    def ids(seed):
        return [step.example_ids for step in Loader(make_corpus(30), config(), seed, epochs=2).batches()]

    assert ids(5) == ids(5)
    assert ids(5) != ids(6)


@pytest.mark.parametrize("batch_by", ["examples", "tokens"])
def test_going_on_from_a_checkpoint_gives_what_would_have_come(batch_by):
    settings = config(batch_by=batch_by, batch_tokens=150, row_lengths=(40, 50, 64))
    loader = Loader(make_corpus(30), settings, seed=2, epochs=3)
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
    for own in ([(0, 1), (2, 3)], [(0,), (1,), (2,), (3,)]):
        parts = [list(Loader(corpus, settings, 4, 2, rows).batches()) for rows in own]
        for step, *slices in zip(whole, *parts, strict=True):
            for name, array in step.batch.items():
                np.testing.assert_array_equal(np.concatenate([s.batch[name] for s in slices], axis=1), array)
            assert all(s[1:] == step[1:] for s in slices)


def test_batches_by_tokens_hold_every_example_once_and_no_more_than_they_may():
    corpus = make_corpus(50)
    for limit in (1, 40, 200, 10_000):
        loader = Loader(corpus, config(batch_by="tokens", batch_tokens=limit), seed=5, epochs=2)
        steps = list(loader.batches())
        for epoch in (loader.order[:50], loader.order[50:100]):
            assert sorted(epoch) == list(range(50))
        assert [i for step in steps for i in step.example_ids] == [corpus.ids[i] for i in loader.order]
        assert 50 in [step.examples_seen for step in steps]
        assert all(step.real_tokens <= limit or len(step.example_ids) == 1 for step in steps)
        assert loader.max_micro_batches <= -(-limit // (2 * 64))
        for start in (3, 50, 71):
            rest = [i for step in loader.batches(start) for i in step.example_ids]
            assert rest == [corpus.ids[i] for i in loader.order[start:]]


def test_batches_by_tokens_are_full():
    corpus = make_corpus(3000, longest=50)
    loader = Loader(corpus, config(batch_by="tokens", batch_tokens=8 * 64, micro_batch_rows=4), seed=5, epochs=1)
    shares = [step.real_share for step in loader.batches()]
    assert loader.max_micro_batches == 2
    assert np.mean(shares) >= FULL and np.median(shares) >= 0.99
    # which steps have long examples is left to chance: the first and the second half of the epoch are alike
    lengths = [corpus.lengths[i] for i in loader.order]
    assert np.mean(lengths[:1500]) == pytest.approx(np.mean(lengths[1500:]), rel=0.05)


S1_ROW_LENGTHS = {
    8: (10752, 11264, 11776, 12288, 12800, 13312, 14336, 16384),
    4: (20480, 22528, 24576, 28672),
    2: (41984, 45056, 49152, 56320),
}


@pytest.fixture(scope="module")
def s1_corpus(shared_data):
    data = json.loads((shared_data / "s1k_lengths" / "s1k_lengths.json").read_text())
    return corpus_of([sum(example.values()) for example in data["examples"]])


@pytest.mark.parametrize("rows", S1_ROW_LENGTHS)
@pytest.mark.parametrize("seed", [0, 1])
def test_nine_in_ten_tokens_of_s1s_steps_are_real(s1_corpus, rows, seed):
    settings = DataConfig(max_length=10752, row_lengths=S1_ROW_LENGTHS[rows], micro_batch_rows=rows)
    check_real_share(Loader(s1_corpus, settings, seed, epochs=5), 0.9)


@pytest.mark.parametrize(("rows", "row_length"), [(16, 11264), (8, 11264), (4, 22528), (2, 45056)])
def test_nearly_all_tokens_of_s1s_batches_by_tokens_are_real_with_one_row_length(s1_corpus, rows, row_length):
    tokens = {"batch_by": "tokens", "batch_tokens": rows * row_length}
    settings = DataConfig(max_length=row_length, micro_batch_rows=rows, **tokens)
    check_real_share(Loader(s1_corpus, settings, seed=0, epochs=5), FULL)


def check_real_share(loader, least):
    """From the lengths alone, for 5 epochs of arrays are a gigabyte."""
    assert loader.max_micro_batches == 1
    real = computed = 0
    for positions in loader.plan():
        lengths = [loader.corpus.lengths[int(loader.order[position])] for position in positions]
        packing = pack(lengths, loader.config.capacities, loader.config.micro_batch_rows)
        real += sum(lengths)
        computed += packing.micro_batches * loader.config.micro_batch_rows * packing.row_length
    assert real == 5 * sum(loader.corpus.lengths)
    assert real >= least * computed


def test_the_bench_suggests_the_cheapest_row_lengths(tmp_path, monkeypatch, capsys):
    bench = runpy.run_path(str(Path(__file__).resolve().parents[2] / "benchmarks" / "bench_packing.py"))
    assert bench["cheapest_lengths"]({5: 10, 6: 1, 9: 4, 10: 0}, 1) == (10,)
    assert bench["cheapest_lengths"]({5: 10, 6: 1, 9: 4, 10: 0}, 2) == (5, 10)
    assert bench["cheapest_lengths"]({5: 10, 6: 1, 9: 4, 10: 0}, 3) == (5, 9, 10)
    (tmp_path / "lengths.json").write_text(json.dumps(make_corpus(100).lengths))
    arguments = ["--rows", "4", "--batch-examples", "12", "--suggest", "3", "--multiple", "8"]
    monkeypatch.setattr(sys, "argv", ["bench_packing.py", str(tmp_path / "lengths.json"), *arguments])
    bench["main"]()
    out = capsys.readouterr().out
    assert "suggested: --row-lengths " in out and "45 steps" in out and "best-fit into rows" in out


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
            thread.join(PATIENCE)
    assert threading.active_count() <= before + 1  # grain keeps one idle thread for its life


@pytest.mark.parametrize(
    ("fields", "arguments", "message"),
    [
        ({"row_lengths": (80, 64)}, {}, "row_lengths 80 64 must be ascending, each once"),
        ({"row_lengths": (64, 64)}, {}, "each once"),
        ({"row_lengths": (0, 64)}, {}, r"row_lengths\[0\] is 0; it must be a whole number from 1"),
        ({"row_lengths": (32, 48)}, {}, "max_length 64 is above the longest of data.row_lengths, 48"),
        ({"batch_by": "tokens"}, {}, "needs data.batch_tokens"),
        ({"batch_examples": 0}, {}, "batch_examples is 0"),
        ({}, {"seed": -1}, "seed -1"),
    ],
)
def test_settings_that_fit_nothing_are_user_errors(fields, arguments, message):
    with pytest.raises(UserError, match=message):
        Loader(make_corpus(3), config(**fields), **({"seed": 0, "epochs": 1} | arguments))
