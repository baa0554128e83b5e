"""Grade the records of a run again: `python -m s1_jax.grade RUN_DIR [--judge.option value ...]`.

The rules are those of the run's task. They need only the records, no model and no network. With --judge.model, an LLM
grades the answers that the rules leave open. It is a model at an endpoint (--judge.base-url URL --judge.model NAME), or
one that is decoded here (--judge.model DIR_OR_HUB_ID alone). Its replies are kept in judge.jsonl, so no question is
asked twice. Without a judge the rules alone decide.

Afterwards records.jsonl is replaced, and the report is made again. A folder that a sweep is writing to is refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from s1_jax.checkpoints.folder import resolve
from s1_jax.config import GradeConfig, JudgeConfig, TaskConfig
from s1_jax.curation.replies import dollars, replies_of
from s1_jax.errors import RunError, UserError
from s1_jax.evaluation.grading import graded
from s1_jax.evaluation.votes import with_classes
from s1_jax.records import Record, make
from s1_jax.records.check import TO_GRADE
from s1_jax.records.lines import cut_torn_line, read_records, record_line
from s1_jax.records.results import read_run
from s1_jax.records.verdicts import UNDECIDED
from s1_jax.reporting.report import report
from s1_jax.runtime.cli import StopFlag, parse, program, resumable, run_main
from s1_jax.runtime.endpoint import NoAnswer
from s1_jax.runtime.files import appended, write_whole
from s1_jax.runtime.locks import locked_folder
from s1_jax.runtime.progress import progress_bar
from s1_jax.runtime.storage import Mirror, as_path, mirrored
from s1_jax.runtime.tables import align
from s1_jax.runtime.terminal import say
from s1_jax.tasks import Rules, load_rules, load_task
from s1_jax.tasks.classes import grader_classes
from s1_jax.tasks.judge import decision, judge_prompt

PROG = program("grade")
REASONS_SHOWN = 3  # reasons why prompts have no reply, the most frequent ones
CUT = {  # finish reason of an incomplete reply -> how the message explains it
    "length": "cut off at its last token; --judge.max-tokens allows more",
    "content_filter": "stopped by a content filter",
}


def main(argv: list[str] | None = None) -> None:
    """Run the command line `python -m s1_jax.grade`. Raises UserError, RunError."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or (argv[0].startswith("-") and not {"-h", "--help"} & set(argv)):
        raise UserError(f"usage: {PROG} RUN_DIR [--judge.option value ...]   (--help lists options)")
    run_dir, options = (None, argv) if argv[0].startswith("-") else (argv[0], argv[1:])
    config = parse(GradeConfig, options, f"{PROG} RUN_DIR", description=__doc__)
    assert run_dir is not None  # otherwise it was --help, which has exited
    with locked_folder(as_path(run_dir)), resumable(), mirrored(run_dir) as folder:
        grade(config, folder)


def grade(config: GradeConfig, folder: Mirror) -> None:
    """Read, grade and write the records, then report. Raises as `main` does."""
    run_dir = folder.local
    before, of_run = read_run(run_dir, TO_GRADE)
    task = task_of(of_run, run_dir)

    # By the rules, from the texts alone
    rules = load_rules(task)
    after = grade_by_rules(rules, before)

    # By a judge, for answers that the rules leave open
    if config.judge.model:
        after = grade_by_judge(config.judge, task, after, run_dir / "judge.jsonl")

    # Which answers are equal, for votes
    after = with_classes(after, grader_classes(rules))

    # Write the records, then the report
    write_whole(run_dir / "records.jsonl", "".join(map(record_line, after)))
    say(changes(before, after))
    report(folder)


def task_of(config: Mapping[str, Any], run_dir: Path) -> TaskConfig:
    """Return the task that a run's config names. Raises UserError if it names none."""
    options = config.get("task")
    if not options:
        raise UserError(f"{run_dir / 'config.json'} names no task")
    known = {field.name for field in dataclasses.fields(TaskConfig)}
    return TaskConfig(**{name: value for name, value in options.items() if name in known})


def grade_by_rules(rules: Rules, records: Sequence[Record]) -> list[Record]:
    """Extract and grade the answers of records by the rules of their task, from the texts alone."""
    after = []
    with progress_bar() as bar:
        task = bar.add_task("by rules", total=len(records), note="")
        for record in records:
            after.append(graded(rules, record))
            bar.advance(task)
    return after


