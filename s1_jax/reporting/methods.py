"""Search methods, which spend several runs on a problem, compared with budget forcing by cost and accuracy."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean

from s1_jax.config import SearchConfig
from s1_jax.records import Record
from s1_jax.records.names import FORCED, KINDS, search_kind, search_name
from s1_jax.records.setting import Setting
from s1_jax.records.verdicts import if_undecided_right, is_undecided
from s1_jax.reporting.metrics import mean_interval
from s1_jax.reporting.summary import Interval
from s1_jax.reporting.table import NOTES, UNDECIDED, UP_TO, accuracy_cells, without_empty
from s1_jax.runtime.tables import align

HEADER = (
    *("method", "size", "accuracy", UP_TO, "95% interval", "problems", "generated tokens", "longest path"),
    *("reward tokens", "decoding s", "reward s", "died out", UNDECIDED),
)


@dataclasses.dataclass(frozen=True)
class MethodRun:
    """One method at one size over a task's problems; tokens and seconds are means per problem."""

    kind: str  # for instance "REBASE" or "budget forcing"
    name: str  # the kind, with what distinguishes it from others of its kind
    setting: Setting
    problems: int
    accuracy: float  # percent
    interval: Interval  # percent, 95% (metrics.mean_interval)
    generated_tokens: float  # of all runs together
    longest_path_tokens: float  # thinking tokens of the longest run
    reward_tokens: float | None
    decoding_seconds: float | None  # None for plain runs, which are not timed one by one
    reward_seconds: float | None
    died_out: int  # searches in which no run ended
    cut_texts: float  # texts that were too long for the reward model
    undecided: int  # records whose answer no rule could decide, counted as wrong
    accuracy_if_undecided_right: float  # percent

    @property
    def seconds(self) -> float | None:
        """Seconds of decoding and of scoring together."""
        return None if self.decoding_seconds is None else self.decoding_seconds + (self.reward_seconds or 0)


def method_runs(records: Iterable[Record]) -> list[MethodRun]:
    """Group records into runs of searches and of budget forcing, sorted by method and by generated tokens.

    Runs with an instruction, without forcing, or with rejection sampling are left out.
    """
    grouped: dict[Setting, list[Record]] = defaultdict(list)
    for record in records:
        grouped[Setting.of(record)].append(record)
    runs = [_run(setting, members) for setting, members in grouped.items() if setting.search or _plain(setting)]
    return sorted(runs, key=lambda run: (KINDS.index(run.kind), run.name, run.generated_tokens))


def format_methods(runs: Sequence[MethodRun]) -> str:
    """Format a table with a line for each run, and notes on it."""
    rows = []
    for run in runs:
        size = str(run.setting.search.width) if run.setting.search else run.setting.label
        seconds = ("-" if one is None else f"{one:,.2f}" for one in (run.decoding_seconds, run.reward_seconds))
        rows.append(
            (
                *(run.name, size, *accuracy_cells(run.accuracy, run.accuracy_if_undecided_right, run.interval)),
                *(str(run.problems), f"{run.generated_tokens:,.1f}", f"{run.longest_path_tokens:,.1f}"),
                *("-" if run.reward_tokens is None else f"{run.reward_tokens:,.1f}", *seconds, str(run.died_out)),
                str(run.undecided or ""),
            )
        )
    table = without_empty([HEADER, *rows], (UP_TO, UNDECIDED))
    notes = [
        "Tokens and seconds: means per problem. The seconds of a batch are divided among the tokens that it produced"
    ]
    if cut := [run for run in runs if run.cut_texts]:
        worst = max(cut, key=lambda run: run.cut_texts)
        notes.append(f"Texts that were too long for the reward model, and cut: {worst.cut_texts:.1f} per problem")
    if UNDECIDED in table[0]:
        notes.append(NOTES[UNDECIDED])
    return "\n".join([align(table), *notes])


def _plain(setting: Setting) -> bool:
    return setting.forcing and setting.instruction is None and setting.max_tries == 1


def _search_name(setting: Setting, search: SearchConfig) -> str:
    """Name a search, with the budget of its runs if that is set."""
    budget = dataclasses.replace(setting, search=None, temperature=0.0)
    asked = [] if budget == dataclasses.replace(budget, max_thinking_tokens=None, num_ignore=0) else [budget.label]
    return ", ".join([search_name(search, setting.reward), *asked])


def _run(setting: Setting, records: Sequence[Record]) -> MethodRun:
    right: dict[str, list[bool]] = defaultdict(list)
    at_most: dict[str, list[bool]] = defaultdict(list)
    for record in records:
        right[str(record["problem_id"])].append(bool(record["correct"]))
        at_most[str(record["problem_id"])].append(bool(if_undecided_right(record)["correct"]))
    shares = [fmean(of_problem) for of_problem in right.values()]
    low, high = mean_interval(shares, len(records))
    search, sampled = setting.search, f", T {setting.temperature:g}" if setting.temperature else ""
    thinking = fmean(record["num_thinking_tokens"] for record in records)
    answer = fmean(record["num_answer_tokens"] for record in records)

    def mean(name: str) -> float:
        return fmean(record[name] for record in records)

    return MethodRun(
        kind=search_kind(search) if search else FORCED,
        name=_search_name(setting, search) if search else FORCED + sampled,
        setting=setting,
        problems=len(right),
        accuracy=100 * fmean(shares),
        interval=(100 * low, 100 * high),
        generated_tokens=mean("generated_tokens") if search else thinking + answer,
        longest_path_tokens=mean("longest_path_tokens") if search else thinking,
        reward_tokens=mean("reward_tokens") if search else None,
        decoding_seconds=mean("decoding_seconds") if search else None,
        reward_seconds=mean("reward_seconds") if search else None,
        died_out=sum(not record["leaves"] for record in records) if search else 0,
        cut_texts=mean("cut_texts") if search else 0.0,
        undecided=sum(map(is_undecided, records)),
        accuracy_if_undecided_right=100 * fmean(map(fmean, at_most.values())),
    )
