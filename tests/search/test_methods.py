"""Each method finds what its twin finds, over random trees, many problems side by side."""

import dataclasses
import math
from decimal import Decimal, localcontext

import numpy as np
import pytest

from s1_jax.config import SearchConfig
from s1_jax.errors import UserError
from s1_jax.records import make
from s1_jax.records.options import search_fields
from s1_jax.search.layout import RewardLayout
from s1_jax.search.nodes import Node
from s1_jax.search.rebase import balance
from s1_jax.search.run import METHODS, search_all
from s1_jax.search.verifier import Verifier
from s1_jax.search.vote import PATH_SCORES, VOTES
from s1_jax.tasks.answers import extract_answer
from s1_jax.tasks.equivalence import grade_plain
from tests.search.fake_tree import OUTCOME, PROCESS, TOKENIZER, FakeScorer, FakeTree, World
from tests.search.twins import Twin

SEEDS, PROBLEMS = 20, 3  # so many batches of so many random trees
LONG = 10**6  # tokens, more than any text has
ROUNDING = 1e-12  # sums of a few numbers in another order


def make_verifier(config, architecture=PROCESS, max_length=LONG):
    scorer = FakeScorer(architecture)
    return scorer, Verifier(scorer, RewardLayout(TOKENIZER, scorer.reward, max_length, config))


def run(config, worlds, architecture=PROCESS, progress=None, **pace):
    """Records by index, and the tree; every record of its problem, and nothing left that could grow."""
    _, verifier = make_verifier(config, architecture) if architecture else (None, None)
    tree = FakeTree(worlds, **pace)
    found = list(search_all(tree, config, [world.question for world in worlds], verifier, extract_answer, progress))
    assert sorted(index for index, _ in found) == list(range(len(worlds)))
    assert not tree.left
    return dict(found), tree


def check(config, architecture=PROCESS, seeds=SEEDS, **world):
    """The fields of all records beside the twin's; how many searches found several answers."""
    contested = 0
    for seed in range(seeds):
        worlds = [World(seed, problem, **world) for problem in range(PROBLEMS)]
        found, _ = run(config, worlds, architecture)
        for index, world_of in enumerate(worlds):
            expected = Twin(world_of, config, FakeScorer(architecture) if architecture else None).expected()
            leaves, weighed = found[index]["leaves"], expected.pop("leaves")
            assert {name: found[index][name] for name in expected} == expected, (seed, index)
            assert [answer for answer, _ in leaves] == [answer for answer, _ in weighed]
            assert np.allclose([w for _, w in leaves], [w for _, w in weighed], rtol=0, atol=ROUNDING)
            contested += len({answer for answer, _ in leaves}) > 1
    return contested


@pytest.mark.parametrize("vote", VOTES)
@pytest.mark.parametrize("path_score", PATH_SCORES)
def test_best_of_n(vote, path_score):
    config = SearchConfig("best_of_n", width=6, vote=vote, path_score=path_score)
    assert check(config, PROCESS, seeds=15, whole=True) > PROBLEMS


@pytest.mark.parametrize("vote", VOTES)
@pytest.mark.parametrize("reads", ["all", "answer"])
def test_best_of_n_with_an_outcome_model(vote, reads):
    assert check(SearchConfig("best_of_n", width=6, vote=vote, reads=reads), OUTCOME, whole=True) > PROBLEMS


def test_majority_voting_needs_no_model():
    assert check(SearchConfig("best_of_n", width=7, vote="majority"), None, whole=True) > PROBLEMS


@pytest.mark.parametrize("width, branch", [(1, 1), (1, 3), (4, 1), (4, 3), (4, 4), (7, 2), (16, 4), (3, 5)])
def test_beam(width, branch):
    check(SearchConfig("beam", width=width, branch=branch, path_score="min"))


@pytest.mark.parametrize("width, branch", [(16, 4), (4, 4), (6, 4), (2, 4)])
def test_beam_has_as_many_candidates_in_each_step_as_others_have_runs(width, branch):
    for seed in range(10):
        _, tree = run(SearchConfig("beam", width=width, branch=branch), [World(seed, 0)])
        assert tree.planted and set(tree.planted) == {width}