def grade_by_judge(config: JudgeConfig, task: TaskConfig, records: Sequence[Record], kept: Path) -> list[Record]:
    """Grade the open records by the judge; a reply that is neither yes nor no leaves a record undecided.

    `kept` is the file of complete replies, by a hash of model and prompt. Raises UserError if the problems cannot be
    read, RunError if the judge fails.
    """
    problems = load_task(dataclasses.replace(task, limit=None)).problems
    questions = {str(problem.id): problem.question for problem in problems}
    prompts = {}
    for i, record in enumerate(records):
        if is_open(record):
            question = questions.get(str(record["problem_id"]), "(not known)")
            prompts[i] = judge_prompt(question, record["gold"], record["extracted_answer"])
    replies = asked(config, list(dict.fromkeys(prompts.values())), kept)
    after = list(records)
    for i, prompt in prompts.items():
        said = decision(replies.get(prompt, ""))
        by = "undecided" if said is None else "judge"
        answer = records[i]["extracted_answer"]
        after[i] = make.graded(records[i], extracted_answer=answer, correct=bool(said), graded_by=by)
    return after


def is_open(record: Record) -> bool:
    """Whether a judge may decide better: no rule could read the answer, or the rules found two formulas to differ."""
    return record["graded_by"] in UNDECIDED or (record["graded_by"] == "math" and not record["correct"])


def asked(config: JudgeConfig, prompts: Sequence[str], kept: Path) -> dict[str, str]:
    """Return the judge's reply to every prompt that it answers, saved ones included.

    Only complete replies are saved, each as soon as it arrives. A prompt that the judge refuses, or only begins to
    answer, has no reply. Raises UserError if there is no such model. Raises RunError if the judge fails or answers no
    prompt at all, after replies in progress have been saved.
    """
    replies = kept_replies(kept)
    keys = {prompt: hashlib.sha256(json.dumps([config.model, prompt]).encode()).hexdigest() for prompt in prompts}
    new = [prompt for prompt in prompts if keys[prompt] not in replies]
    cost, none, failed = 0.0, Counter[str](), None
    if new:
        source, name = None if config.base_url else resolve(config.model), "the judge"
        cut_torn_line(kept)
        with appended(kept) as file, progress_bar() as bar, StopFlag() as stop:
            task = bar.add_task("by judge", total=len(new), note="")
            with closing(replies_of(config, source, name, new, kept, stop)) as found:
                for i, reply in found:
                    bar.advance(task)
                    if isinstance(reply, NoAnswer):
                        none[reply.reason] += 1
                        failed = failed or (None if reply.of_prompt else reply)
                        continue
                    cost += dollars(config, reply.tokens_read, reply.tokens_written)
                    if not reply.whole:
                        none[CUT.get(reply.finish, f"ended with {reply.finish!r}")] += 1
                        continue
                    key = keys[new[i]]
                    replies[key] = reply.text
                    line = {"key": key, "model": config.model, "reply": reply.text, "finish": reply.finish}
                    file.write(record_line(line | {"prompt": new[i]}))
                    file.flush()
    reasons = "; ".join(f"{reason}: {count:,}" for reason, count in none.most_common(REASONS_SHOWN))
    if failed is not None:
        raise failed
    if none and none.total() == len(new) and not any(key in replies for key in keys.values()):
        where = f" at {config.base_url}" if config.base_url else ""
        raise RunError(f"the judge{where} answers none of {len(new):,} prompts ({reasons})")
    spent = f", ${cost:,.2f}" if cost else ""
    say(f"judge: {len(prompts)} different answers to decide, {len(new)} of them asked now{spent}")
    if none:
        say(f"judge: {none.total():,} have no complete reply and stay undecided ({reasons})")
    return {prompt: replies[key] for prompt, key in keys.items() if key in replies}


def kept_replies(path: Path) -> dict[str, str]:
    """Read the saved replies of earlier starts, by key.

    Earlier versions saved cut replies too, without a mark; of theirs, only replies that decide count.
    """
    lines = [line for line in read_records(path) if all(isinstance(line.get(name), str) for name in ("key", "reply"))]
    return {line["key"]: line["reply"] for line in lines if "finish" in line or decision(line["reply"]) is not None}


def changes(before: Sequence[Record], after: Sequence[Record]) -> str:
    """Describe how many verdicts changed, and what decided them before and after."""
    changed = [pair for pair in zip(before, after, strict=True) if pair[0]["correct"] != pair[1]["correct"]]
    pairs = [(_said(old), _said(new)) for old, new in changed]
    head = f"{len(after):,} records graded again, {len(pairs):,} verdicts changed"
    if not pairs:
        return head
    rows = [(was, now, f"{count:,}") for (was, now), count in Counter(pairs).most_common()]
    return f"{head}\n\n{align([('was', 'is', 'records'), *rows])}"


def _said(record: Record) -> str:
    return f"{'right' if record['correct'] else 'wrong'}, by {record.get('graded_by') or 'an earlier version'}"


if __name__ == "__main__":
    run_main(main)
