"""One trace read at many points, against every setting decoded by itself."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from s1_jax.config import S1, BudgetConfig, FormatConfig, MeshConfig, SamplingConfig
from s1_jax.decoding.core.budget import AnswerEnd, End, Kind
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.core.sweep import SharedTrace, cut_of, plan_shared
from s1_jax.decoding.core.traces import Trace, ignored_ends
from s1_jax.decoding.engine import Engine
from s1_jax.model.transformer import param_axes, unstack
from s1_jax.sharding import DECODE_RULES, Layout, make_mesh
from tests.decoding.ending_model import MAX_ANSWER, MAX_MODEL_LEN, ROWS, TOKENIZER, V, ending_model, random_requests

MOST_PROGRAMS = 40  # of one sweep: ten functions, each for the few sizes of batch and cache that it meets
FORMAT = FormatConfig("<|im_start|>", "ba", "!", ("<|im_end|>", "<|im_start|>a", "ab", "bba"))


@pytest.fixture(scope="module", params=(1, pytest.param(2, marks=pytest.mark.slow), 3))
def engine(request, tiny_model):
    config, params = ending_model(tiny_model, request.param)
    format = FORMAT if request.param == 3 else S1
    return Engine(config, unstack(params), TOKENIZER, max_model_len=MAX_MODEL_LEN, batch_size=ROWS, format=format)


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
    ruled = [*grid(prompt, (5, 9), (0, 1), max_repetitions=3), *grid(prompt, (9,), (1,), max_repetitions=2)]
    ruled += grid(prompt, (9, None), (0,), banned_words=("a",))
    assert plan_shared(ruled).trunks == [(3, (0, 1, 2)), (4, ()), (6, (5,))]
    notices = {"notice_fractions": (0.5,), "notices": ("Half.",)}
    noticed = [*grid(prompt, (8, 9), (0, 2), **notices), *grid(prompt, (9,), (0,))]
    assert plan_shared(noticed).trunks == [(1, (0,)), (3, (2,)), (4, ())], "their positions depend on the maximum"
    # no run is longer than what was asked: neither of these is the beginning of the other
    assert plan_shared(grid(prompt, (5,), (2,)) + grid(prompt, (None,), (0,))).trunks == [(0, ()), (1, ())]


@pytest.mark.parametrize(
    "kinds,end,expected",
    [
        ("tttt", End.NATURAL, {(9, 0): (4, "NATURAL", 0), (4, 0): (4, "FORCED", 0), (2, 3): (2, "FORCED", 0)}),
        ("ttiitrt", End.FORCED, {(9, 0): (2, "NATURAL", 0), (2, 0): (2, "FORCED", 0), (3, 1): (3, "FORCED", 1)}),
        ("ttiitrt", End.FORCED, {(9, 1): (5, "NATURAL", 1), (7, 2): (7, "FORCED", 2), (5, 2): (5, "FORCED", 1)}),
        ("ttttt", End.REPETITION, {(9, 0): (5, "REPETITION", 0), (5, 0): (5, "FORCED", 0), (3, 0): (3, "FORCED", 0)}),
        ("tniitnt", End.FORCED, {(9, 0): (2, "NATURAL", 0), (7, 1): (7, "FORCED", 1)}),
        ("iit", End.CONTEXT, {(9, 0): (0, "NATURAL", 0), (0, 0): (0, "FORCED", 0), (9, 1): (3, "CONTEXT", 1)}),
    ],
)
def test_branch_points_by_hand(kinds, end, expected):
    letters = {"t": Kind.THINKING, "i": Kind.IGNORE, "r": Kind.RESAMPLED, "n": Kind.NOTICE}
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


def test_a_shared_trace_puts_the_traces_of_its_requests_together():
    """Five requests leave a trunk of five thinking tokens, the third of which is an ignore string, at five points."""
    requests = [*grid((7,), (None, 1, 3, 4), (1,)), *grid((7,), (None,), (0,))]
    plan = plan_shared(requests)
    assert plan.runs == requests[:1]
    kinds = [*[Kind.THINKING] * 2, Kind.IGNORE, *[Kind.THINKING] * 2, Kind.SUFFIX, Kind.ANSWER, Kind.STOP]
    trunk = Trace(np.arange(10, 18), np.array(kinds), End.NATURAL, AnswerEnd.STOP, 1)
    shared = SharedTrace(plan, 0, trunk, is_newline=np.arange(V) == 11)
    natural, *forced = (2, End.NATURAL), (1, End.FORCED), (3, End.FORCED), (4, End.FORCED)
    assert shared.missing == [natural, *forced]
    assert [shared.after_newline(point) for point in shared.missing] == [True, False, False, False]
    used = zip([(5, End.NATURAL), *forced, natural], (1, 0, 1, 1, 0), strict=True)
    assert list(shared.cuts) == list(enumerate(used))
    assert shared.trace(trunk.branch_point) is trunk
    for length, point in enumerate(shared.missing, 1):
        assert not shared.complete
        kinds = np.array([Kind.SUFFIX, *[Kind.ANSWER] * length])
        shared.add_answer(point, Trace(np.arange(20, 21 + length), kinds, point.end, AnswerEnd.LENGTH, 0))
        trace = shared.trace(point)
        assert list(trace.tokens) == [*range(10, 10 + point.position), *range(20, 21 + length)]
        assert (trace.branch_point, len(trace.answer), trace.answer_end) == (point, length, AnswerEnd.LENGTH)
    assert shared.complete and shared.num_requests == 5
    assert shared.num_decoded == 5 + 1 + (1 + 2 + 3 + 4)
