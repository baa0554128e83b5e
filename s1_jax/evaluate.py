"""A sweep of thinking budgets over a task: `python -m s1_jax.evaluate [CONFIG.py] [--section.option value ...]`.

Writes into `run_dir`: config.json, records.jsonl as they come, then summary.json, scaling.png and .svg, methods.png and
.svg where there are searches, and report.html to read traces in. The same command goes on where a stopped one left off.
A later sweep of the same model and task adds its settings to the same records, and the report covers them all.
`python -m s1_jax.evaluate RUN_DIR` reports again from the records alone; `--compare RUN_A RUN_B [COMPARE.json]` sets
two runs beside each other, and `--parity RUN_DIR` one beside the paper's tables.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from s1_jax.checkpoints import hf
from s1_jax.checkpoints.folder import fingerprint
from s1_jax.checkpoints.stops import declared_stops
from s1_jax.chips import resolve_dtype
from s1_jax.config import S1, EvaluateConfig, FormatConfig, SettingConfig, SweepConfig
from s1_jax.data.chat import STOP_TOKENS
from s1_jax.data.look_alikes import LookAlikes
from s1_jax.decoding.core.sweep import plan_trunks
from s1_jax.decoding.core.token_ids import stop_ids, stop_texts
from s1_jax.decoding.engine import Engine, Status, context_length
from s1_jax.decoding.host.slots import rows_at_a_time
from s1_jax.errors import UserError
from s1_jax.evaluation.settings import Row, own_rows, plan_rows, searches, seeds_of, sweep_settings
from s1_jax.records import Record
from s1_jax.records.lines import cut_torn_line, gather_parts, part_of, parts_of, record_line
from s1_jax.records.results import read_results, read_run
from s1_jax.records.schema import check_config
from s1_jax.records.setting import record_key
from s1_jax.reporting import compare, parity
from s1_jax.reporting.cost import COSTS, add_cost, cost_of, format_cost
from s1_jax.reporting.html import save_report
from s1_jax.reporting.live import LiveTable
from s1_jax.reporting.methods import format_methods, method_runs
from s1_jax.reporting.methods_plot import save_methods_plot
from s1_jax.reporting.plot import save_scaling_plot
from s1_jax.reporting.summary import methods, summarize, to_dict
from s1_jax.reporting.table import format_report
from s1_jax.reporting.votes import with_classes
from s1_jax.runtime import terminal
from s1_jax.runtime.cli import StopFlag, parse_with_file, program, resumable, run_main, to_json
from s1_jax.runtime.files import appended, read_earlier, write_whole
from s1_jax.runtime.locks import locked_folder
from s1_jax.runtime.processes import (
    Watchdog,
    any_of,
    finish_together,
    is_first,
    meet,
    start_processes,
    watch_for_preemption,
)
from s1_jax.runtime.stages import Stages
from s1_jax.runtime.storage import Mirror, as_path, mirrored, one_line
from s1_jax.runtime.terminal import say
from s1_jax.search.rejection import sample_until_natural
from s1_jax.search.requests import search_requests
from s1_jax.search.verifiers import Verifiers
from s1_jax.sharding import DECODE_RULES, Layout, devices_for, make_mesh
from s1_jax.tasks import Problem, Rules, Task, load_task
from s1_jax.tasks.answers import without_stop, written
from s1_jax.tasks.classes import Classes, grader_classes

# What all records of one run_dir share; settings, the number of problems and the machine may change between two starts.
SHARED_OPTIONS = (
    ("model", "sha256"),
    ("model", "dtype"),
    ("model", "stop_tokens"),
    ("task", "name"),
    ("task", "path"),
    ("task", "seed"),
    ("max_answer_tokens",),
    ("max_model_len",),
    ("stored", "weights"),
    ("stored", "cache"),
    ("format",),
)
# And what all records of searches share besides.
SEARCH_OPTIONS = (("rewards", "process"), ("rewards", "outcome"), ("steps",))
FROM_RECORDS = {"--compare": compare.command, "--parity": parity.command}


def main(argv: list[str] | None = None) -> None:
    """The command. Raises UserError, RunError, KeyboardInterrupt, Terminated."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in FROM_RECORDS:
        FROM_RECORDS[argv[0]](argv[1:])
        return
    if len(argv) == 1 and not argv[0].startswith("-") and as_path(argv[0]).is_dir():
        with locked_folder(as_path(argv[0])), mirrored(argv[0]) as folder:
            report(folder)
        return
    config = parse_with_file(EvaluateConfig, argv, program("evaluate"), __doc__)
    settings = sweep_settings(config)
    start_processes(config.hosts)
    with locked_folder(as_path(config.run_dir)), resumable(), mirrored(config.run_dir) as folder:
        evaluate(config, settings, folder)


