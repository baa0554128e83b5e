"""Groups records into runs, and computes the paper's metrics over them."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, Literal

from s1_jax.config.instructions import FAMILIES, parse_instruction
from s1_jax.records import Record
from s1_jax.records.names import search_name
from s1_jax.records.schema import value_of
from s1_jax.records.setting import Setting, string_label
from s1_jax.records.verdicts import has_class, if_undecided_right, is_undecided
from s1_jax.reporting.metrics import control, majority_accuracy, mean_interval, pass_at_k, performance, scaling
from s1_jax.tasks.classes import text_classes

Interval = tuple[float, float]
Bounds = tuple[float | None, float | None]
ScalingOver = Literal["within", "across"]


@dataclasses.dataclass(frozen=True)
class OfSamples:
    """An accuracy over k samples of a problem taken together; thinking tokens are those of all k."""

    k: int
    thinking_tokens: float
    accuracy: float  # percent
    interval: Interval  # percent, 95%
    accuracy_if_undecided_right: float  # percent; the most that a judge could raise it to


@dataclasses.dataclass(frozen=True)
class Run:
    """One setting over all problems of a task."""

    setting: Setting
    problems: int
    records: int
    samples: int  # per problem and seed
    seeds: int
    thinking_tokens: float  # mean per record
    answer_tokens: float  # mean per record
    accuracy: float  # percent; mean over samples and seeds, then over problems
    interval: Interval  # percent, 95%: includes the choice of problems and sampling noise (metrics.mean_interval)
    between_seeds: float | None  # percentage points: standard deviation of the seeds' accuracies
    ends: dict[str, int]
    answer_ends: dict[str, int]
    ignores_used: float  # mean per record
    without_answer: int  # records
    tries: float  # mean per record, more than 1 with rejection sampling
    tried_tokens: float  # thinking tokens of all tries, mean per record
    undecided: int  # records whose answer no rule could decide; they count as wrong until a judge decides
    accuracy_if_undecided_right: float  # percent; equal to `accuracy` if nothing is undecided
    majority: tuple[OfSamples, ...]  # the most common answer is right; empty for one sample per problem and seed
    pass_at: tuple[OfSamples, ...]  # any answer is right; empty for one sample per problem and seed
    compared_as_text: int = 0  # problems with votes whose records have no `answer_class`

    @property
    def draws(self) -> str:
        """Numbers of samples and seeds per problem in words, as "8 samples, 3 seeds"; empty for one."""
        counts = ((self.samples, "samples"), (self.seeds, "seeds"))
        return ", ".join(f"{count} {name}" for count, name in counts if count > 1)


@dataclasses.dataclass(frozen=True)
class Method:
    """Runs that differ only in their thinking budget, and the three metrics over them."""

    name: str
    runs: int
    control: float | None  # percent
    scaling: float | None  # percentage points per doubling of thinking tokens
    performance: float | None  # percent
    performance_if_undecided_right: float | None  # percent


def summarize(records: Iterable[Record]) -> list[Run]:
    """Group records into one run per setting, sorted by sampling, ignore string, ignore count and budget."""
    grouped: dict[Setting, list[Record]] = defaultdict(list)
    for record in records:
        grouped[Setting.of(record)].append(record)
    return [_run(setting, grouped[setting]) for setting in sorted(grouped, key=_order)]


def methods(runs: Sequence[Run], scaling_over: ScalingOver) -> list[Method]:
    """Compute Control, Scaling and Performance of each family of forced runs.

    The runs of a family share ignore string, minimum and sampling; runs that ignore no end belong to the family of
    every string. With `within` they share the ignore count too. Control asks whether the mean of a run keeps its own
    minimum and maximum. Runs with an instruction form their own families, separate with and without a maximum. The
    length that an instruction asks for is their maximum (paper, appendix D.1); for "short" and "long", the run without
    an instruction is the bound and must exist. Searches choose among runs of many lengths and belong to no family.
    """
    without_instruction = {run.setting: run.thinking_tokens for run in runs if run.setting.instruction is None}
    families: dict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in runs:
        if run.setting.forcing and run.setting.search is None:
            families[_family(run.setting, scaling_over)].append(run)
    if scaling_over == "across":
        for plain in [family for family in families if family[-1] is None]:
            strings = [family for family in families if family[:-1] == plain[:-1] and family != plain]
            for family in strings:
                families[family] = families[plain] + families[family]
            if strings:
                del families[plain]
    return [_method(family, scaling_over, without_instruction) for family in families.values()]


def to_dict(records: Sequence[Record], runs: Sequence[Run], found: Sequence[Method], scaling_over: ScalingOver) -> dict:
    """Return the contents of `summary.json`."""
    return {
        "tasks": sorted({str(record["task"]) for record in records}),
        "records": len(records),
        "runs": [{"label": run.setting.label, "draws": run.draws, **dataclasses.asdict(run)} for run in runs],
        "scaling_over": scaling_over,
        "methods": [dataclasses.asdict(method) for method in found],
    }


def _run(setting: Setting, records: Sequence[Record]) -> Run:
    by_problem: dict[Any, list[Record]] = defaultdict(list)
    for record in records:
        by_problem[record["problem_id"]].append(record)
    shares = [_share(drawn) for drawn in by_problem.values()]
    shares_at_most = [_share(map(if_undecided_right, drawn)) for drawn in by_problem.values()]
    tokens = fmean(record["num_thinking_tokens"] for record in records)
    accuracy, interval = _percent(shares, len(records))
    # the largest seed counts, so that an unfinished seed removes no k
    samples = min(max(Counter(map(_seed, drawn)).values()) for drawn in by_problem.values())
    voting = list(by_problem.values()) if samples > 1 else []
    return Run(
        setting=setting,
        problems=len(by_problem),
        records=len(records),
        samples=samples,
        seeds=len(set(map(_seed, records))),
        thinking_tokens=tokens,
        answer_tokens=fmean(record["num_answer_tokens"] for record in records),
        accuracy=accuracy,
        interval=interval,
        between_seeds=_between_seeds(records),
        ends=dict(Counter(record["end"] for record in records)),
        answer_ends=dict(Counter(record["answer_end"] for record in records)),
        ignores_used=fmean(record["ignores_used"] for record in records),
        without_answer=sum(record["extracted_answer"] is None for record in records),
        tries=fmean(value_of(record, "tries") for record in records),
        tried_tokens=fmean(value_of(record, "tried_tokens") for record in records),
        undecided=sum(map(is_undecided, records)),
        accuracy_if_undecided_right=100 * fmean(shares_at_most),
        majority=tuple(_of_samples(voting, samples, tokens, _majority)),
        pass_at=tuple(_of_samples(voting, samples, tokens, _passed)),
        compared_as_text=sum(not all(map(has_class, drawn)) for drawn in voting),
    )


def _share(records: Iterable[Record]) -> float:
    return fmean(bool(record["correct"]) for record in records)


def _seed(record: Record) -> int:
    return record["seed"]


def _between_seeds(records: Sequence[Record]) -> float | None:
    """Compute the standard deviation between seeds; None for one seed, or if seeds differ in their problems."""
    seeds: dict[int, dict[Any, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        seeds[_seed(record)][record["problem_id"]].append(record)
    if len(seeds) < 2 or len({frozenset(problems) for problems in seeds.values()}) > 1:
        return None
    return stdev(100 * fmean(map(_share, problems.values())) for problems in seeds.values())


Votes = Sequence[tuple[Hashable, bool]]  # (class of an answer, None for no answer; whether it is right)


def _of_samples(
    problems: Sequence[Sequence[Record]], samples: int, tokens: float, share: Callable[[Votes, int], float]
) -> Iterable[OfSamples]:
    """Yield accuracies for k = 1, 2, 4, ... up to the number of samples of one seed.

    The k samples are drawn from those of all seeds, because more samples give a better estimate.
    """
    votes = [_votes(records) for records in problems]
    at_most = [_votes([if_undecided_right(record) for record in records]) for records in problems]
    for k in (2**i for i in range(samples.bit_length())) if votes else ():
        draws = sum(map(len, votes)) / k
        shares = [share(of_problem, k) for of_problem in votes]
        pairs = zip(shares, votes, at_most, strict=True)
        upper = fmean(one if now == then else share(then, k) for one, now, then in pairs)
        yield OfSamples(k, k * tokens, *_percent(shares, draws), 100 * upper)


def _majority(votes: Votes, k: int) -> float:
    """Probability that the winner of k votes is right; the first answer of the winning class stands for the class.

    Answers of a class may differ in whether they are right, because equality is not transitive and a judge decides on
    single answers. Each answer of the class is equally likely to be the first.
    """
    right: dict[Hashable, list[bool]] = defaultdict(list)
    for name, is_right in votes:
        right[name].append(is_right)
    classes = [name for name, _ in votes]
    contenders = {name: fmean(members) for name, members in right.items() if name is not None and any(members)}
    return sum(share * majority_accuracy(classes, name, k) for name, share in contenders.items())


def _passed(votes: Votes, k: int) -> float:
    return pass_at_k(sum(is_right for _, is_right in votes), len(votes), k)


def _votes(records: Sequence[Record]) -> Votes:
    """Return the votes of a problem; if any record lacks its class, all are compared as numbers and texts."""
    if all(map(has_class, records)):
        classes = [record.get("answer_class") for record in records]
    else:
        classes = text_classes([record["extracted_answer"] for record in records])
    return [(name, bool(record["correct"])) for name, record in zip(classes, records, strict=True)]


def _percent(shares: Sequence[float], draws: float) -> tuple[float, Interval]:
    """Return the mean over problems and its 95% interval, in percent."""
    low, high = mean_interval(shares, draws)
    return 100 * fmean(shares), (100 * low, 100 * high)


def _sampling(setting: Setting) -> tuple[Any, ...]:
    return setting.min_thinking_tokens, setting.temperature, setting.top_k, setting.top_p, setting.min_p


def _family(setting: Setting, scaling_over: ScalingOver) -> tuple[Any, ...]:
    count = setting.num_ignore if scaling_over == "within" else None
    return (*_sampling(setting), setting.max_tries > 1, instruction_label(setting), count, setting.ignore_string)


def instruction_label(setting: Setting) -> str | None:
    """Name the family of a setting with an instruction, with or without a maximum; None without an instruction."""
    if setting.instruction is None:
        return None
    forced = "" if setting.max_thinking_tokens is None else " + budget forcing"
    return parse_instruction(setting.instruction).family + forced


def _method(runs: Sequence[Run], scaling_over: ScalingOver, without_instruction: Mapping[Setting, float]) -> Method:
    settings = [run.setting for run in runs]
    last = settings[-1]
    name = string_label(last.ignore_string) if last.num_ignore else instruction_label(last) or "no end ignored"
    if scaling_over == "within" and last.num_ignore:
        name = f"{last.num_ignore} x {name}"
    if last.num_ignore and last.instruction is not None:
        name = f"{instruction_label(last)}, {name}"
    if last.max_tries > 1:
        name = "rejection sampling" + (f", {name}" if last.num_ignore or last.instruction else "")
    if last.min_thinking_tokens > 1:
        name += f", min {last.min_thinking_tokens}"
    if last.temperature:
        name += f", T {last.temperature:g}"
    tokens, accuracies = [run.thinking_tokens for run in runs], [run.accuracy for run in runs]
    return Method(
        name=name,
        runs=len(runs),
        control=_control(tokens, [_bounds(setting, without_instruction) for setting in settings]),
        scaling=scaling(tokens, accuracies),
        performance=performance(accuracies),
        performance_if_undecided_right=performance([run.accuracy_if_undecided_right for run in runs]),
    )


def _control(tokens: Sequence[float], bounds: Sequence[Bounds | None]) -> float | None:
    known = [pair for pair in bounds if pair is not None]
    if len(known) < len(bounds):
        return None
    return control(tokens, [most for _, most in known], [least for least, _ in known])


def _bounds(setting: Setting, without_instruction: Mapping[Setting, float]) -> Bounds | None:
    """Return the fewest and the most thinking tokens of a run; None if they depend on a run that does not exist."""
    least = setting.min_thinking_tokens if setting.min_thinking_tokens > 1 else None
    most = setting.max_thinking_tokens
    if setting.instruction is None or most is not None:
        return least, most
    instruction = parse_instruction(setting.instruction)
    if instruction.thinking_tokens is not None:
        return least, instruction.thinking_tokens
    usual = without_instruction.get(dataclasses.replace(setting, instruction=None))
    if usual is None:
        return None
    return (least, usual) if instruction.kind == "short" else (usual, most)


def _order(setting: Setting) -> tuple[Any, ...]:
    budget = float("inf") if setting.max_thinking_tokens is None else setting.max_thinking_tokens
    instruction = _instruction_order(setting.instruction)
    rest = str(setting.ignore_string or ""), setting.num_ignore, instruction, setting.max_tries, budget
    search = setting.search
    searched = (search.method, search_name(search, setting.reward), search.width, setting.label) if search else ()
    return (*_sampling(setting), not setting.forcing, searched, *rest)


def _instruction_order(words: str | None) -> tuple[Any, ...]:
    if words is None:
        return ()
    kind, limit = parse_instruction(words)
    return FAMILIES[kind], kind == "long", limit or 0
