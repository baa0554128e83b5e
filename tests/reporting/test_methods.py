"""Searches beside budget forcing: what is a run of its own, what it cost, and how the table says it."""

import re

import pytest

from s1_jax.config import SearchConfig
from s1_jax.records.names import KINDS, search_kind, search_label
from s1_jax.records.options import search_fields
from s1_jax.records.setting import Setting
from s1_jax.reporting.methods import FORCED, format_methods, method_runs
from s1_jax.reporting.metrics import mean_interval
from s1_jax.reporting.summary import methods, summarize
from s1_jax.search.run import METHODS
from s1_jax.search.vote import VOTES
from tests.reporting.made_up import record, searched, sweep, undecided

PROBLEMS = 8


def searches():
    """REBASE at three widths, more of them right; majority voting; two votes over the same runs."""
    found = []
    for i in range(PROBLEMS):
        found += [searched(i, i < 2 + width, width, seconds=width) for width in (1, 4, 2)]
        found.append(searched(i, i < 3, 4, method="best_of_n", vote="majority", reward=None, reward_tokens=0))
        for score in ("last", "min"):
            found.append(searched(i, i < 4, 4, method="best_of_n", vote="best", path_score=score))
    return found


def test_runs():
    runs = method_runs([*sweep(PROBLEMS), *searches()])
    found = {(run.name, run.setting.search.width if run.setting.search else run.setting.label): run for run in runs}
    assert len(found) == len(runs)
    assert {name for name, _ in found} == {
        *(FORCED, f"{FORCED}, T 0.8", "REBASE", "majority voting", "best of N, process last", "best of N, process min")
    }
    run = found["REBASE", 2]
    assert (run.problems, run.accuracy, run.generated_tokens, run.longest_path_tokens) == (PROBLEMS, 50.0, 100, 62)
    assert (run.reward_tokens, run.decoding_seconds, run.reward_seconds, run.seconds) == (80, 1.5, 0.5, 2.0)
    assert run.interval == pytest.approx([100 * end for end in mean_interval([1] * 4 + [0] * 4, PROBLEMS)])
    plain = found[FORCED, "max 16"]
    assert (plain.generated_tokens, plain.longest_path_tokens, plain.seconds) == (16 + 3, 16, None)
    assert [run.setting.search.width for run in runs if run.name == "REBASE"] == [1, 2, 4]
    kinds = [KINDS.index(run.kind) for run in runs]
    assert kinds == sorted(kinds)


def test_draws_of_a_problem_are_no_more_problems():
    drawn = [searched(i, i < 4 or seed == 0, 2, seed=seed) for i in range(PROBLEMS) for seed in range(2)]
    (run,) = method_runs(drawn)
    assert (run.problems, run.accuracy) == (PROBLEMS, 75.0)
    assert run.interval == pytest.approx([100 * end for end in mean_interval([1] * 4 + [0.5] * 4, 2 * PROBLEMS)])


def test_table():
    died = searched(0, False, 1, method="mcts", leaves=[], cut_texts=3)
    text = format_methods(method_runs([*searches(), record(0, True, 5), died]))
    assert re.search(r"^REBASE +4 +75\.0% +40\.\d to 92\.\d +8 +200\.0 +64\.0 +160\.0 +3\.00 +1\.00 +0$", text, re.M)
    assert re.search(r"^budget forcing +natural end +100\.0% .* +1 +8\.0 +5\.0 +- +- +- +0$", text, re.M)
    assert re.search(r"^MCTS +1 +0\.0% .* 1$", text, re.M)
    assert text.endswith("Texts that were too long for the reward model, and cut: 3.0 per problem")
    assert "too long" not in format_methods(method_runs(searches()))


def test_undecided_answers_have_a_column_in_the_table_too():
    found = method_runs(undecided(searches(), 3, 5))
    rebase = {run.setting.search.width: run for run in found if run.name == "REBASE"}
    told = {width: (run.undecided, run.accuracy, run.accuracy_if_undecided_right) for width, run in rebase.items()}
    assert told == {1: (2, 37.5, 62.5), 2: (1, 50, 62.5), 4: (0, 75, 75)}
    text = format_methods(found)
    assert re.search(r"^REBASE +1 +37\.5% +62\.5% .* 2$", text, re.M)
    assert re.search(r"^REBASE +4 +75\.0% +40\.\d to 92\.\d .* 0$", text, re.M)
    assert "\nUndecided: " in text and "ndecided" not in format_methods(method_runs(searches()))


def test_searches_are_runs_but_of_no_family():
    plain = sweep(PROBLEMS)
    alone, both = summarize(plain), summarize([*plain, *searches()])
    assert len(both) == len(alone) + 6
    assert methods(alone, "across") == methods(both, "across")
    labels = [run.setting.label for run in both]
    assert len(set(labels)) == len(labels)
    assert "REBASE, width 4, T 1" in labels and "best of N, process min, width 4, T 1" in labels


def test_a_searchs_budget_sets_it_apart():
    cut = searched(0, True, 2, max_thinking_tokens=64)
    assert [run.name for run in method_runs([searched(0, True, 2), cut])] == ["REBASE", "REBASE, max 64"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("vote", VOTES)
def test_a_record_tells_its_search(method, vote):
    options = {"beam": {"branch": 3}, "rebase": {"score_temperature": 0.5}, "mcts": {"max_steps": 9, "widening": 2.0}}
    search = SearchConfig(method, width=8, vote=vote, path_score="min", **options.get(method, {}))
    setting = Setting.of(record(0, True, 5) | search_fields(search) | {"reward": "process"})
    assert setting.search == search and setting.reward == "process"
    assert search_kind(search) in KINDS
    assert Setting.of(record(0, True, 5)).search is None


@pytest.mark.parametrize(
    "options, reward, label",
    [
        ({"method": "best_of_n", "vote": "majority"}, None, "majority voting, width 16"),
        ({"method": "best_of_n"}, "outcome", "weighted majority, outcome, width 16"),
        (
            {"method": "best_of_n", "vote": "best", "reads": "answer"},
            "outcome",
            "best of N, outcome, of answer, width 16",
        ),
        ({"method": "best_of_n", "path_score": "product"}, "process", "weighted majority, process product, width 16"),
        ({"method": "beam", "width": 4}, "process", "beam search, 4 children, width 4"),
        ({"method": "dvts", "branch": 2, "max_steps": 9}, "process", "DVTS, 2 children, up to 9 steps, width 16"),
        ({"method": "rebase", "vote": "best"}, "process", "REBASE, best last, width 16"),
        ({"method": "rebase", "score_temperature": 0.1}, "process", "REBASE, score T 0.1, width 16"),
        (
            {"method": "mcts", "vote": "majority", "exploration": 2},
            "process",
            "MCTS, majority, exploration 2, width 16",
        ),
    ],
)
def test_labels(options, reward, label):
    assert search_label(SearchConfig(**options), reward) == label
