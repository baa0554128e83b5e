"""The metrics give the paper's printed values, and majority voting equals counting over all orders."""

import itertools
import json
import math
import random
from collections import Counter

import numpy as np
import pytest
import scipy.stats

from s1_jax.reporting.metrics import (
    cautious_interval,
    control,
    difference_interval,
    few_differ,
    majority_accuracy,
    mean_interval,
    paired_bootstrap,
    pass_at_k,
    performance,
    scaling,
    wilson_interval,
)

RESAMPLING = 0.05  # of a standard error: what 10,000 resamples leave open, four times over
ROUNDING = 1e-9  # float64 sums of a few terms
QUESTIONS = 30  # of AIME24, what the paper's accuracies are shares of


def paper_cases(shared_data):
    return json.loads((shared_data / "s1_metrics" / "scaling_metric_cases.json").read_text())["cases"]


def test_the_papers_tables(shared_data):
    cases = paper_cases(shared_data)
    assert len(cases) == 5
    for case in cases:
        tokens, accuracies = case["thinking_tokens"], [100 * n / QUESTIONS for n in case["correct"]]
        limits, minimum = case["limits"], None
        if limits is None:  # class-conditional: short below the run without a prompt, long above it
            limits, minimum = [case["reference"], None], [None, case["reference"]]
        assert round(control(tokens, limits, minimum)) == case["control"], case["method"]
        assert round(scaling(tokens, accuracies)) == case["scaling"], case["method"]
        assert round(performance(accuracies), 1) == case["performance"], case["method"]


def test_control_bounds_are_inclusive_and_may_be_one_number():
    assert control([10, 20, 30], [10, 20, 29]) == pytest.approx(200 / 3)
    assert control([10, 20, 30], 20) == pytest.approx(200 / 3)
    assert control([10, 20, 30], minimum=20) == pytest.approx(200 / 3)
    assert control([10, 20, 30], [None, 5, None]) == pytest.approx(200 / 3)
    assert control([10, 20, 30]) == 100
    assert control([]) is None


def test_control_wants_one_bound_per_run():
    with pytest.raises(ValueError):
        control([10, 20], [10])


def test_scaling_is_points_per_doubling():
    assert scaling([8, 16, 32], [10, 20, 30]) == pytest.approx(10)
    assert scaling([32, 8, 16], [30, 10, 20]) == pytest.approx(10), "the order of runs does not matter"
    assert scaling([8, 32], [10, 30]) == pytest.approx(10)


def test_scaling_merges_equal_tokens_and_leaves_zero_out():
    assert scaling([8, 8, 16], [0, 20, 30]) == pytest.approx(20)
    assert scaling([0, 8, 16], [90, 10, 30]) == pytest.approx(20)


@pytest.mark.parametrize("tokens", [[], [8], [8, 8], [0, 8]])
def test_scaling_needs_two_runs(tokens):
    assert scaling(tokens, [50.0] * len(tokens)) is None


def test_performance_is_the_best_run():
    assert performance([10.0, 40.0, 36.7]) == 40.0
    assert performance([]) is None


def test_wilson_solves_its_equation():
    for right, trials in [(0, 5), (1, 30), (15, 30), (163, 500), (500, 500)]:
        low, high = wilson_interval(right / trials, trials)
        assert 0 <= low <= right / trials <= high <= 1
        for p in (low, high):
            if 0 < p < 1:  # at both ends the observed share is exactly z standard errors away
                z = abs(right / trials - p) / math.sqrt(p * (1 - p) / trials)
                assert z == pytest.approx(1.96, abs=1e-3)


def test_wilson_of_a_known_case():
    # Newcombe 1998, Statistics in Medicine 17: 857-872, Table I, method 3: 81 of 263
    assert wilson_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_a_mean_over_draws_has_as_many_trials_as_it_tells_apart():
    once = [True] * 12 + [False] * 18
    assert mean_interval(once, 30) == pytest.approx(wilson_interval(0.4, 30))
    assert mean_interval(once, 90) == pytest.approx(wilson_interval(0.4, 30)), "three draws of each that agree"
    assert mean_interval([0.5] * 30, 120) == wilson_interval(0.5, 120), "four draws of each, and problems do not differ"
    between = mean_interval([0.75] * 15 + [0.25] * 15, 120)
    assert between == pytest.approx(wilson_interval(0.5, 30 * 0.25 / 0.0625))
    for all_alike in (0.0, 1.0):
        assert mean_interval([all_alike] * 30, 120) == wilson_interval(all_alike, 30), "unseen failures stay possible"


def test_the_interval_of_a_mean_over_draws_covers_problems_and_draws():
    rng, rounds, problems, draws = np.random.default_rng(0), 2000, 30, 3
    chances = rng.beta(2, 2, size=(rounds, problems))
    shares = rng.binomial(draws, chances) / draws
    found = np.asarray([mean_interval(one, problems * draws) for one in shares])
    covered = np.mean((found[:, 0] <= 0.5) & (found[:, 1] >= 0.5))
    of_problems = np.asarray([wilson_interval(mean, problems) for mean in shares.mean(axis=1)])
    assert 0.93 < covered < 0.97
    assert np.mean(found[:, 1] - found[:, 0]) < 0.75 * np.mean(of_problems[:, 1] - of_problems[:, 0])


def first_seen_majority(votes):
    counted = Counter(vote for vote in votes if vote is not None)
    return max(counted, key=counted.get) if counted else None  # max keeps the first seen among equals


