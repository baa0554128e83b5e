"""Trees of steps: against a plain twin that reads every path anew, and their pages of the cache."""

from __future__ import annotations

import copy
import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from s1_jax.config import BudgetConfig, FormatConfig, MeshConfig, ModelConfig, SamplingConfig, StepConfig
from s1_jax.decoding import tree as tree_module
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.core.sampling import row_key
from s1_jax.decoding.core.token_ids import ignore_ids, make_markers, start_ids
from s1_jax.decoding.engine import Engine
from s1_jax.decoding.tree import STEP_APART, Tree
from s1_jax.errors import RunError, UserError
from s1_jax.model.transformer import param_axes, unstack
from s1_jax.sharding import DECODE_RULES, Layout, make_mesh
from tests.decoding.newline_tokenizer import FREQUENT, TOKENIZER
from tests.decoding.plain import Plain, Words, of_budget, plain_decode
from tests.reference import to_params
from tests.tokenizer import SPECIALS

V, MAX_MODEL_LEN, MAX_ANSWER = 272, 128, 4
SAMPLED, GREEDY = SamplingConfig(temperature=1.0), SamplingConfig()
PROMPTS = tuple(tuple(TOKENIZER.encode(text)) for text in ("1+1=", "Say a word!", "x" * 40, "?"))


@pytest.fixture(scope="module")
def model(tiny_model):
    """A random model that likes newlines and their neighbors, and to end now and then."""
    reference = copy.deepcopy(tiny_model(1, vocab_size=V, max_position_embeddings=256).torch_model)
    with torch.no_grad():
        reference.lm_head.weight[FREQUENT] *= 2.5
        reference.lm_head.weight[TOKENIZER.convert_tokens_to_ids(list(SPECIALS))] *= 1.5
    return reference, ModelConfig.from_dict(reference.config.to_dict()), to_params(reference)


@pytest.fixture(scope="module")
def make_engine(model):
    def make(batch_size=4, **options):
        _, config, params = model
        options = {"max_model_len": MAX_MODEL_LEN} | options
        return Engine(config, unstack(params), TOKENIZER, batch_size=batch_size, **options)

    return make


@pytest.fixture(scope="module")
def engine(make_engine):
    return make_engine()


@pytest.fixture(scope="module")
def scores(model):
    @cache
    def score(history):
        with torch.no_grad():
            return model[0](torch.tensor([history])).logits[0, -1].numpy()

    return score


@pytest.fixture(scope="module")
def words():
    markers = make_markers(TOKENIZER, V)
    return Words(
        ends=frozenset(TOKENIZER.convert_tokens_to_ids(list(SPECIALS))),
        stops=frozenset(map(int, np.flatnonzero(markers.is_stop))),
        known=frozenset(map(int, np.flatnonzero(markers.is_known))),
        newlines=frozenset(map(int, np.flatnonzero(markers.is_newline))),
        newline=TOKENIZER.convert_tokens_to_ids("Ċ"),
        start=tuple(start_ids(TOKENIZER)),
        natural=tuple(TOKENIZER.encode("<|im_start|>answer")),
        forced=tuple(TOKENIZER.encode("<|im_start|>answer\nFinal Answer:")),
    )


@cache
def step_lengths(tokens, steps):
    """Lengths of the whole steps that these thinking tokens hold, by their text."""
    if not tokens:
        return []
    lengths = step_lengths(tokens[:-1], steps)
    step = tokens[sum(lengths) :]
    too_long = steps.max_step_tokens is not None and len(step) == steps.max_step_tokens
    separated = steps.separator is not None and steps.separator in TOKENIZER.decode(step)
    return [*lengths, len(step)] if too_long or separated else lengths


@jax.jit
def noise(key, index):
    """What makes a greedy choice a draw."""
    key = jax.random.fold_in(jax.random.wrap_key_data(key, impl="threefry2x32"), index)
    return jax.random.gumbel(key, (V,))


