"""The decoding bench: both sides decode the same tokens, and its figures and bars follow from what was timed."""

import dataclasses

import bench_decode
import numpy as np
import pytest

N = 6


@pytest.fixture(scope="module")
def sides():
    return bench_decode.make_sides("tiny", None)


@pytest.mark.parametrize("way", ["dynamic cache", "static cache"])
def test_both_sides_decode_the_same_tokens(sides, way):
    prompts = bench_decode.make_prompts(sides.tokenizer, 3)
    assert {len(prompt) for prompt in prompts} == {bench_decode.PROMPT_TOKENS}
    ours = bench_decode.our_decode(sides, prompts, N)()
    theirs = bench_decode.their_decode(sides, prompts, N, batch=2, way=way)()
    assert ours.shape == (3, N)
    np.testing.assert_array_equal(ours, theirs)


def test_batches_of_generate_are_no_larger_than_the_rows():
    tried = bench_decode.list_settings(64, bench_decode.CASES["tiny"])
    assert sorted({setting["batch"] for setting in tried}) == [32, 64]
    assert {setting["way"] for setting in tried} == set(bench_decode.WAYS)
    assert {setting["batch"] for setting in bench_decode.list_settings(8, bench_decode.CASES["0.5b"])} == {8}


@pytest.mark.slow
def test_a_round_holds_every_figure_of_the_tables(sides):
    case = dataclasses.replace(bench_decode.CASES["tiny"], least_ratio={3: 0.0}, least_share={3: 1e9})
    best = {"way": "dynamic cache", "batch": 3, "tokens_per_s": 1.0}
    machine = bench_decode.Machine(sides, streams=True)
    bench = bench_decode.Bench(sides, machine, bench_decode.make_prompts(sides.tokenizer, 3), N, best)
    figures = bench.round()
    assert figures["ratio"] == figures["generate"] / figures["ours"]
    assert bench.step_bytes > bench.weight_bytes == 4 * 562_816
    one = {"rows": 3, "rows_equal": bench.rows_equal, "trials": [best], "medians": figures, "rounds": [figures]}
    bars = bench_decode.bars(case, [one])
    assert [bar["met"] for bar in bars if "control" not in bar["what"]] == [True, False, True]
    text = bench_decode.format_result({"new_tokens": N, "bars": bars, "measured": [one]})
    assert "missed" in text and "batch of 3" in text