def test_majority_equals_counting_over_all_orders():
    rng = random.Random(0)
    for _ in range(150):
        votes = [rng.choice(["7", "3", "5", None]) for _ in range(rng.randint(1, 6))]
        for k in range(1, len(votes) + 1):
            orders = list(itertools.permutations(votes, k))
            counted = sum(first_seen_majority(order) == "7" for order in orders) / len(orders)
            assert majority_accuracy(votes, "7", k) == pytest.approx(counted, abs=ROUNDING), (votes, k)


def test_majority_of_one_is_the_mean_and_of_all_the_vote():
    votes = ["7", "7", "3", None, "7", "5", "3", "3"]
    assert majority_accuracy(votes, "7", 1) == pytest.approx(3 / 8)
    assert majority_accuracy(votes, "7", 8) == pytest.approx(1 / 2), "7 and 3 tie"
    assert majority_accuracy([None, None], "7", 2) == 0


def test_pass_at_k_equals_counting_over_all_subsets():
    for samples in range(1, 8):
        for right, k in itertools.product(range(samples + 1), range(1, samples + 1)):
            subsets = list(itertools.combinations([i < right for i in range(samples)], k))
            assert pass_at_k(right, samples, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=ROUNDING)


def test_pass_at_k_of_many_samples():
    assert pass_at_k(1, 64, 64) == 1 and pass_at_k(0, 64, 64) == 0
    assert pass_at_k(32, 64, 1) == pytest.approx(0.5)
    values = [pass_at_k(3, 64, k) for k in range(1, 65)]
    assert values == sorted(values)


def test_a_difference_of_a_known_case():
    # Newcombe 1998, Statistics in Medicine 17: 873-890, Table II, method 10: 56 of 70 less 48 of 80
    assert difference_interval(48 / 80, 56 / 70, (80, 70)) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_the_bootstrap_gives_what_the_normal_law_says_of_many_problems():
    rng = np.random.default_rng(1)
    first, second = rng.random(500) < 0.4, rng.random(500) < 0.6
    differences = second.astype(float) - first
    error = differences.std() / math.sqrt(len(differences))
    low, high = paired_bootstrap(first, second)
    expected = differences.mean() - 1.96 * error, differences.mean() + 1.96 * error
    assert (low, high) == pytest.approx(expected, abs=RESAMPLING * error * 2)


def pairs(problems, gained, lost):
    """Two lists of shares."""
    first = [0.0] * gained + [1.0] * lost + [1.0] * (problems - gained - lost)
    return first, [1.0] * gained + [0.0] * lost + [1.0] * (problems - gained - lost)


@pytest.mark.parametrize("problems", [1, 2, 30, 198, 500])
def test_no_pair_that_differs_rules_out_no_more_than_clopper_and_pearson_do(problems):
    end = float(scipy.stats.beta.ppf(0.975, 1, problems))
    assert few_differ(*pairs(problems, 0, 0))
    assert cautious_interval(*pairs(problems, 0, 0)) == pytest.approx((-end, end))
    assert cautious_interval(*pairs(problems, problems, 0)) == pytest.approx((1 - 2 * end, 1))
    assert cautious_interval(*pairs(problems, 0, problems)) == pytest.approx((-1, 2 * end - 1))
    shares = [0.3] * problems
    assert cautious_interval(shares, [0.8] * problems) == pytest.approx((0.5 - 1.5 * end, 0.5 + 0.5 * end))


def test_few_pairs_that_differ_are_judged_as_by_mcnemars_exact_test():
    for gained, lost in ((g, few - g) for few in range(10) for g in range(few + 1)):
        assert few_differ(*pairs(60, gained, lost))
        low, high = cautious_interval(*pairs(60, gained, lost))
        rejects = few_p(gained, lost) < 0.05
        assert (low <= 0 <= high) is not rejects, (gained, lost)
        assert low < (gained - lost) / 60 < high
    assert not few_differ(*pairs(60, 6, 4)) and few_differ(*pairs(60, 57, 3)), "all but three are gained"


def few_p(gained, lost):
    return float(scipy.stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def test_the_interval_of_few_pairs_covers_as_often_as_it_says():
    """Exactly, over all that 30 problems can show; the bootstrap's holds the true difference far less often."""
    problems, covered, by_bootstrap = 30, {}, {}
    true = [(0.03, 0.0), (0.03, 0.03), (0.1, 0.01), (0.06, 0.06)]
    for gained, lost in ((g, few - g) for few in range(10) for g in range(few + 1)):
        made = pairs(problems, gained, lost)
        intervals = cautious_interval(*made), paired_bootstrap(*made)
        for gain, loss in true:
            chance = scipy.stats.multinomial.pmf(
                [gained, lost, problems - gained - lost], problems, [gain, loss, 1 - gain - loss]
            )
            for (low, high), total in zip(intervals, (covered, by_bootstrap), strict=True):
                total[gain, loss] = total.get((gain, loss), 0) + chance * (low <= gain - loss <= high)
    assert min(covered.values()) >= 0.95, covered
    assert by_bootstrap[0.03, 0.0] < 0.7, by_bootstrap


def test_the_bootstrap_keeps_pairs_together_and_repeats_itself():
    shares = np.random.default_rng(2).random(30)
    assert paired_bootstrap(shares, shares + 0.25) == pytest.approx((0.25, 0.25)), "the same difference everywhere"
    other = shares[::-1]
    assert paired_bootstrap(shares, other) == paired_bootstrap(shares, other)
    assert paired_bootstrap(shares, other) != paired_bootstrap(shares, other, seed=1)