def test_an_ended_candidate_of_beam_search_is_kept_however_low_its_score():
    """Four candidates, of which the lowest has ended; search-and-learn collects it and goes on with the others."""
    scores = {1: 0.9, 2: 0.8, 3: 0.7, 4: 0.1}
    search = METHODS["beam"].search(SearchConfig("beam", width=4, branch=2), 0)
    assert next(search) == [0, 0, 0, 0]
    parents = search.send([Node(i, i == 4, (score,), "9" if i == 4 else None) for i, score in scores.items()])
    assert parents == [1, 1, 2, 2], "the best two of the unfinished, two children each"
    with pytest.raises(StopIteration) as stop:
        search.send([Node(i, True, (i / 10,), "7") for i in range(5, 9)])
    found = [(leaf.id, leaf.answer) for leaf in stop.value.value]
    assert found == [(4, "9"), (8, "7"), (7, "7"), (6, "7")], "four ended runs vote: the first, then the best"


def test_fewer_beams_than_usual_share_the_candidates_the_best_getting_more():
    search = METHODS["beam"].search(SearchConfig("beam", width=7, branch=2), 0)
    next(search)
    assert search.send([Node(i, i > 2, (1 / i,), None) for i in range(1, 8)]) == [1, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("width, branch", [(1, 1), (3, 3), (4, 1), (6, 2)])
def test_dvts(width, branch):
    check(SearchConfig("dvts", width=width, branch=branch, path_score="mean"))


@pytest.mark.parametrize("width, temperature", [(1, 0.2), (5, 0.2), (16, 0.2), (8, 0.02), (8, 10.0)])
def test_rebase(width, temperature):
    check(SearchConfig("rebase", width=width, score_temperature=temperature, path_score="product"))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"exploration": 0.0},
        {"exploration": 5.0, "widening": 0.6, "widening_power": 0.9},
        {"widening": 3.0, "widening_power": 0.0},
        {"max_nodes": 11, "path_score": "min"},
        {"max_steps": 3},
    ],
    ids=str,
)
def test_mcts(options):
    check(SearchConfig("mcts", width=8, **options))


@pytest.mark.parametrize("method", [method for method in METHODS if method != "best_of_n"])
@pytest.mark.parametrize("vote", VOTES)
def test_runs_that_are_given_up(method, vote):
    config = SearchConfig(method, width=4, branch=2, vote=vote, max_steps=3)
    assert check(config, seeds=15, ends=0.15) > 0


def balance_by_hand(scores, width, temperature):
    """The reference's loop: both the width and the sum that are left go down."""
    weights = [math.exp(score / temperature) for score in scores]
    left, counts = sum(weights), []
    for weight in weights:
        counts.append(math.ceil(width * weight / left - 1e-9))
        width, left = width - counts[-1], left - weight
    return counts


def test_balance_is_the_references():
    rng = np.random.default_rng(0)
    for _ in range(300):
        scores = sorted(rng.random(rng.integers(1, 20)).tolist(), reverse=True)
        width, temperature = int(rng.integers(1, 40)), float(rng.uniform(0.1, 2))
        counts = balance(scores, width, temperature)
        assert counts == balance_by_hand(scores, width, temperature)
        assert sum(counts) == width and counts == sorted(counts, reverse=True)


def balance_exactly(scores, width, temperature):
    """The rule in decimal numbers of 60 digits; None where a share is too near to a whole number to tell."""
    with localcontext(prec=60):
        weights = [((Decimal(score) - Decimal(scores[0])) / Decimal(temperature)).exp() for score in scores]
        counts = []
        for i, weight in enumerate(weights):
            share = width * weight / sum(weights[i:])
            if abs(share - round(share)) < Decimal("1e-9"):
                if any(other != scores[i] for other in scores[i:]):  # rounding of a weight may decide
                    return None
                share = Decimal(round(share))
            counts.append(math.ceil(share))
            width -= counts[-1]
        return counts


def test_balance_gives_out_exactly_its_budget():
    assert sum(balance([0.946502554169996, 0.9384387997349186, 0.9098511774051025], 41, 0.2)) == 41
    rng, compared = np.random.default_rng(1), 0
    for _ in range(1500):
        n, width = int(rng.integers(1, 24)), int(rng.integers(0, 80))
        draw = [rng.random, lambda k: rng.integers(0, 4, k) / 4, lambda k: 0.5 + 1e-16 * rng.integers(0, 3, k)]
        scores = sorted(map(float, draw[rng.integers(3)](n)), reverse=True)
        temperature = float(10.0 ** rng.choice([-300, -12, -3, -1, -0.7, 0, 1, 6, 300]))
        counts = balance(scores, width, temperature)
        assert sum(counts) == width and min(counts) >= 0, (scores, width, temperature)
        assert counts == sorted(counts, reverse=True)
        assert counts == balance(scores, width, temperature)
        expected = balance_exactly(scores, width, temperature) if 1e-3 <= temperature <= 10 else None
        if expected is not None:
            compared += 1
            assert counts == expected, (scores, width, temperature)
    assert compared > 300


