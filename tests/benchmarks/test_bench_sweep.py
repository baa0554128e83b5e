"""The sweep bench: s1's procedure by transformers gives the records of one trace, of the lengths that were chosen."""

import bench_sweep
import jax
import numpy as np
import pytest
from _reference import Rounds, to_transformers

from s1_jax.checkpoints import hf
from s1_jax.config import SamplingConfig
from s1_jax.decoding.engine import Engine
from s1_jax.model.transformer import init_params, unstack

SETTINGS = [(10, 0), (None, 0), (None, 2)]


@pytest.mark.slow
def test_rounds_of_generate_give_the_records_of_one_trace():
    tokenizer = hf.load_tokenizer(bench_sweep.BASE)
    config = hf.load_config(bench_sweep.BASE)
    params = bench_sweep.follow(init_params(config, jax.random.key(0)), bench_sweep.successors(tokenizer))
    requests = bench_sweep._requests(SETTINGS, {0: (50, 60, 70), 1: (80, 90)}, SamplingConfig(), 20)
    engine = Engine(config, unstack(params), tokenizer, max_model_len=256, batch_size=2)
    shared = dict(engine.run_shared(requests))
    rounds = Rounds(to_transformers(config, params), tokenizer, 256)
    for place, alone in enumerate(rounds.run(requests)):
        assert {name: shared[place][name] for name in alone} == alone
    answer, more = bench_sweep.ANSWER, bench_sweep.MORE_THOUGHTS
    lengths = np.repeat([10, bench_sweep.THOUGHTS, bench_sweep.THOUGHTS + 2 * more], 2)
    assert [shared[place]["num_thinking_tokens"] for place in range(6)] == lengths.tolist()
    assert {record["num_answer_tokens"] for record in shared.values()} == {answer}
    assert rounds.decoded_tokens == lengths.sum() - 2 * 2 + 6 * answer  # each "Wait" is one token, put in, not decoded
