"""The settings that a sweep asks for, and the records that it plans."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import jax
from transformers import PreTrainedTokenizerBase

from s1_jax.checkpoints import hf
from s1_jax.chips import resolve_dtype
from s1_jax.config import BudgetConfig, EvaluateConfig, MeshConfig, SearchConfig, SettingConfig
from s1_jax.config.instructions import instructed
from s1_jax.data.chat import STOP_TOKENS, prompt_ids
from s1_jax.decoding.core.budget import NO_LIMIT
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.engine import context_length
from s1_jax.errors import UserError
from s1_jax.records import Record, make
from s1_jax.records.setting import record_key
from s1_jax.sharding import devices_for
from s1_jax.tasks import Problem, Task


def sweep_settings(config: EvaluateConfig) -> list[SettingConfig]:
    """Return the settings of the grid, then the single ones. Raises UserError if there are none.

    Settings that differ only in the number of samples, or only in the ignore string while no end is ignored, are
    merged.
    """
    sweep = config.sweep
    grid = [
        SettingConfig(
            BudgetConfig(
                sweep.min_thinking_tokens,
                maximum,
                count,
                string,
                newline_grace=sweep.newline_grace if maximum else 0.0,
                end_bias=sweep.end_bias if maximum is not None else 0.0,
                notice_fractions=sweep.notice_fractions if maximum is not None else (),
                notices=sweep.notices if maximum is not None else (),
                banned_words=sweep.banned_words,
                max_repetitions=sweep.max_repetitions,
            ),
            config.sampling,
            config.samples,
            instruction,
            sweep.max_tries,
        )
        for instruction, string, count, maximum in product(
            sweep.instructions, sweep.ignore_strings, sweep.num_ignore, sweep.max_thinking_tokens
        )
    ]
    methods = [
        dataclasses.replace(
            setting,
            search=dataclasses.replace(config.search, method=method, width=width),
            reward="process" if config.rewards.process else "outcome" if config.rewards.outcome else None,
        )
        for setting, method, width in product(grid, sweep.methods, sweep.widths)
    ]
    settings: dict[Hashable, SettingConfig] = {}
    for setting in (*grid, *methods, *sweep.extra):
        string = setting.budget.ignore_string if setting.budget.num_ignore else ""
        key = dataclasses.replace(setting, budget=dataclasses.replace(setting.budget, ignore_string=string), samples=1)
        settings[key] = max(settings.get(key, setting), setting, key=lambda one: one.samples)
    if not settings:
        raise UserError("the sweep is empty: each of max_thinking_tokens, num_ignore and ignore_strings needs a value")
    return list(settings.values())


def with_model_defaults(config: EvaluateConfig, source: Path) -> EvaluateConfig:
    """Fill in the options that depend on the model and the machine: `max_model_len` and dtypes."""
    length = context_length(hf.load_config(source)) if config.max_model_len is None else config.max_model_len
    model: dict[str, Any] = {"dtype": resolve_dtype(config.model.dtype).name}
    stored = config.stored.resolved(model["dtype"])
    filled = dataclasses.replace(config, max_model_len=length, stored=stored)
    return dataclasses.replace(filled, model=dataclasses.replace(config.model, **model))


def seeds_of(config: EvaluateConfig, setting: SettingConfig) -> tuple[int, ...]:
    """Return the seeds of a setting: only the first if it is greedy."""
    return config.seeds if setting.sampling.temperature > 0 else config.seeds[:1]


@dataclasses.dataclass(frozen=True)
class PlannedRecord:
    """One record of a sweep before it is decoded: its request, and the fields that are already known."""

    problem: Problem
    request: Request
    known: Record
    search: SearchConfig | None = None  # if set, several runs, of which one is chosen

    @property
    def max_tries(self) -> int:
        """Most tries at a record; more than 1 means rejection sampling."""
        return self.known["max_tries"]

    @property
    def key(self) -> Hashable:
        """Key that identifies the record among all records of the run."""
        return record_key(self.known)


def plan_records(
    config: EvaluateConfig,
    task: Task,
    settings: Sequence[SettingConfig],
    tokenizer: PreTrainedTokenizerBase,
    stop_tokens: Sequence[str] = STOP_TOKENS,
) -> list[PlannedRecord]:
    """Plan the records of a sweep, ordered by setting, so that the rows of a batch end at about the same time.

    `stop_tokens` is the field of the records.
    """
    length = config.max_model_len
    assert length is not None  # filled in by with_model_defaults
    prompts = {
        (problem.id, words): tuple(prompt_ids(tokenizer, instructed(problem.question, words)))
        for problem, words in product(task.problems, {setting.instruction for setting in settings})
    }
    planned = []
    for setting, problem in product(settings, task.problems):
        for seed, sample in product(seeds_of(config, setting), range(setting.samples)):
            request = Request(
                prompt_token_ids=prompts[problem.id, setting.instruction],
                budget=setting.budget,
                sampling=setting.sampling,
                problem_id=problem.id,
                sample=sample,
                seed=seed,
                max_answer_tokens=config.answer_tokens,
                max_new_tokens=NO_LIMIT if config.max_answer_tokens is None and not setting.budget.forcing else None,
                name=f"problem {problem.id}",
            )
            known = make.swept(
                request.asked(config.answer_tokens, length, config.format, stop_tokens),
                task=task.name,
                gold=problem.gold,
                instruction=setting.instruction,
                max_tries=setting.max_tries,
                search=setting.search,
                reward=setting.reward,
            )
            planned.append(PlannedRecord(problem, request, known, setting.search))
    return planned


def own_records(mesh: MeshConfig, planned: Sequence[PlannedRecord]) -> list[PlannedRecord]:
    """Select the records that this process decodes.

    If each process has a model of its own, these are the records of every n-th problem, all settings together, because
    settings share runs. If one model has the chips of all processes, these are all records.
    """
    if any(device.process_index != jax.process_index() for device in devices_for(mesh)):
        return list(planned)
    problems = dict.fromkeys(str(one.problem.id) for one in planned)
    own = {name for i, name in enumerate(problems) if i % jax.process_count() == jax.process_index()}
    return [one for one in planned if str(one.problem.id) in own]


def searches(planned: Sequence[PlannedRecord]) -> dict[tuple[SearchConfig, str | None], list[int]]:
    """Group the indices of records by search and reward model."""
    found: dict[tuple[SearchConfig, str | None], list[int]] = {}
    for index, one in enumerate(planned):
        if one.search is not None:
            found.setdefault((one.search, one.known["reward"]), []).append(index)
    return found
