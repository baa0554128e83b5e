"""From nothing to a test-time scaling plot: `python -m s1_jax.quickstart [--run-dir DIR]`.

Makes 1,000 examples of a synthetic task, fine-tunes the tiny base model that ships with s1_jax on them, sweeps thinking
budgets over 500 held-out problems, and compares them with other strings than "Wait" and with majority voting. It needs
no accelerator, no network and about two minutes on two CPU cores. The same command resumes a run that was stopped.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from s1_jax import evaluate, train
from s1_jax.config import shipped
from s1_jax.config.quickstart import QuickstartConfig
from s1_jax.data.synthetic import generate_examples
from s1_jax.runtime.cli import parse, program, resumable, run_main
from s1_jax.runtime.files import write_whole
from s1_jax.runtime.storage import as_path
from s1_jax.runtime.terminal import say

EXAMPLES = 1000
LEFT = ("the plot (scaling.png)", "the table (summary.json)", "the report (report.html)", "all records (records.jsonl)")
STEPS = {  # by their names in `until`
    "examples": f"Making {EXAMPLES:,} examples of the synthetic task.",
    "train": f"Step 1 of 3: fine-tuning the tiny model on {EXAMPLES:,} examples.",
    "sweep": "Step 2 of 3: cutting the thinking at growing maxima, on {problems} held-out problems.",
    "compare": 'Step 3 of 3: comparing 0, 1 and 2 times "Wait" with other strings and with majority voting.',
}


def main(argv: list[str] | None = None) -> None:
    """Run the quickstart from the command line. Raises UserError, RunError, KeyboardInterrupt, Terminated."""
    argv = sys.argv[1:] if argv is None else argv
    config = parse(QuickstartConfig, argv, program("quickstart"), description=__doc__)
    folder = as_path(config.run_dir)
    with resumable():
        for step, text in STEPS.items():
            say(text.format(problems=config.problems), file=sys.stderr)
            run_step(step, config, folder)
            if step == config.until:
                break
    if config.until in ("sweep", "compare"):
        say(f"done: {folder / 'sweep'} contains {', '.join(LEFT[:-1])} and {LEFT[-1]}")


def run_step(step: str, config: QuickstartConfig, folder: Path) -> None:
    """Run one step of `STEPS` in the quickstart's folder; finished work of an earlier start is kept."""
    examples, tuned, sweep = folder / "examples.jsonl", folder / "sft", folder / "sweep"
    if step == "examples":
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(examples, "".join(json.dumps(row) + "\n" for row in generate_examples(0, EXAMPLES)))
    elif step == "train":
        options = {"run-dir": tuned, "data.path": examples, "train.epochs": config.epochs}
        train.main(command_line("quickstart_sft", options))
    else:
        options = {"run-dir": sweep, "model.path": tuned / "hf", "task.limit": config.problems}
        evaluate.main(command_line(f"quickstart_{step}", options))


def command_line(name: str, options: dict[str, object]) -> list[str]:
    """Return the arguments of a command with a shipped config and these options."""
    overrides = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    return [str(shipped.folder() / f"{name}.py"), *overrides]


if __name__ == "__main__":
    run_main(main)
