"""Logits and scores that are NaN or infinite end a run with the request and the step, whatever decodes."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s1_jax import evaluate, generate
from s1_jax.api import LoadedModel
from s1_jax.checkpoints.tensor_file import DTYPES, read_header
from s1_jax.config import BudgetConfig, SamplingConfig, StepConfig
from s1_jax.decoding.core.budget import Phase, empty_state
from s1_jax.decoding.core.loop import ALL_FINITE, Outcome, record, start
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.engine import Engine
from s1_jax.decoding.tree import Tree
from s1_jax.errors import RunError
from s1_jax.harness.scoring import Pair, Scorer
from s1_jax.model.transformer import unstack
from s1_jax.search.layout import RewardText
from s1_jax.search.verifier import Verifier
from tests.runs import BASE, SWEEP
from tests.search.test_scoring import OUTCOME, PROCESS, STEP_END, make_scorer
from tests.tokenizer import byte_tokenizer

V, MAX_MODEL_LEN = 264, 128
TOKENIZER = byte_tokenizer()
FORCED = BudgetConfig(min_thinking_tokens=3, max_thinking_tokens=3)
SAMPLED = SamplingConfig(temperature=1.0)


@pytest.fixture(scope="module")
def tiny(tiny_model):
    return tiny_model(1, vocab_size=V, max_position_embeddings=256)


def spoilt(params, name, index=..., value=jnp.nan):
    """The parameters with `value` at `index` of the one of that name."""
    return jax.tree_util.tree_map_with_path(
        lambda path, x: x.at[index].set(value) if jax.tree_util.keystr(path, simple=True, separator=".") == name else x,
        params,
    )


def make_engine(tiny, params, **options):
    return Engine(tiny.config, unstack(params), TOKENIZER, max_model_len=MAX_MODEL_LEN, batch_size=4, **options)


def requests(count=3, budget=FORCED, **options):
    return [Request((5, 6, i), budget, problem_id=i, name=f"problem {i}", **options) for i in range(count)]


def searched(engine, asked):
    tree = Tree(engine, asked, StepConfig(None))
    tree.plant(tree.roots)
    while not all(map(tree.ended, tree.grow() or tree.roots)):
        pass


WAYS = {
    "greedy": (lambda engine: list(engine.run(requests())), {}),
    "sampled": (lambda engine: list(engine.run(requests(sampling=SAMPLED))), {}),
    "filtered": (lambda engine: list(engine.run(requests(sampling=SamplingConfig(1.0, 5, 0.9, 0.1)))), {}),
    "drafts": (lambda engine: list(engine.run(requests())), {"draft_tokens": 3}),
    "shared": (lambda engine: list(engine.run_shared(requests())), {}),
    "without thinking": (lambda engine: list(engine.run(requests(budget=BudgetConfig(), thinking=False))), {}),
    "streamed": (lambda engine: list(engine.stream(requests()[0])), {}),
    "search": (lambda engine: searched(engine, requests()), {}),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_model_whose_norm_is_nan_decodes_nothing(tiny, way):
    decode, options = WAYS[way]
    engine = make_engine(tiny, spoilt(tiny.params, "norm.weight", 3), **options)
    with pytest.raises(RunError, match="^problem 0: the model's logits are not finite at step 1; "):
        decode(engine)


@pytest.mark.parametrize(("options", "steps"), [({}, "5"), ({"draft_tokens": 2}, "[3-5]")])
def test_the_step_is_the_one_that_reads_the_logits(tiny, options, steps):
    """The newline before the forced suffix is the fourth token, and NaN behind it; a draft may read it before."""
    (newline,) = TOKENIZER.encode("\n")
    healthy = list(make_engine(tiny, tiny.params).run(requests()))
    assert all(newline not in r["thinking_token_ids"] for r in healthy)
    engine = make_engine(tiny, spoilt(tiny.params, "embed_tokens.weight", newline), **options)
    with pytest.raises(RunError, match=f"^problem 0: .* at step {steps}; "):
        list(engine.run(requests()))


def test_an_infinite_logit_of_a_token_that_is_never_drawn_counts(tiny):
    """Ids that the tokenizer does not know are masked: their logits are the model's all the same."""
    engine = make_engine(tiny, spoilt(tiny.params, "lm_head.kernel", (..., V - 1), jnp.inf))
    with pytest.raises(RunError, match="not finite at step 1"):
        list(engine.run(requests()))


