"""The paper's three metrics of test-time scaling, intervals of accuracies and differences, majority voting, pass@k.

A run is one setting over all problems of a task; it has a mean number of thinking tokens and an accuracy in percent.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from itertools import combinations
from math import comb, hypot, log2, sqrt
from statistics import fmean

import numpy as np

RESAMPLES = 10_000  # resamples of a bootstrap, as in the paper's Table 2
BLOCK = 500  # resamples that are computed at once
ENOUGH = 10  # problems that must differ for a bootstrap
DIGITS = 12  # digits to which a difference of fractions is exact
TAIL = 0.025  # probability on each side of a 95% interval
Z95 = 1.959963984540054  # a standard normal lies within +-Z95 with probability 0.95

Bounds = float | Sequence[float | None] | None


def control(thinking_tokens: Sequence[float], limits: Bounds = None, minimum: Bounds = None) -> float | None:
    """Percentage of runs with minimum <= thinking tokens <= limit (paper section 3.2, equation 1).

    `limits` and `minimum` hold one bound per run, None for a run without one; a single number holds for all runs.
    Class-conditional control, where a short prompt must think less and a long one more than a run without prompt that
    took r tokens, is `control([short, long], limits=[r, None], minimum=[None, r])` (appendix D.1). The result is None
    without runs.
    """
    runs = len(thinking_tokens)
    if not runs:
        return None
    bounds = zip(_per_run(minimum, runs), thinking_tokens, _per_run(limits, runs), strict=True)
    inside = sum((low is None or low <= a) and (high is None or a <= high) for low, a, high in bounds)
    return 100 * inside / runs


def scaling(thinking_tokens: Sequence[float], accuracies_percent: Sequence[float]) -> float | None:
    """Mean slope over all pairs of runs, percentage points per doubling of thinking tokens (section 3.2, equation 2).

    The paper does not state its axis; log2 of the thinking tokens reproduces its Table 3. Runs with equal thinking
    tokens count as one run with their mean accuracy, and runs without thinking are left out. The result is None if
    fewer than two runs remain.
    """
    merged = defaultdict(list)
    for tokens, accuracy in zip(thinking_tokens, accuracies_percent, strict=True):
        if tokens > 0:
            merged[tokens].append(accuracy)
    points = sorted((log2(tokens), sum(same) / len(same)) for tokens, same in merged.items())
    slopes = [(fb - fa) / (b - a) for (a, fa), (b, fb) in combinations(points, 2)]
    return sum(slopes) / len(slopes) if slopes else None


def performance(accuracies_percent: Sequence[float]) -> float | None:
    """Best accuracy of any run, in percent; None without runs (paper section 3.2, equation 3)."""
    return max(accuracies_percent, default=None)


def wilson_interval(share: float, trials: float) -> tuple[float, float]:
    """95% interval, in [0, 1], of a proportion `share` seen in `trials` (Wilson 1927, JASA 22: 209-212)."""
    centre = (share + Z95**2 / (2 * trials)) / (1 + Z95**2 / trials)
    half = Z95 * sqrt(share * (1 - share) / trials + Z95**2 / (4 * trials**2)) / (1 + Z95**2 / trials)
    # at 0 and 1 the interval ends there exactly; rounding must not carry it past
    return (0.0 if share == 0 else centre - half), (1.0 if share == 1 else centre + half)


def mean_interval(shares: Sequence[float], draws: float) -> tuple[float, float]:
    """95% interval, in [0, 1], of the mean of `shares` [problems], each the mean of a problem's samples.

    `draws` is the number of samples of all problems. The interval includes the choice of problems and sampling noise.
    It is Wilson's for the number of trials that gives the mean its observed variance (effective sample size, Korn and
    Graubard 1998, Survey Methodology 24: 193-201). That number is the number of problems if the samples of each problem
    agree, and `draws` if problems do not differ.
    """
    mean = fmean(shares)
    variance = fmean((share - mean) ** 2 for share in shares)
    trials: float = len(shares)
    if 0 < mean < 1:
        trials = min(trials * mean * (1 - mean) / variance, draws) if variance else draws
    return wilson_interval(mean, trials)


def difference_interval(first: float, second: float, trials: tuple[int, int]) -> tuple[float, float]:
    """95% interval, in [-1, 1], of `second` - `first`, two independent proportions over `trials` each.

    It combines two Wilson intervals (Newcombe 1998, Statistics in Medicine 17: 873-890, method 10).
    """
    (low1, high1), (low2, high2) = (wilson_interval(*seen) for seen in zip((first, second), trials, strict=True))
    difference = second - first
    return difference - hypot(second - low2, high1 - first), difference + hypot(high2 - second, first - low1)


def paired_bootstrap(first: Sequence[float], second: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95% interval of the mean of `second` - `first` [problems], in their unit, from resampled problems.

    Both results of a problem are resampled together (paper Table 2: 10,000 resamples). Equal seeds give equal
    intervals.
    """
    differences = np.asarray(second, float) - np.asarray(first, float)
    rng, problems = np.random.default_rng(seed), len(differences)
    draws = (rng.integers(problems, size=(BLOCK, problems)) for _ in range(RESAMPLES // BLOCK))
    means = np.concatenate([differences[drawn].mean(axis=1) for drawn in draws])
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def few_differ(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether too few problems, less than ENOUGH, differ from the most common difference for a bootstrap.

    Resamples contain only what was observed: if no pair differs, or all differ by the same amount, they are all equal.
    """
    differences = [round(b - a, DIGITS) for a, b in zip(first, second, strict=True)]
    return len(differences) - max(Counter(differences).values()) < ENOUGH


def cautious_interval(first: Sequence[float], second: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95% interval, in [-1, 1], of the mean of `second` - `first` [problems], which is valid if few problems differ.

    Problems get random weights (Rubin 1981, Annals of Statistics 9: 130-134), together with one that was not observed:
    for the lower end one that is lost in full, for the upper end one that is gained in full. So if no pair differs, the
    ends are Clopper and Pearson's for 0 successes, 1 - 0.025 ** (1 / problems). If pairs are gained or lost in full,
    the interval excludes 0 exactly when McNemar's exact test rejects at 5%.
    """
    differences = np.asarray(second, float) - np.asarray(first, float)
    problems, rng = len(differences), np.random.default_rng(seed)
    if (differences == differences[0]).all():
        unseen, seen = 1 - TAIL ** (1 / problems), float(differences[0])
        return seen - unseen * (1 + seen), seen + unseen * (1 - seen)
    means = []
    for _ in range(RESAMPLES // BLOCK):
        weights = rng.standard_exponential((BLOCK, problems + 1))
        weights /= weights.sum(axis=1, keepdims=True)
        means.append(np.stack([weights[:, :-1] @ differences + weights[:, -1] * end for end in (-1, 1)]))
    lower, upper = np.concatenate(means, axis=1)
    return float(np.quantile(lower, TAIL)), float(np.quantile(upper, 1 - TAIL))


def pass_at_k(right: int, samples: int, k: int) -> float:
    """Probability that at least one of k samples is right, if `right` of `samples` are.

    This is the unbiased estimator (Chen et al. 2021, arXiv 2107.03374, section 2.1). It lacks the noise of taking the
    first k samples, as the reference's cov@k does.
    """
    return 1 - comb(samples - right, k) / comb(samples, k)


def majority_accuracy(votes: Sequence[Hashable], gold: Hashable, k: int) -> float:
    """Probability that the most common of k votes, drawn from `votes` without replacement, is `gold`.

    The result is exact over all subsets and orders, without the noise of taking the first k samples, as the reference's
    maj@k does. The first answer wins a tie, so over all orders each tied answer is equally likely. None is no vote.
    """
    counts = Counter(votes)
    blanks, right = counts.pop(None, 0), counts.pop(gold, 0)
    favourable = 0.0
    for c in range(1, min(k, right) + 1):
        # ways[drawn, ties]: draws of votes for other answers, none more than c times, `ties` of them exactly c times
        ways = {(b, 0): comb(blanks, b) for b in range(min(blanks, k - c) + 1)}
        for count in counts.values():
            longer: dict[tuple[int, int], int] = defaultdict(int)
            for (drawn, ties), n in ways.items():
                for j in range(min(count, c, k - c - drawn) + 1):
                    longer[drawn + j, ties + (j == c)] += n * comb(count, j)
            ways = longer
        favourable += comb(right, c) * sum(n / (ties + 1) for (drawn, ties), n in ways.items() if drawn == k - c)
    return favourable / comb(len(votes), k)


def _per_run(bounds: Bounds, runs: int) -> Sequence[float | None]:
    return [bounds] * runs if bounds is None or isinstance(bounds, (int, float)) else bounds
