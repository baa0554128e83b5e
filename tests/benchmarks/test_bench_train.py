"""The bench against TRL: our side of it, and its tables; TRL itself is no dependency of the tests."""

import json
import queue
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

PROJECT = Path(__file__).resolve().parents[2]
BENCH = SimpleNamespace(**runpy.run_path(str(PROJECT / "benchmarks" / "bench_train.py")))
SIZES = BENCH.Sizes(longest=48, steps=1, rows=8)


class Parent:
    """The connection a worker is given: it is told to go on at once, and what it sends is kept."""

    def __init__(self):
        self.sent = queue.SimpleQueue()

    def recv(self):
        return True

    def send(self, figures):
        self.sent.put(figures)


def test_examples_keep_the_shape_of_the_lengths(tmp_path):
    path = tmp_path / "lengths.json"
    path.write_text(json.dumps({"examples": [{"question": 10, "thinking": 80, "answer": 10}, {"question": 50}]}))
    lengths = BENCH.read_lengths(path)
    assert lengths == [100, 50]
    examples = BENCH.make_examples(lengths, SIZES, vocab_size=352, seed=0)
    assert sorted({len(ids) for ids in examples}) == [24, 48]
    assert len(examples) == BENCH.EXAMPLES_PER_STEP


@pytest.mark.slow
def test_our_side_trains_on_every_token_of_every_round():
    examples = BENCH.make_examples([100, 50, 70], SIZES, vocab_size=352, seed=0)
    job = BENCH.Job(
        str(PROJECT / "s1_jax" / "assets" / "tiny_base"), examples, rounds=2, threads=2, seed=0, sizes=SIZES
    )
    parent = Parent()
    BENCH.train_ours(parent, job)
    assert parent.sent.get()["compile_seconds"] > 0
    first, second = parent.sent.get(), parent.sent.get()
    assert first["flops"] == second["flops"] > 6 * 500_000 * job.tokens
    assert 0.5 < first["real_share"] <= 1
    assert first["loss"] == pytest.approx(second["loss"], rel=0.01)  # the first step's rate is 0


def test_tables_tell_ratio_and_limit():
    result = {
        "trials": [{**BENCH.TRL["search"]["tiny"][0], "tokens_per_s": 0.0}],
        "tokens_per_s": {"ours": 3000.0, "trl": 1000.0},
        "first_loss": {"ours": 5.0, "trl": 5.0},
        "not_counted_seconds": {"ours": 4.0, "trl": 1.0},
        "ratio": 3.0,
        "model_flops_per_s": 170e9,
        "matmul_flops_per_s": {"XLA, Eigen": 200e9},
        "share_of_xla_matmul": 0.85,
    }
    text = BENCH.format_result(result)
    for expected in ("does not run", "3.00", "170", "85%"):
        assert expected in text
