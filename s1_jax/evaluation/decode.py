"""Decodes the records of a sweep, on one host or on many, and grades each as soon as it is decoded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import jax

from s1_jax.config import EvaluateConfig
from s1_jax.decoding.core.sweep import Plan, plan_alone, plan_shared
from s1_jax.decoding.engine import Engine, Status
from s1_jax.decoding.loaded_model import load_model
from s1_jax.evaluation.grading import graded
from s1_jax.evaluation.settings import PlannedRecord, searches
from s1_jax.records import Record, make
from s1_jax.records.lines import cut_torn_line, part_of, record_line
from s1_jax.records.results import read_results
from s1_jax.reporting.cost import add_cost
from s1_jax.reporting.live import LiveTable
from s1_jax.runtime.cli import StopFlag
from s1_jax.runtime.files import appended
from s1_jax.runtime.processes import Watchdog, any_of, finish_together, is_first, watch_for_preemption
from s1_jax.runtime.stages import Stages
from s1_jax.search.rejection import sample_until_natural
from s1_jax.search.requests import search_requests
from s1_jax.search.verifiers import Verifiers
from s1_jax.tasks import Task
from s1_jax.tasks.answers import without_stop
from s1_jax.tasks.classes import Classes, grader_classes


def decode(config: EvaluateConfig, run_dir: Path, source: Path, task: Task, planned: Sequence[PlannedRecord]) -> None:
    """Append the planned records to this process's `records.jsonl` in `run_dir`, each as soon as it is decoded.

    If the model is sharded over several processes, all of them decode the same records, and the first one writes.
    """
    with Stages() if is_first() else nullcontext() as stages:
        if stages is not None:
            stages.at(f"loading {config.model.path}", quiet=True)
        model = load_model(source, config.model.dtype, config.stored, mesh=config.mesh, format=config.format)
    spans_processes = model.layout.spans_processes
    writing = is_first() or not spans_processes
    once = [i for i, one in enumerate(planned) if one.max_tries == 1 and one.search is None]
    shared = config.sweep.shared_trace
    plan = (plan_shared if shared else plan_alone)([planned[i].request for i in once])
    runs = len(plan.trunks) + sum(one.max_tries > 1 for one in planned)
    engine = model.engine(
        config.max_model_len,
        config.batch_size,
        draft_tokens=config.draft_tokens,
        runs=None if searches(planned) else runs,  # searches grow more of them
    )
    verifiers = Verifiers(config, engine.tokenizer, model.dtype, model.layout)
    for search, reward in searches(planned):
        verifiers.of(reward, search)  # loaded now, so that mistakes are found before hours of decoding
    path = part_of(run_dir / "records.jsonl", jax.process_index())
    cut_torn_line(path)
    written, started = 0, time.perf_counter()
    note = f"{runs:,} runs" if shared else "no shared traces"
    there = read_results(path)  # including those of other settings
    live = LiveTable(there, len(there) + len(planned), note, shown=is_first())
    with (
        StopFlag() as stop,
        Watchdog(config.hosts.stall_seconds) as watchdog,
        appended(path) as file,
        live.note,
        live,
    ):
        watch_for_preemption(stop.ask)

        def show(status: Status) -> None:
            live.show(status.done, status.recorded_tokens, status.slot_use, status.tokens_per_step)
            watchdog.tick(f"{status.done} of {status.total} records")
            if spans_processes:
                if not any_of(stop.asked):
                    return  # a signal that arrives later is seen by all processes at the next call
                finish_together()
                stop.ask()
            stop.check()

        try:
            classes = grader_classes(task.rules)
            for index, record in run_all(engine, planned, once, plan, verifiers, task.rules.extract, classes, show):
                if not writing:
                    continue
                one = planned[index]
                record = graded(task.rules, make.of_sweep(one.known, record, question=one.problem.question))
                file.write(record_line(record))
                file.flush()
                live.add(record)
                written += 1
        finally:
            if writing:
                add_cost(
                    run_dir,
                    jax.process_index(),
                    records=written,
                    decoded_tokens=engine.decoded_tokens,
                    seconds=time.perf_counter() - started,
                    slot_steps=engine.use.slot_steps,
                    slot_tokens=engine.use.tokens,
                    accepted_tokens=engine.use.accepted,
                    programs=engine.num_compiled,
                )


def run_all(
    engine: Engine,
    planned: Sequence[PlannedRecord],
    once: Sequence[int],
    plan: Plan,
    verifiers: Verifiers,
    extract: Callable[[str, str], str | None],
    classes: Classes,
    show: Callable[[Status], None],
) -> Iterator[tuple[int, Record]]:
    """Yield the index and the finished record of each planned one, as they are done.

    First come the records that are decoded `once`, by their `plan`, then rejection sampling, then searches.
    """
    for i, record in engine.decode(plan, show):
        yield once[i], record
    several = [i for i, one in enumerate(planned) if one.max_tries > 1]
    requests, tries = [planned[i].request for i in several], [planned[i].max_tries for i in several]

    def show_after(status: Status) -> None:
        show(status._replace(done=status.done + len(once)))

    if requests:
        for i, record in sample_until_natural(engine, requests, tries, show_after):
            yield several[i], record
    done = len(once) + len(several)

    def show_search(found: int) -> None:
        use = engine.use
        counts = done + found, len(planned), engine.decoded_tokens
        show(Status(*counts, use.fraction, use.tokens_per_step, use.tokens))

    def answer(text: str) -> str | None:
        return extract(without_stop(text, engine.stop_tokens), engine.format.answer_start)

    for (search, reward), indices in searches(planned).items():
        asked, questions = zip(*((planned[i].request, planned[i].problem.question) for i in indices), strict=True)
        verifier = verifiers.of(reward, search)
        steps = verifiers.steps
        found = search_requests(engine, asked, questions, search, steps, verifier, answer, show_search, classes)
        for i, record in found:
            yield indices[i], record
        done += len(indices)
