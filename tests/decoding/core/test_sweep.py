"""One trace read at many points, against every setting decoded by itself."""

from __future__ import annotations

import copy

import jax
import numpy as np
import pytest
import torch

from s1_jax.config import S1, BudgetConfig, FormatConfig, MeshConfig, ModelConfig, SamplingConfig
from s1_jax.decoding.core.budget import End, Kind
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.core.sweep import cut_of, plan_shared
from s1_jax.decoding.core.traces import ignored_ends
from s1_jax.decoding.engine import Engine
from s1_jax.model.qwen2 import param_axes, unstack
from s1_jax.sharding import DECODE_RULES, Layout, make_mesh
from tests.reference import to_params
from tests.tokenizer import byte_tokenizer

V, MAX_MODEL_LEN, MAX_ANSWER, ROWS = 264, 160, 5, 8
MOST_PROGRAMS = 40  # of one sweep: ten functions, each for the few sizes of batch and cache that it meets
TOKENIZER = byte_tokenizer()
FORMAT = FormatConfig("<|im_start|>", "ba", "!", ("<|im_end|>", "<|im_start|>a", "ab", "bba"))
STRINGS = ("Wait", "", ("Hm", "", "no"))


def ending_model(tiny_model, seed):
    """A random model that likes to end, thinking and lines: its head is larger at these tokens."""
    reference = copy.deepcopy(tiny_model(seed, vocab_size=V, max_position_embeddings=256).torch_model)
    with torch.no_grad():
        reference.lm_head.weight[256:259] *= 1.3 + 0.2 * seed
        reference.lm_head.weight[ord("\n")] *= 1.5
        reference.lm_head.weight[[ord("a"), ord("b")]] *= 2.0 if seed == 3 else 1.0
    return ModelConfig.from_dict(reference.config.to_dict()), to_params(reference)


@pytest.fixture(scope="module", params=(1, 2, 3))
def engine(request, tiny_model):
    config, params = ending_model(tiny_model, request.param)
    format = FORMAT if request.param == 3 else S1
    return Engine(config, unstack(params), TOKENIZER, max_model_len=MAX_MODEL_LEN, batch_size=ROWS, format=format)


def random_requests(rng):
    """Grids and single settings over a few prompts, greedy and sampled, in random order."""
    requests = []
    for problem in range(int(rng.integers(1, 5))):
        prompt = tuple(map(int, rng.integers(0, 256, rng.integers(1, 100))))
        for string in rng.permutation(len(STRINGS))[: rng.integers(1, 4)]:
            for minimum in (1, *rng.integers(0, 8, rng.integers(0, 2))):
                maxima = [None, *map(int, rng.integers(minimum, 60, rng.integers(0, 5)))]
                counts = list(map(int, rng.integers(0, 5, rng.integers(1, 4))))
                sampling = SamplingConfig(temperature=float(rng.choice([0.0, 0.9])))
                grace, bias = float(rng.choice([0.0, 0.1])), float(rng.choice([0.0, 0.0, 0.0, 2.0]))
                for maximum in rng.permutation(np.array(maxima, object)):
                    for count in counts:
                        budget = BudgetConfig(
                            int(minimum),
                            maximum,
                            count,
                            STRINGS[string],
                            newline_grace=grace,
                            end_bias=bias if maximum else 0.0,
                        )
                        for sample in range(1 if sampling.temperature == 0 else 2):
                            requests.append(Request(prompt, budget, sampling, problem, sample, 7, MAX_ANSWER))
    return [requests[i] for i in rng.permutation(len(requests))]


def grid(prompt, maxima, counts, **settings):
    return [
        Request(prompt, BudgetConfig(1, maximum, count, **settings), max_answer_tokens=MAX_ANSWER)
        for maximum in maxima
        for count in counts
    ]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 8))])
def test_records_are_those_of_each_setting_by_itself(engine, seed):
    requests = random_requests(np.random.default_rng(seed))
    alone = list(engine.run(requests))
    shared = dict(engine.run_shared(requests))
    assert sorted(shared) == list(range(len(requests)))
    differing = [(i, alone[i], shared[i]) for i in range(len(requests)) if alone[i] != shared[i]]
    assert not differing, (len(differing), len(requests), differing[0])


def test_a_grid_costs_its_longest_run_and_one_answer_for_each_branch_point(engine):
    requests = grid((7, 2, 3), (None, 0, 4, 9, 20, 33), (0, 1, 3))
    before = engine.decoded_tokens
    records = [record for _, record in engine.run_shared(requests)]
    thinking = max(record["num_thinking_tokens"] for record in records)
    answers = {(r["num_thinking_tokens"], r["end"]): r["num_answer_tokens"] for r in records}
    assert engine.decoded_tokens - before == thinking + sum(answers.values())
    assert len(answers) < len(records)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(4, 2), (8, 1)])
def test_the_same_records_on_a_mesh(tiny_model, sizes):
    config, params = ending_model(tiny_model, 2)
    requests = random_requests(np.random.default_rng(3))
    by_itself = Engine(config, unstack(params), TOKENIZER, max_model_len=MAX_MODEL_LEN, batch_size=ROWS)
    alone = dict(by_itself.run_shared(requests))
    devices = jax.devices()[: sizes[0] * sizes[1]]
    layout = Layout(make_mesh(MeshConfig(fsdp=sizes[0], tensor=sizes[1]), devices), DECODE_RULES)
    placed = unstack(jax.device_put(params, layout.tree(param_axes(config), params)))
    spread = Engine(config, placed, TOKENIZER, max_model_len=MAX_MODEL_LEN, batch_size=ROWS, layout=layout)
    assert dict(spread.run_shared(requests)) == alone