def naive_path(scores, words, request, ordinals, steps):
    """The run whose steps draw as these nodes, read anew for each token; tokens recorded, and the steps' lengths."""
    keys = [
        row_key(request.seed, request.problem_id, request.prompt_token_ids, request.sample + ordinal * STEP_APART)
        for ordinal in ordinals
    ]
    first = len(request.prompt_token_ids) + len(words.start)
    out = Plain()

    def whole_steps():
        lengths = step_lengths(tuple(out.thinking), steps)
        if out.end in ("forced", "context") and sum(lengths) == len(out.thinking):
            return lengths[:-1]  # where thinking ends by itself, no step ends
        return lengths

    def noisy(history):
        found = scores(tuple(history))
        if request.sampling.temperature == 0:
            return found
        key = keys[min(len(whole_steps()), len(keys) - 1)]
        return found / request.sampling.temperature + np.asarray(noise(key, len(history) - first))

    budget = request.budget
    plain_decode(
        noisy,
        words,
        request.prompt_token_ids,
        max_model_len=MAX_MODEL_LEN,
        max_answer_tokens=MAX_ANSWER,
        **of_budget(budget, ignore_ids(TOKENIZER, budget)),
        out=out,
    )
    return out, whole_steps()


def expand(tree, parents):
    """Children of these nodes, whole."""
    children, whole = tree.plant(parents), set()
    while set(children) > whole:
        whole |= set(tree.grow())
    return children


def run_down(tree, level):
    """The records of the requests, whose runs grow step by step to their ends."""
    ends = {}
    while level:
        level = expand(tree, level)
        ends |= {tree.request(node): tree.record(node) for node in level if tree.ended(node)}
        level = [node for node in level if not tree.ended(node)]
    return [ends[i] for i in range(len(ends))]


def grow(tree, rng, rounds, most=6, apart=False):
    """Plants children of nodes at random, others while some still grow or `apart`; each node's path of ordinals."""
    ordinals = dict.fromkeys(tree.roots, ())
    made = dict.fromkeys(range(len(tree.roots)), 0)
    growing = set()
    while rounds or growing:
        if rounds and (not growing if apart else rng.random() < 0.5):
            rounds -= 1
            can_grow = [node for node in ordinals if node not in growing and not tree.ended(node)]
            parents = [int(node) for node in rng.choice(can_grow, rng.integers(1, most))]
            for parent, child in zip(parents, tree.plant(parents), strict=True):
                assert tree.parent(child) == parent
                made[tree.request(parent)] += 1
                ordinals[child] = (*ordinals[parent], made[tree.request(parent)])
                growing.add(child)
        whole = tree.grow()
        assert growing >= set(whole)
        growing -= set(whole)
    return ordinals


def random_requests(rng, sampling, count=6):
    budgets = [
        BudgetConfig(),
        BudgetConfig(max_thinking_tokens=int(rng.integers(8, 40))),
        BudgetConfig(min_thinking_tokens=int(rng.integers(8, 30)), num_ignore=1),
        BudgetConfig(num_ignore=2, ignore_string=("Wait", "", "a\n")),
        BudgetConfig(max_thinking_tokens=30, num_ignore=3, ignore_string=""),
        BudgetConfig(min_thinking_tokens=6, max_thinking_tokens=6),
    ]
    return [
        Request(PROMPTS[int(rng.integers(len(PROMPTS)))], budgets[i], sampling, i, i, max_answer_tokens=MAX_ANSWER)
        for i in range(count)
    ]


@pytest.mark.parametrize(
    "steps",
    [
        StepConfig(),
        pytest.param(StepConfig("\n", 9), marks=pytest.mark.slow),
        StepConfig(".\n\n", 12),
        pytest.param(StepConfig("ab"), marks=pytest.mark.slow),
        StepConfig(None, 5),
        StepConfig("never"),
    ],
    ids=lambda steps: repr((steps.separator, steps.max_step_tokens)),
)
@pytest.mark.parametrize("sampling", [pytest.param(GREEDY, marks=pytest.mark.slow), SAMPLED], ids=["greedy", "sampled"])
def test_every_path_is_the_run_that_reads_it_anew(engine, scores, words, steps, sampling):
    rng = np.random.default_rng([len(steps.separator or ""), sampling.temperature > 0])
    requests = random_requests(rng, sampling)
    tree = Tree(engine, requests, steps)
    ordinals = grow(tree, rng, 8)
    paused = 0
    for node, path in ordinals.items():
        request = requests[tree.request(node)]
        prompt = [*request.prompt_token_ids, *words.start]
        if not path:
            assert tree.token_ids(node) == prompt
            continue
        plain, lengths = naive_path(scores, words, request, path, steps)
        assert tree.ended(node) == (len(path) > len(lengths))
        recorded = tree.token_ids(node)[len(prompt) :]
        if not tree.ended(node):
            paused += 1
            assert recorded == plain.thinking[: sum(lengths[: len(path)])]
            assert tree.num_tokens(node) == lengths[len(path) - 1]
            continue
        record = tree.record(node)
        assert record["thinking_token_ids"] == plain.thinking
        assert (record["end"], record["answer_end"], record["ignores_used"]) == (
            plain.end,
            plain.answer_end,
            plain.ignores_used,
        )
        assert record["answer_token_ids"] == plain.answer
        assert tree.text(node) == record["text"]
        assert recorded[: len(plain.generated)] == plain.generated
    assert paused > 5 or "never" in (steps.separator or "")
    tree.prune(list(ordinals))
    assert tree.pages_held == 0