def evaluate(config: EvaluateConfig, settings: Sequence[SettingConfig], folder: Mirror) -> None:
    """The whole evaluation, in the order things happen. Raises as `main` does."""
    say: Callable[[str], None] = terminal.say if is_first() else lambda _: None

    # All that is asked: every problem under every setting
    task = load_task(config.task)
    source = hf.resolve(config.model.path)
    config = with_model_defaults(config, source)
    tokenizer = hf.load_tokenizer(source)
    vocab_size = hf.load_config(source).vocab_size
    stop_tokens = stop_texts(tokenizer, stop_ids(tokenizer, declared_stops(source, vocab_size), vocab_size))
    rows = plan_rows(config, task, settings, tokenizer, stop_tokens)
    look_alikes = LookAlikes(tokenizer)
    for problem in task.problems:
        look_alikes.look(f"problem {problem.id}", (problem.question,))
    if line := look_alikes.told("problems"):
        say(line)
    size = f"{len(task.problems)} problems x {len(settings)} settings"
    if len(config.seeds) > 1:
        size += f" x {len(config.seeds)} seeds"
        if greedy := sum(len(seeds_of(config, setting)) == 1 for setting in settings):
            once = f"{greedy} of {len(settings)} settings are decoded once"
            say(f"at temperature 0 every seed gives the same records: {once}")

    # What an earlier start has left to do
    claim_run_dir(folder, config, source, stop_tokens)
    left = unfinished(folder, rows)
    done = len(rows) - len(left)
    say(f"{task.name}: {size}, {done} of {len(rows)} records done")

    # Decode it, each process its own problems where it has a model of its own, then report
    if own := own_rows(config.mesh, left):
        decode(config, folder.local, source, task, own)
    folder.keep()
    meet("all is decoded")
    if is_first():
        folder.fetch()
        gather(folder)
        put_into_classes(folder, task.rules)
        report(folder)


def with_model_defaults(config: EvaluateConfig, source: Path) -> EvaluateConfig:
    """The config with what the model and the machine decide filled in: `max_model_len` and types."""
    length = context_length(hf.load_config(source)) if config.max_model_len is None else config.max_model_len
    model: dict[str, Any] = {"dtype": resolve_dtype(config.model.dtype).name}
    stored = config.stored.resolved(model["dtype"])
    filled = dataclasses.replace(config, max_model_len=length, stored=stored)
    return dataclasses.replace(filled, model=dataclasses.replace(config.model, **model))


def claim_run_dir(folder: Mirror, config: EvaluateConfig, source: Path, stop_tokens: Sequence[str]) -> None:
    """Writes `config.json`, and brings an earlier start's records together.

    Raises UserError where the folder holds other records, naming what differs.
    """
    meet("run_dir is looked at")
    run_dir = folder.local
    now = json.loads(to_json(config)) | {"max_answer_tokens": config.answer_tokens}
    now["model"] |= {"sha256": fingerprint(source), "stop_tokens": list(stop_tokens)}
    path = run_dir / "config.json"
    there = [record for part in parts_of(run_dir / "records.jsonl") for record in read_results(part)]
    earlier = read_earlier(path, bound=True) if there else None  # without records it binds nothing
    if earlier is not None:
        check_config(earlier, str(path))
        shared = SHARED_OPTIONS + SEARCH_OPTIONS * any("method" in record for record in there)
        before = {"format": json.loads(to_json(S1))} | earlier  # earlier versions knew s1's alone
        before["model"] = {"stop_tokens": sorted(STOP_TOKENS)} | (before.get("model") or {})
        pairs = [(".".join(names), _at(before, names), _at(now, names)) for names in shared]
        if differing := [f"{name} was {old!r}, is {new!r}" for name, old, new in pairs if old != new]:
            raise UserError(f"{folder.place} holds other records ({'; '.join(differing)}); choose another --run-dir")
    meet("run_dir was looked at")
    if is_first():
        run_dir.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(now, indent=2) + "\n")
        gather(folder)
    meet("run_dir is claimed")
    folder.fetch()  # what was gathered


