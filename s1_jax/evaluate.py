"""Sweep thinking budgets over a task: `python -m s1_jax.evaluate [CONFIG.py] [--section.option value ...]`.

Writes config.json, records.jsonl, summary.json, the figures (scaling.png, methods.png) and report.html, a page to read
traces in, into `run_dir`. If the sweep is stopped, the same command resumes it. A later sweep of the same model and
task may add settings to the same folder; the report then covers all of them.

`python -m s1_jax.evaluate RUN_DIR` makes the report again from the records alone. With
`--compare RUN_A RUN_B [COMPARE.json]` it compares two runs, and with `--parity RUN_DIR` a run with the paper's tables.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence

from s1_jax.checkpoints import hf
from s1_jax.checkpoints.stops import declared_stops
from s1_jax.config import EvaluateConfig, SettingConfig
from s1_jax.data.formats import resolve_format
from s1_jax.data.look_alikes import LookAlikes
from s1_jax.decoding.core.banned_words import banned_tokens
from s1_jax.decoding.core.token_ids import stop_ids, stop_texts
from s1_jax.evaluation.decode import decode
from s1_jax.evaluation.grading import put_into_classes
from s1_jax.evaluation.run_dir import claim_run_dir, gather, unfinished
from s1_jax.evaluation.settings import own_records, plan_records, seeds_of, sweep_settings, with_model_defaults
from s1_jax.reporting import compare, parity
from s1_jax.reporting.report import report
from s1_jax.runtime import terminal
from s1_jax.runtime.cli import parse_with_file, program, resumable, run_main
from s1_jax.runtime.locks import locked_folder
from s1_jax.runtime.processes import (
    is_first,
    meet,
    start_processes,
)
from s1_jax.runtime.storage import Mirror, as_path, mirrored
from s1_jax.tasks import load_task

FROM_RECORDS = {"--compare": compare.command, "--parity": parity.command}


def main(argv: list[str] | None = None) -> None:
    """Run the command line `python -m s1_jax.evaluate`.

    Raises UserError, RunError, KeyboardInterrupt, Terminated.
    """
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
    """Run the whole evaluation, in the order things happen. Raises as `main` does."""
    say: Callable[[str], None] = terminal.say if is_first() else lambda _: None

    # What is asked: every problem under every setting
    task = load_task(config.task)
    source = hf.resolve(config.model.path)
    config = with_model_defaults(config, source)
    tokenizer, vocab_size = hf.load_tokenizer(source), hf.load_config(source).vocab_size
    format, line = resolve_format(config.format, tokenizer)
    config = dataclasses.replace(config, format=format)
    if line:
        say(line)
    for words in dict.fromkeys(setting.budget.banned_words for setting in settings if setting.budget.banned_words):
        say(str(banned_tokens(tokenizer, words, vocab_size)))
    stop_tokens = stop_texts(tokenizer, stop_ids(tokenizer, declared_stops(source, vocab_size), vocab_size))
    planned = plan_records(config, task, settings, tokenizer, stop_tokens)
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

    # What earlier starts have left to do
    claim_run_dir(folder, config, source, stop_tokens)
    left = unfinished(folder, planned)
    done = len(planned) - len(left)
    say(f"{task.name}: {size}, {done} of {len(planned)} records done")

    # Decode it, each process its own problems if it has a model of its own; then report
    if own := own_records(config.mesh, left):
        decode(config, folder.local, source, task, own)
    folder.keep()
    meet("everything is decoded")
    if is_first():
        folder.fetch()
        gather(folder)
        put_into_classes(folder, task.rules)
        report(folder)


if __name__ == "__main__":
    run_main(main)