def test_a_greedy_path_is_the_engines_record(engine):
    requests = random_requests(np.random.default_rng(0), GREEDY)
    expected = list(engine.run(requests))
    tree = Tree(engine, requests, StepConfig("\n", 7))
    assert run_down(tree, tree.roots) == expected


@pytest.mark.slow
def test_end_markers_of_several_tokens_are_not_cut_in_two(make_engine, model):
    """Greedy paths with markers that begin all the time: what is taken back never lies before a step."""
    format = FormatConfig(end_markers=("\na", "\n\n\n.", "<|endoftext|>"))
    engine = make_engine(format=format)
    budgets = [BudgetConfig(8, None, 3, string) for string in ("Wait", "", "\n")]
    requests = [
        Request(prompt, budget, GREEDY, i, max_answer_tokens=MAX_ANSWER)
        for i, (prompt, budget) in enumerate((p, b) for p in PROMPTS for b in budgets)
    ]
    expected = list(engine.run(requests))
    assert sum(record["ignores_used"] for record in expected) > 5
    for steps in (StepConfig("\n"), StepConfig(None, 1)):
        tree = Tree(engine, requests, steps)
        assert run_down(tree, tree.roots) == expected


@pytest.mark.slow
def test_company_and_batches_do_not_change_a_path(make_engine, engine):
    requests = random_requests(np.random.default_rng(3), SAMPLED)

    def texts(engine):
        tree = Tree(engine, requests, StepConfig(max_step_tokens=10))
        nodes = grow(tree, np.random.default_rng(4), 6, 12, apart=True)
        return [tree.token_ids(node) for node in nodes]

    expected = texts(engine)
    assert texts(make_engine(1)) == expected
    assert texts(make_engine(8)) == expected


def test_shared_pages_are_counted_once_and_free_when_nobody_holds_them(make_engine):
    engine = make_engine()
    page = tree_module.PAGE_SIZE.get("cpu", 32)
    prompt = PROMPTS[2]  # 40 letters and the start marker's tokens
    before = len(prompt) + len(engine.start_ids)
    request = Request(prompt, BudgetConfig(60, 60), SAMPLED, "a", max_answer_tokens=MAX_ANSWER)
    tree = Tree(engine, [request, dataclasses.replace(request, sample=1)], StepConfig(None, 3))
    full = before // page
    assert tree.pages_held == full + 1  # the same prompt, read once
    children = expand(tree, [tree.roots[0]] * 5)
    assert before % page + 3 <= page
    assert tree.pages_held == full + 1 + 5  # each has a last page of its own
    tree.prune(children[1:])
    assert tree.pages_held == full + 1 + 1
    tree.prune(tree.roots)
    assert tree.pages_held == full + 1  # what the child was given is not lost with its parent
    again = expand(tree, children[:1] * 2)
    assert tree.pages_held == full + 1 + 2
    tree.prune([*children, *again, *again])
    assert tree.pages_held == 0
    with pytest.raises(ValueError, match="was pruned"):
        expand(tree, children[:1])