def gather(folder: Mirror) -> None:
    """Puts what other processes have written into the files of the first."""
    for name in ("records.jsonl", COSTS):
        gather_parts(folder.local / name)
    folder.keep()


def put_into_classes(folder: Mirror, rules: Rules) -> None:
    """Notes in the records which answers to a problem are equal. Raises RunError as the grader does."""
    path = folder.local / "records.jsonl"
    before = read_results(path)
    after = with_classes(before, grader_classes(rules))
    if any(new is not old for new, old in zip(after, before, strict=True)):
        write_whole(path, "".join(map(record_line, after)))
        folder.keep()


def unfinished(folder: Mirror, rows: Sequence[Row]) -> list[Row]:
    """The rows without a record yet. Raises UserError where the record is of another problem with the same id."""
    records = {record_key(record): record for record in read_results(folder.local / "records.jsonl")}
    for row in rows:
        record = records.get(row.key, row.known)
        for field in ("prompt_token_ids", "gold"):
            if record.get(field) != row.known[field]:
                raise UserError(
                    f"{folder.place} holds another {row.request.name} ({field} differs); choose another --run-dir"
                )
    return [row for row in rows if row.key not in records]


def decode(config: EvaluateConfig, run_dir: Path, source: Path, task: Task, rows: Sequence[Row]) -> None:
    """Appends the rows' records to this process's `records.jsonl` in `run_dir`, each as soon as it is there.

    Where the model lies with several processes all decode the same, and the first writes.
    """
    layout = Layout(make_mesh(config.mesh, devices_for(config.mesh)), DECODE_RULES)
    writing = is_first() or not layout.spans_processes
    parts = layout.parts(layout.rules["batch"])
    dtype = resolve_dtype(config.model.dtype)
    with Stages() if is_first() else nullcontext() as stages:
        if stages is not None:
            stages.at(f"loading {config.model.path}", quiet=True)
        model, params = hf.load_for_decoding(source, config.stored, dtype, layout)
    requests, shared = [row.request for row in rows if row.search is None], config.sweep.shared_trace
    runs = len(plan_trunks(requests)) if shared else len(requests)
    engine = Engine(
        model,
        params,
        hf.load_tokenizer(source),
        max_model_len=config.max_model_len,
        batch_size=rows_at_a_time(config.batch_size, runs if len(requests) == len(rows) else config.batch_size, parts),
        dtype=dtype,
        cache_dtype=jnp.dtype(config.stored.cache),
        layout=layout,
        format=config.format,
        draft_tokens=config.draft_tokens,
        stops=declared_stops(source, model.vocab_size),
    )
    verifiers = Verifiers(config, engine.tokenizer, dtype, layout)
    for search, reward in searches(rows):
        verifiers.of(reward, search)  # now: what is wrong with one is not to be found out after hours of decoding
    path = part_of(run_dir / "records.jsonl", jax.process_index())
    cut_torn_line(path)
    written, started = 0, time.perf_counter()
    note = f"{runs:,} runs" if shared else "each record by itself"
    there = read_results(path)  # those of other settings too
    live = LiveTable(there, len(there) + len(rows), note, shown=is_first())
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
            if layout.spans_processes:
                if not any_of(stop.asked):
                    return  # whoever is told between the two looks at it next time, as all do
                finish_together()
                stop.ask()
            stop.check()

        try:
            classes = grader_classes(task.rules)
            for place, record in run_all(engine, rows, shared, verifiers, task.rules.extract, classes, show):
                if not writing:
                    continue
                record = rows[place].known | graded(task, rows[place].problem, record)
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
                    programs=engine.programs,
                )