def test_only_runs_that_think_alike_share_one():
    prompt = (7, 2, 3)
    requests = [
        *grid(prompt, (None, 5), (0, 2)),
        *grid(prompt, (None,), (0, 1), ignore_string="Hm"),  # where no end is ignored the string says nothing
        *grid((7, 2), (5,), (0,)),
        Request(prompt, BudgetConfig(2), max_answer_tokens=MAX_ANSWER),
        Request(prompt, BudgetConfig(), SamplingConfig(1.0), max_answer_tokens=MAX_ANSWER),
        Request(prompt, BudgetConfig(forcing=False), max_answer_tokens=MAX_ANSWER),
    ]
    assert plan_shared(requests).trunks == [(1, (0, 2, 3, 4)), (5, ()), (6, ()), (7, ()), (8, ()), (9, ())]
    graces = [*grid(prompt, (5, 9), (0,), newline_grace=0.1), *grid(prompt, (5,), (0,)), *grid(prompt, (None,), (0,))]
    assert plan_shared(graces).trunks == [(3, (0, 1, 2))] and plan_shared(graces[:3]).trunks == [(1, (0,)), (2, ())]
    biased = [*grid(prompt, (5, 9), (0, 1), end_bias=1.0), *grid(prompt, (9,), (1,))]
    assert plan_shared(biased).trunks == [(1, (0,)), (3, (2,)), (4, ())]
    # no run is longer than what was asked: neither of these is the beginning of the other
    assert plan_shared(grid(prompt, (5,), (2,)) + grid(prompt, (None,), (0,))).trunks == [(0, ()), (1, ())]


@pytest.mark.parametrize(
    "kinds,end,expected",
    [
        ("tttt", End.NATURAL, {(9, 0): (4, "NATURAL", 0), (4, 0): (4, "FORCED", 0), (2, 3): (2, "FORCED", 0)}),
        ("ttiitrt", End.FORCED, {(9, 0): (2, "NATURAL", 0), (2, 0): (2, "FORCED", 0), (3, 1): (3, "FORCED", 1)}),
        ("ttiitrt", End.FORCED, {(9, 1): (5, "NATURAL", 1), (7, 2): (7, "FORCED", 2), (5, 2): (5, "FORCED", 1)}),
        ("iit", End.CONTEXT, {(9, 0): (0, "NATURAL", 0), (0, 0): (0, "FORCED", 0), (9, 1): (3, "CONTEXT", 1)}),
    ],
)
def test_branch_points_by_hand(kinds, end, expected):
    letters = {"t": Kind.THINKING, "i": Kind.IGNORE, "r": Kind.RESAMPLED}
    for (maximum, num_ignore), (position, name, used) in expected.items():
        budget = BudgetConfig(0, maximum, num_ignore)
        ends, no_newline = ignored_ends(np.array([letters[kind] for kind in kinds])), np.zeros(len(kinds), bool)
        assert cut_of(budget, ends, no_newline, end) == ((position, End[name]), used)


@pytest.mark.parametrize(
    "newlines,ends,maximum,expected",
    [
        ((19,), (), 20, (20, "FORCED", 0)),  # the maximum itself ends a line
        ((20, 21), (), 20, (21, "FORCED", 0)),
        ((3, 22), (), 20, (22, "FORCED", 0)),  # two tokens are all the grace there is
        ((20,), (21,), 20, (21, "FORCED", 0)),
        ((), (21,), 20, (21, "NATURAL", 0)),  # an end that is drawn in the grace
        ((), (22,), 20, (22, "FORCED", 0)),
        ((), (), 23, (24, "CONTEXT", 0)),  # the trunk ended before the grace did
    ],
)
def test_branch_points_under_a_grace_by_hand(newlines, ends, maximum, expected):
    position, name, used = expected
    budget = BudgetConfig(0, maximum, newline_grace=0.1)
    found = cut_of(budget, np.array(ends, int), np.isin(np.arange(24), newlines), End.CONTEXT)
    assert found == ((position, End[name]), used)


def test_another_sweep_compiles_nothing(tiny_model):
    """As long as it meets no new size of the cache, which here has one."""
    config, params = ending_model(tiny_model, 2)
    engine = Engine(config, unstack(params), TOKENIZER, max_model_len=64, batch_size=ROWS)

    def sweep(maxima, counts, string):
        budgets = [BudgetConfig(1, maximum, count, string) for maximum in maxima for count in counts]
        prompts = [(i + 1, 7, 3) for i in range(40)]
        requests = [
            Request(prompt, budget, problem_id=i, max_answer_tokens=MAX_ANSWER)
            for budget in budgets
            for i, prompt in enumerate(prompts)
        ]
        list(engine.run_shared(requests))
        return engine.num_compiled

    programs = sweep((4, 16, None), (0, 1, 3), "Wait")
    assert 0 < programs <= MOST_PROGRAMS
    assert sweep((2, 9, 11, 30, None), (0, 2, 3), "Wait") == programs
