"""Compares a run of an s1 model with the paper's tables: `python -m s1_jax.evaluate --parity RUN_DIR`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from s1_jax.config import S1
from s1_jax.config.instructions import parse_instruction
from s1_jax.errors import UserError
from s1_jax.records.options import format_of
from s1_jax.records.results import read_run
from s1_jax.records.setting import Setting
from s1_jax.reporting.metrics import difference_interval
from s1_jax.reporting.paper import (
    ACCURACIES,
    BENCHMARKS,
    METHODS,
    NO_MAXIMUM,
    REJECTION_TEMPERATURE,
    AccuracyRow,
    Benchmark,
    Kind,
    Wanted,
    benchmark_of,
)
from s1_jax.reporting.summary import Method, Run, methods, summarize
from s1_jax.reporting.table import undecided_note
from s1_jax.runtime.storage import as_path
from s1_jax.runtime.tables import align
from s1_jax.runtime.terminal import say

HEADER = ("row of the paper", "paper", "here", "difference", "95% interval", "tokens: paper", "here", "setting here")
METHOD_HEADER = ("method (Table 3)", "Control: paper", "here", "Scaling: paper", "here", "Performance: paper", "here")
ABSENT = "not in this run"
UNKNOWN = "-"  # a metric that needs more runs


def command(argv: Sequence[str]) -> None:
    """Print the results of a run folder beside the paper's. Raises UserError if the paper lacks the task."""
    if len(argv) != 1:
        raise UserError("usage: python -m s1_jax.evaluate --parity RUN_DIR")
    records, config = read_run(as_path(argv[0]))
    task = str(records[0]["task"])
    index = benchmark_of(task)
    if index is None:
        names = ", ".join(benchmark.name for benchmark in BENCHMARKS)
        raise UserError(f"{argv[0]} is of the task {task}, which the paper does not have; it has {names}")
    runs = summarize(records)
    sections = [f"{argv[0]} beside s1 (arXiv 2501.19393), {BENCHMARKS[index].name}", format_rows(runs, index)]
    if index == 0:  # Table 3 covers only AIME 2024
        ends_at_no_step = "<|im_start|>0" in format_of(config).end_markers
        sections.append(format_methods({row.kind: method_of(row.kind, runs, ends_at_no_step) for row in METHODS}))
    differing = [("", "paper", "here"), *set_up(config, runs, BENCHMARKS[index])]
    if note := undecided_note(argv[0], runs):
        sections.append(note.rstrip())
    sections.append(f"What differs in the set-up:\n{align_left(differing)}")
    say("\n\n".join(sections))


def format_rows(runs: Sequence[Run], index: int) -> str:
    """Format the paper's rows of one benchmark beside the matching runs, then name the runs without a row."""
    found = [counterpart(row, runs) for row in ACCURACIES]
    rows = [_line(row, run, index) for row, run in zip(ACCURACIES, found, strict=True)]
    others = [run.setting.label for run in runs if run not in found]
    return (
        f"{align([HEADER, *rows])}\n"
        "Differences are in percentage points; the interval treats both accuracies as independent samples of problems."
        + (f"\nSettings without a row in the paper: {'; '.join(others)}" if others else "")
    )


def counterpart(row: AccuracyRow, runs: Sequence[Run]) -> Run | None:
    """Return the run that matches a row of the paper, the best of several; None if there is none."""
    found = [run for run in runs if any(matches(run.setting, wanted) for wanted in row.wanted)]
    return max(found, key=lambda run: (run.accuracy, run.setting.max_thinking_tokens or inf), default=None)


def matches(setting: Setting, wanted: Wanted) -> bool:
    """Whether a setting equals the wanted one in everything that matters."""
    return bare(setting) == dataclasses.replace(PLAIN, **dataclasses.asdict(wanted))