def run_all(
    engine: Engine,
    rows: Sequence[Row],
    shared: bool,
    verifiers: Verifiers,
    extract: Callable[[str, str], str | None],
    classes: Classes,
    show: Callable[[Status], None],
) -> Iterator[tuple[int, Record]]:
    """Records of the rows with their places: those that are drawn once, then rejection sampling's, then searches'."""
    once = [place for place, row in enumerate(rows) if row.max_tries == 1 and row.search is None]
    requests = [rows[place].request for place in once]
    run = engine.run_shared(requests, show) if shared else enumerate(engine.run(requests, show))
    for i, record in run:
        yield once[i], record
    several = [place for place, row in enumerate(rows) if row.max_tries > 1]
    requests, tries = [rows[place].request for place in several], [rows[place].max_tries for place in several]

    def show_after(status: Status) -> None:
        show(status._replace(done=status.done + len(once)))

    if requests:
        for i, record in sample_until_natural(engine, requests, tries, show_after):
            yield several[i], record
    done = len(once) + len(several)

    def show_search(found: int) -> None:
        use = engine.use
        counts = done + found, len(rows), engine.decoded_tokens
        show(Status(*counts, use.share, use.tokens_per_step, use.tokens))

    def answer(text: str) -> str | None:
        return extract(without_stop(text, engine.stop_tokens), engine.format.answer_start)

    for (search, reward), places in searches(rows).items():
        asked, questions = zip(*((rows[place].request, rows[place].problem.question) for place in places), strict=True)
        verifier = verifiers.of(reward, search)
        steps = verifiers.steps
        found = search_requests(engine, asked, questions, search, steps, verifier, answer, show_search, classes)
        for i, record in found:
            yield places[i], record
        done += len(places)


def graded(task: Task, problem: Problem, record: Record) -> Record:
    """The record with what only the task knows."""
    extracted = task.rules.extract(written(record), FormatConfig.of_record(record).answer_start)
    verdict = task.rules.grade(extracted, problem.gold)
    known = {"task": task.name, "question": problem.question, "gold": problem.gold}
    judged = {"extracted_answer": extracted, "correct": verdict.correct, "graded_by": verdict.by}
    return record | known | judged


def report(folder: Mirror) -> None:
    """Writes summary.json, the figures and report.html from the records alone, prints the tables.

    Raises UserError without any.
    """
    run_dir = folder.local
    records, config = read_run(run_dir)
    scaling_over = (config.get("sweep") or {}).get("scaling", SweepConfig.scaling)
    runs = summarize(records)
    found = methods(runs, scaling_over)
    summary = to_dict(records, runs, found, scaling_over) | {"cost": (cost := cost_of(run_dir, records))}
    write_whole(run_dir / "summary.json", json.dumps(summary, indent=2) + "\n")
    say(f"\n{format_report(runs, found, scaling_over)}\n{format_cost(cost)}\n")
    plot, page = run_dir / "scaling.png", run_dir / "report.html"
    title = f"{', '.join(summary['tasks'])}, {max(run.problems for run in runs)} problems"
    with unless_it_fails(plot):
        save_scaling_plot([plot, plot.with_suffix(".svg")], runs, title)
        say(f"plot: {folder.shown(plot)}")
    if any(run.setting.search for run in runs):
        compared, figure = method_runs(records), run_dir / "methods.png"
        say(f"{format_methods(compared)}\n")
        with unless_it_fails(figure):
            save_methods_plot([figure, figure.with_suffix(".svg")], compared, title)
            say(f"methods: {folder.shown(figure)}")
    with unless_it_fails(page):
        save_report(page, title, records, runs, summary, config)
        say(f"report: {folder.shown(page)}")
    if undecided := sum(run.undecided for run in runs):
        judge = f"python -m s1_jax.grade {folder.place} --judge.model ..."
        say(f"{undecided} answers no rule could read; a judge may: {judge}")


@contextmanager
def unless_it_fails(drawn: Path) -> Iterator[None]:
    """Within: what cannot be drawn is told on standard error, and is missing. A full disk is an error as elsewhere."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # whatever matplotlib or a font makes of a text
        said = one_line(error)
        say(f"{drawn.name} could not be made ({type(error).__name__}: {said}); the rest is there", file=sys.stderr)


def _at(options: Any, names: Sequence[str]) -> Any:
    for name in names:
        options = (options or {}).get(name)  # an earlier version's config may not have it
    return options


if __name__ == "__main__":
    run_main(main)