@pytest.mark.parametrize(
    ("logits", "at"),
    [
        ([1.0, 2.0, 3.0], ALL_FINITE),
        ([-np.inf, 2.0, -np.inf], ALL_FINITE),  # nothing is wrong with a token that cannot be
        ([np.nan, 2.0, 3.0], 0),
        ([1.0, -np.inf, np.nan], 0),
        ([1.0, np.inf, 3.0], 0),
        ([-np.inf, -np.inf, -np.inf], 0),
    ],
)
def test_what_is_not_finite(logits, at):
    """A row that is done reads no logits, and of the rows that continue the first such step is kept."""
    phases = jnp.asarray([Phase.THINKING, Phase.DONE], jnp.int32)
    rows = dataclasses.replace(empty_state(2), phase=phases)
    state = start(rows, (), jnp.asarray([logits, logits], jnp.float32), jnp.zeros(2, jnp.int32), 8)
    one, kind, feeds, none = jnp.ones(2, jnp.int32), jnp.ones(2, jnp.int32), jnp.ones(2, bool), jnp.zeros(2, jnp.int32)
    for _ in range(2):
        state = record(state, rows, Outcome(one, kind, feeds, none), state.logits)
    assert state.lost_at.tolist() == [at, ALL_FINITE]


def test_a_branch_names_its_run_and_step(tiny):
    """Maxima of 3 and 20 share a trunk; what is lost is the answer of the one that leaves it after 3 tokens."""
    engine = make_engine(tiny, tiny.params)
    budgets = [BudgetConfig(min_thinking_tokens=3, max_thinking_tokens=maximum) for maximum in (20, 3)]
    asked = [dataclasses.replace(requests(1)[0], budget=budget) for budget in budgets]
    assert len(list(engine.run_shared(asked))) == 2
    begin = engine.programs.start_branches

    def lose(*arguments):
        state = begin(*arguments)
        return dataclasses.replace(state, logits=state.logits * jnp.nan)

    engine.programs.start_branches = lose
    suffix = len(TOKENIZER.encode("\n<|im_start|>answer\nFinal Answer:"))
    with pytest.raises(RunError, match=f"^problem 0: the model's logits are not finite at step {3 + suffix + 1}; "):
        list(engine.run_shared(asked))


def test_logits_and_likelihoods_are_looked_at(tiny):
    layers = unstack(spoilt(tiny.params, "embed_tokens.weight", 9))
    model = LoadedModel(tiny.config, layers, TOKENIZER, "float32", "float32")
    assert np.isfinite(model.logits([[1, 2, 3]])).all()
    with pytest.raises(RunError, match="^row 1: the model's logits are not finite at token 1; "):
        model.logits([[1, 2, 3], [1, 9, 3]])
    with pytest.raises(RunError, match="^prompt 1: .* not finite at step 1; "):
        model.generate([[1, 2], [9]], {"max_thinking_tokens": 2}, max_answer_tokens=2)
    scorer = Scorer(model, 4, 64)
    with pytest.raises(RunError, match="^request 1: the model's log-likelihood is not finite at step 1; "):
        list(scorer.score([Pair([1], [2]), Pair([1], [9, 3])]))


@pytest.mark.parametrize("architecture", [OUTCOME, PROCESS])
def test_scores_of_a_reward_model_are_looked_at(architecture):
    _, scorer = make_scorer(architecture, batch_size=4, slots=8)
    good, bad = [1, 2, STEP_END], [1, 9, 3, STEP_END]
    run = scorer._run
    run._bound = (spoilt(run._bound[0], "embed_tokens.weight", 9),)
    assert np.isfinite(scorer.score([good])[0]).all()
    with pytest.raises(RunError, match="^text 1: the reward model's score is not finite at step 1; "):
        scorer.score([good, bad])

    class Layout:
        def text(self, question, run):
            return RewardText(bad, 0, True, [3])

    with pytest.raises(RunError, match="^problem 7: the reward model's score"):
        Verifier(scorer, Layout()).score([("?", "!")], ["problem 7"])


def test_commands_end_with_one_line(tmp_path):
    """The shipped model with a NaN in its last norm's weight: no record is written."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in BASE.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (norm,) = (t for t in read_header(folder / "model.safetensors") if t.name == "model.norm.weight")
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(norm.offset)
        file.write(b"\xff" * DTYPES[norm.dtype].itemsize)
    with pytest.raises(RunError, match="^--prompt: the model's logits are not finite at step 1; "):
        generate.main(["--model.path", str(folder), "--prompt", "hi"])
    run_dir = tmp_path / "run"
    options = ["--model.path", str(folder), "--run-dir", str(run_dir)]
    with pytest.raises(RunError, match="^problem .*: the model's logits are not finite at step 1; "):
        evaluate.main([*SWEEP, *options])
    assert not (run_dir / "records.jsonl").read_text()