def bare(setting: Setting) -> Setting:
    """Drop what has no effect from a setting: a maximum beyond the context, sampling options at temperature 0."""
    nothing: dict[str, Any] = {"min_thinking_tokens": max(setting.min_thinking_tokens, 1)}
    if setting.max_thinking_tokens is None:
        nothing["newline_grace"] = 0.0
    elif setting.max_thinking_tokens >= NO_MAXIMUM:
        nothing["max_thinking_tokens"] = None
    if setting.max_new_tokens is not None and setting.max_new_tokens >= NO_MAXIMUM:
        nothing["max_new_tokens"] = None
    if setting.temperature == 0:
        nothing |= {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
    if isinstance(setting.ignore_string, tuple) and len(set(setting.ignore_string)) == 1:
        nothing["ignore_string"] = setting.ignore_string[0]
    return dataclasses.replace(setting, **nothing)


PLAIN = Setting(True, 1, None, 0, None, 0.0, 0, 1.0, 0.0)


def kind_of(setting: Setting, ends_at_no_step: bool) -> Kind | None:
    """Return the method of Table 3 to which a bare setting belongs; None if there is none.

    `ends_at_no_step` says that the run's format ends the thinking when no step is left, as the paper forces steps.
    """
    maximum, words = setting.max_thinking_tokens, setting.instruction
    if words is None and setting.max_tries > 1:
        sampled = dataclasses.replace(PLAIN, temperature=REJECTION_TEMPERATURE, max_tries=setting.max_tries)
        wanted = maximum is not None and setting == dataclasses.replace(sampled, max_thinking_tokens=maximum)
        return "rejection" if wanted else None
    if words is None:
        ignored: dict[str, Any] = {
            "num_ignore": setting.num_ignore,
            "ignore_string": "Wait" if setting.num_ignore else None,
        }
        return "forcing" if setting == dataclasses.replace(PLAIN, max_thinking_tokens=maximum, **ignored) else None
    if setting != dataclasses.replace(PLAIN, max_thinking_tokens=maximum, instruction=words):
        return None
    instruction = parse_instruction(words)
    if instruction.limit is None:
        return "class" if maximum is None else None
    if maximum is not None and maximum != instruction.thinking_tokens:
        return None
    forced = maximum is not None or (instruction.kind == "step" and ends_at_no_step)
    if instruction.kind == "step":
        return "step, forced" if forced else "step"
    return "token, forced" if forced else "token"


def method_of(kind: Kind, runs: Sequence[Run], ends_at_no_step: bool) -> Method | None:
    """Compute the metrics of a row of Table 3 over the runs of its kind; None if there are none.

    Short and long prompts are compared with the run without a prompt, which does not count as one of their runs.
    """
    plain = [dataclasses.replace(run, setting=bare(run.setting)) for run in runs]
    own = [run for run in plain if kind_of(run.setting, ends_at_no_step) == kind]
    if kind == "forcing" and not any(run.setting.num_ignore for run in own):
        return None
    without = [run for run in plain if run.setting == PLAIN] if kind == "class" else []
    found = [method for method in methods([*own, *without], "across") if method.runs == len(own)]
    return found[0] if own else None


def format_methods(found: Mapping[Kind, Method | None]) -> str:
    """Format Table 3 beside the methods of the run, which are given by kind."""
    rows = []
    for row in METHODS:
        method = found[row.kind]
        ours = (method.control, method.scaling, method.performance) if method else (None, None, None)
        cells = [(UNKNOWN if method else ABSENT) if value is None else f"{value:.1f}" for value in ours]
        paper = (f"{row.control}", f"{row.scaling}", f"{row.performance}")
        rows.append((row.name, *(cell for pair in zip(paper, cells, strict=True) for cell in pair)))
    return align([METHOD_HEADER, *rows])


def set_up(config: Mapping[str, Any], runs: Sequence[Run], benchmark: Benchmark) -> list[tuple[str, str, str]]:
    """List how this run differs, or may differ, from the paper's evaluation: (name, paper, this run)."""
    model, task, stored = (config.get(name) or {} for name in ("model", "task", "stored"))
    markers = format_of(config)
    always = [
        ("model", "s1-32B", str(model.get("path"))),
        ("engine", "vLLM, by lm-evaluation-harness", "s1_jax"),
        ("chat template", "Qwen2.5-Instruct's, default system message", "the model folder's own"),
        ("answers", "exact, or gpt-4o-mini's judgement where not a number", "the task's own rule"),
        ("data set", benchmark.source, f"{task.get('path') or 'the default'}, revision not recorded"),
    ]
    exact = [
        ("products", "float32", model.get("dtype")),
        ("weights kept in", "float32", stored.get("weights")),
        ("cache kept in", "float32", stored.get("cache")),
        ("problems", benchmark.problems, max(run.problems for run in runs)),
        ("max_model_len", 32768, config.get("max_model_len")),
        ("max_answer_tokens", 32768, config.get("max_answer_tokens")),
        ("draft_tokens", 0, config.get("draft_tokens")),
        (
            "marks of thinking and answer",
            "s1's",
            "s1's" if markers == S1 else f"{markers.think_start} ... {markers.answer_start}",
        ),
    ]
    if any(not run.setting.forcing for run in runs):
        always.append(("without forcing", "no start marker after the prompt", "starts after the start marker"))
    differing = [(name, str(paper), ours) for name, paper, ours in exact if paper != ours]
    return always + [(name, paper, "not recorded" if ours is None else str(ours)) for name, paper, ours in differing]


def align_left(rows: Sequence[Sequence[str]]) -> str:
    """Format rows as a table whose columns are all aligned left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _line(row: AccuracyRow, run: Run | None, index: int) -> tuple[str, ...]:
    paper, tokens = row.accuracy[index], row.tokens[index]
    known = (f"Table {row.table}: {row.name}", _number(paper, ".1f"))
    if run is None or paper is None:
        return (*known, "-", "-", "-", _number(tokens, ",.0f"), "-", ABSENT)
    trials = BENCHMARKS[index].problems
    exact = round(paper / 100 * trials) / trials  # undoes the rounding of the printed value
    low, high = difference_interval(exact, run.accuracy / 100, (trials, run.problems))
    return (
        *known,
        f"{run.accuracy:.1f}",
        f"{run.accuracy - 100 * exact:+.1f}",
        f"{100 * low:+.1f} to {100 * high:+.1f}",
        _number(tokens, ",.0f"),
        f"{run.thinking_tokens:,.0f}",
        run.setting.label,
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
