"""The command `s1-jax`: `s1-jax train ...` is `python -m s1_jax.train ...`; `s1-jax --help` lists the commands.

Nothing slow is imported before a command is known, so that the help, the version and a misspelled command are at once
on the screen.
"""

from __future__ import annotations

import difflib
import importlib
import sys

from s1_jax import __version__
from s1_jax.runtime.signals import end_at_once
from s1_jax.runtime.terminal import say

COMMANDS = {  # the modules of the package that are commands, `_` written as `-`
    "quickstart": "Fine-tune a tiny model and draw its test-time scaling plot: offline, in two minutes.",
    "train": "Fine-tune a model on reasoning examples.",
    "plan": "Compile a run for a TPU slice that you do not have: does it fit, how long does it take.",
    "generate": "Decode prompts under a thinking budget, from a file or to the terminal.",
    "serve": "Serve a model with thinking budgets to OpenAI and Anthropic clients, and a chat page.",
    "evaluate": "Sweep thinking budgets and search methods over a task; report, compare runs.",
    "grade": "Grade the records of a run again, by rules or with a judge.",
    "curate": "Make a data set of reasoning examples, as s1K was made.",
    "convert": "Convert a model between Hugging Face's and Orbax's layout.",
    "lm-eval": "Run lm-evaluation-harness with the model s1_jax.",
}
USAGE = "usage: s1-jax COMMAND [arguments ...]"


def main() -> None:
    """Run the command that the first argument names. Exits with code 2 where there is none of that name."""
    end_at_once()  # signals are heard from here on; a command's own module hears them while it runs
    first = sys.argv[1] if len(sys.argv) > 1 else None
    if first in ("-h", "--help"):
        say(help_text())
    elif first in ("-V", "--version"):
        say(f"s1-jax {__version__}")
    elif first is not None and (name := first.replace("_", "-")) in COMMANDS:
        sys.argv = [f"s1-jax {name}", *sys.argv[2:]]
        command = importlib.import_module(f"s1_jax.{name.replace('-', '_')}")
        from s1_jax.runtime.cli import run_main

        run_main(command.main)
    else:
        say(f"error: {mistake(first)}", file=sys.stderr)
        sys.exit(2)


def help_text() -> str:
    """Return the usage line and one line for each command."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, text in COMMANDS.items()]
    after = "`s1-jax COMMAND --help` lists a command's options. `s1-jax --version` prints the version."
    return "\n".join([USAGE, "", *lines, "", after])


def mistake(first: str | None) -> str:
    """Explain in one line why a command line whose first argument names no command is wrong."""
    if first is None:
        return f"{USAGE}   (commands: {', '.join(COMMANDS)})"
    near = difflib.get_close_matches(first.replace("_", "-"), COMMANDS, n=1, cutoff=0.5)
    advice = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(COMMANDS)}"
    return f"unknown command {first!r}; {advice}"


if __name__ == "__main__":
    main()