def test_balance_at_its_ends():
    assert balance([0.3], 9, 0.2) == [9] and balance([0.3, 0.2], 0, 0.2) == [0, 0]
    assert balance([0.9] * 41, 41, 0.1) == [1] * 41
    assert balance([1.0, 0.0], 3, 5e-324) == [3, 0]
    assert balance([0.5] * 4, 8, 0.2) == [2, 2, 2, 2]
    assert balance([0.5] * 3, 4, 0.2) == [2, 1, 1]
    assert balance([0.9, 0.1], 5, 1e-300) == [5, 0]
    assert balance([1.0, 0.0], 6, 1e300) == [3, 3]
    assert balance([], 0, 0.2) == []


def test_a_search_does_not_depend_on_its_company():
    for method in METHODS:
        config = SearchConfig(method, width=4, branch=2)
        worlds = [World(3, problem, whole=not config.by_steps) for problem in range(PROBLEMS)]
        few = dataclasses.replace(config, problems_at_a_time=2)
        (together, _), (in_twos, _) = run(config, worlds), run(few, worlds)
        (slow, _), (quick, _) = run(config, worlds, rows=1, pace=0.1, seed=1), run(config, worlds, rows=99, pace=1.0)
        for index in range(PROBLEMS):
            alone, _ = run(config, worlds[index : index + 1])
            others = [found[index] for found in (in_twos, slow, quick)]
            assert all(untimed(record) == untimed(together[index]) for record in (alone[0], *others))


def untimed(record):
    return {name: value for name, value in record.items() if not name.endswith("seconds")}


def test_the_batch_is_filled_before_anything_is_scored_and_what_is_ready_is_scored_at_once():
    worlds, config = [World(0, problem, ends=0.0, deepest=3) for problem in range(4)], SearchConfig("rebase", width=4)

    def calls(rows, pace):
        tree, (scorer, verifier) = FakeTree(worlds, rows=rows, pace=pace), make_verifier(config)
        score = scorer.score
        scored = []

        def when_hungry(texts, indices, names):
            assert tree.hungry
            scored.append(len(texts))
            return score(texts, indices)

        scorer.score = when_hungry
        assert len(list(search_all(tree, config, ["?"] * 4, verifier, extract_answer))) == 4
        assert tree.planted == [4] * 12  # each search at its own pace, what it asks for at once
        return scored

    assert calls(rows=16, pace=1.0) == [16] * 3  # in step with each other
    assert len(calls(rows=8, pace=0.5)) > 3


def test_records():
    config = SearchConfig("rebase", width=4, score_temperature=0.5)
    worlds = [World(1, problem) for problem in range(PROBLEMS)]
    found, _ = run(config, worlds)
    for record in found.values():
        named = {"method": "rebase", "width": 4, "vote": "weighted", "path_score": "last", "max_steps": None}
        assert record == record | named | {"score_temperature": 0.5, "reward": "process"}
        assert "branch" not in record and "exploration" not in record
        assert record.keys() >= set(make.USED) and record["problem_id"] in range(PROBLEMS)
        assert record["decoding_seconds"] > 0 and record["reward_seconds"] > 0
        assert extract_answer(record["text"]) in [answer for answer, _ in record["leaves"]]
    assert run(SearchConfig("best_of_n", vote="majority"), [World(0, 0, whole=True)], None)[0][0]["reward"] is None


def test_reward_tokens_are_those_of_every_step_once():
    world = World(2, 0)
    config = SearchConfig("rebase", width=5)
    record = run(config, [world])[0][0]
    twin = Twin(world, config, FakeScorer(PROCESS))
    texts = {run: "".join(step + "|" for step in twin.paragraphs(run)) for run in twin.runs}
    parents = {run: len(texts.get(run[:-1], "")) for run in twin.runs}
    assert record["reward_tokens"] == sum(len(texts[run]) - parents[run] for run in twin.runs)  # a byte is a token