def test_ended_nodes_hold_nothing_and_cannot_grow(engine):
    request = Request(PROMPTS[0], BudgetConfig(3, 3), GREEDY, max_answer_tokens=MAX_ANSWER)
    tree = Tree(engine, [request], StepConfig(None))
    (child,) = expand(tree, tree.roots)
    assert tree.ended(child)
    tree.prune(tree.roots)
    assert tree.pages_held == 0
    with pytest.raises(ValueError, match="has ended"):
        expand(tree, [child])
    with pytest.raises(ValueError, match="has not ended"):
        tree.record(tree.roots[0])
    assert expand(tree, []) == []


def test_without_thinking_and_with_nothing_to_say(engine):
    requests = [
        Request(PROMPTS[0], sampling=GREEDY, problem_id=0, max_answer_tokens=MAX_ANSWER, thinking=False),
        Request(PROMPTS[1], BudgetConfig(0, 0), GREEDY, 1, max_answer_tokens=MAX_ANSWER),
        Request((7,), sampling=GREEDY, problem_id=2, max_answer_tokens=0, thinking=False),
    ]
    tree = Tree(engine, requests, StepConfig())
    assert [tree.ended(root) for root in tree.roots] == [False, False, True]
    nodes = [*expand(tree, tree.roots[:2]), tree.roots[2]]
    assert [tree.record(node) for node in nodes] == list(engine.run(requests))
    assert Tree(engine, [], StepConfig()).roots == []


def test_stop_strings_end_answers(engine):
    plain = Request(PROMPTS[1], BudgetConfig(4, 4), GREEDY, max_answer_tokens=30)
    answer = TOKENIZER.decode(next(engine.run([plain]))["answer_token_ids"])
    request = dataclasses.replace(plain, stop_strings=(answer[2:4],))
    tree = Tree(engine, [request], StepConfig(None, 3))
    (node,) = expand(tree, expand(tree, tree.roots))
    (expected,) = engine.run([request])
    assert tree.record(node) == expected
    assert tree.text(node) == expected["text"]


@pytest.mark.slow
def test_an_int8_cache(make_engine):
    engine = make_engine(cache_dtype=jnp.int8)
    requests = random_requests(np.random.default_rng(5), GREEDY)
    expected = list(engine.run(requests))
    tree = Tree(engine, requests, StepConfig())
    assert run_down(tree, tree.roots) == expected


def test_a_full_pool_grows_and_says_when_it_cannot(make_engine, monkeypatch):
    engine = make_engine()
    request = Request(PROMPTS[0], BudgetConfig(100, 100), SAMPLED, max_answer_tokens=MAX_ANSWER)
    tree = Tree(engine, [request], StepConfig(None, 40))
    sizes = [tree._pool.pages.size]
    level = tree.roots
    for _ in range(2):
        level = expand(tree, level * 4)
        sizes.append(tree._pool.pages.size)
    assert sizes[-1] > sizes[0] and tree.pages_held <= sizes[-1]

    def no_room(pool, pages):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")

    monkeypatch.setattr(engine.programs, "more_pages", no_room)
    with pytest.raises(RunError, match="prune more of them"):
        expand(tree, tree.roots * 60)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [MeshConfig(data=2, fsdp=1, tensor=2), MeshConfig(data=1, fsdp=2, tensor=1)])
def test_a_mesh_gives_the_same(model, engine, mesh):
    _, config, params = model
    size = mesh.data * mesh.fsdp * mesh.tensor
    layout = Layout(make_mesh(mesh, jax.devices()[:size]), DECODE_RULES)
    placed = unstack(jax.device_put(params, layout.tree(param_axes(config), params)))
    meshed = Engine(config, placed, TOKENIZER, max_model_len=MAX_MODEL_LEN, batch_size=4, layout=layout)
    requests = random_requests(np.random.default_rng(6), SAMPLED)

    def texts(engine):
        tree = Tree(engine, requests, StepConfig(max_step_tokens=10))
        return [tree.token_ids(node) for node in grow(tree, np.random.default_rng(7), 4, 10)]

    assert texts(meshed) == texts(engine)


def test_mistakes_are_named(engine):
    with pytest.raises(UserError, match="separator is empty"):
        StepConfig("")
    with pytest.raises(UserError, match="max_step_tokens is 0"):
        StepConfig(max_step_tokens=0)
    with pytest.raises(UserError, match="longer than 100 bytes"):
        Tree(engine, [], StepConfig("x" * 101))
    with pytest.raises(UserError, match="prompt is empty"):
        Tree(engine, [Request(())], StepConfig())