@pytest.mark.parametrize("method", [method for method in METHODS if method != "best_of_n"])
def test_a_tree_that_dies_out_is_an_empty_answer(method):
    config = SearchConfig(method, width=4, branch=2, max_steps=5)
    found, tree = run(config, [World(0, 0, ends=0.0, deepest=99)])
    assert {name: found[0][name] for name in make.decoded()} == make.decoded()
    assert found[0]["leaves"] == [] and found[0]["generated_tokens"] > 0 and found[0]["longest_path_tokens"] > 0
    assert max(tree.planted) <= 8 and extract_answer(found[0]["text"]) is None
    verdict = grade_plain(extract_answer(found[0]["text"]), "7")
    assert (verdict.correct, verdict.by) == (False, "none")


@pytest.mark.parametrize("method", METHODS)
def test_leaves_without_an_answer_have_no_vote(method, monkeypatch):
    monkeypatch.setattr("tests.search.fake_tree.ANSWERS", ("",))
    config = SearchConfig(method, width=4, branch=2)
    record = run(config, [World(0, 0, whole=not config.by_steps)])[0][0]
    assert record["leaves"] and all(answer is None for answer, _ in record["leaves"])
    assert record["text"] and extract_answer(record["text"]) is None


def test_progress_counts_problems():
    shown = []
    config = SearchConfig("beam", width=2, branch=2, problems_at_a_time=1)
    run(config, [World(0, problem) for problem in range(3)], progress=shown.append)
    assert sorted(set(shown)) == [0, 1, 2, 3] and shown == sorted(shown)


def test_a_prompt_that_leaves_no_room_is_its_own_answer():
    worlds, config = [World(0, problem) for problem in range(3)], SearchConfig("rebase", width=4)
    _, verifier = make_verifier(config)
    tree = FakeTree(worlds, no_room=(1,))
    found = dict(search_all(tree, config, [world.question for world in worlds], verifier, extract_answer))
    assert found[1]["text"] == tree.text(1) and found[1]["steps"] == 0 and len(found[1]["leaves"]) == 1
    whole, _ = run(config, worlds)
    assert all(untimed(found[index]) == untimed(whole[index]) for index in (0, 2))


def test_texts_too_long_for_the_model_keep_the_scores_they_have():
    world, config = World(0, 0, ends=0.0, deepest=9), SearchConfig("beam", width=2, branch=2)
    _, verifier = make_verifier(config, max_length=120)
    tree = FakeTree([world])
    ((_, record),) = search_all(tree, config, [world.question], verifier, extract_answer)
    assert 0 < record["cut_texts"] < record["steps"] and record["leaves"]
    assert run(config, [world])[0][0]["cut_texts"] == 0


@pytest.mark.parametrize(
    "options, architecture, message",
    [
        ({"method": "rebase"}, None, "rebase needs a process reward model, which scores steps; set --rewards.process"),
        ({"method": "mcts"}, OUTCOME, "mcts needs a process reward model, which scores steps; this one scores whole"),
        ({"vote": "weighted"}, None, "vote weighted needs a reward model; without one, only majority works"),
    ],
)
def test_methods_without_what_they_need(options, architecture, message):
    with pytest.raises(UserError, match=message):
        run(SearchConfig(**options), [World(0, 0)], architecture)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"width": 0}, "search.width is 0; it must be a whole number from 1"),
        ({"branch": 0}, "search.branch is 0; it must be a whole number from 1"),
        ({"max_steps": 0}, "search.max_steps is 0; it must be a whole number from 1"),
        ({"max_nodes": -1}, "search.max_nodes is -1; it must be a whole number from 1"),
        ({"problems_at_a_time": 0}, "search.problems_at_a_time is 0; it must be a whole number from 1"),
        ({"score_temperature": 0.0}, "search.score_temperature is 0.0; it must be a number from 1e-06"),
        ({"score_temperature": math.inf}, "search.score_temperature is inf; it must be a number from 1e-06"),
        ({"widening": math.nan}, "search.widening is nan; it must be a number above 0"),
        ({"exploration": -0.1}, "search.exploration is -0.1; it must be a number of at least 0"),
        ({"widening_power": 1.1}, "search.widening_power is 1.1; it must be a number from 0 to 1"),
        ({"method": "dvts", "width": 6, "branch": 4}, "search.width 6 is not a multiple of search.branch 4"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(UserError, match=message):
        SearchConfig(**options)


def test_every_method_has_a_name_in_the_config():
    for method in METHODS:
        assert search_fields(SearchConfig(method))["method"] == method
