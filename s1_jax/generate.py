"""Generate text under a thinking budget: `python -m s1_jax.generate --model.path DIR --input IN --output OUT`.

Each input line is a JSON object with a `prompt` (a user message for the chat template) or `prompt_token_ids`. It may
have an `id`, and a `budget` whose fields win over the options. The start marker of thinking is appended to each prompt
that does not end in it. The output has one record a line, in input order, written as soon as all before it are done. If
the command is stopped, the same command resumes it.

With `--prompt "..."` the answer streams to the terminal instead, with forced tokens in another color. With
`--no-thinking` the model answers at once, as in plain chat.
"""

from __future__ import annotations

import glob
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from s1_jax.config.generate import GenerateConfig
from s1_jax.data.formats import resolve_format
from s1_jax.data.prompts import read_prompts
from s1_jax.decoding.core.banned_words import banned_tokens
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.engine import Engine, Piece, Status
from s1_jax.decoding.loaded_model import LoadedModel, load_model
from s1_jax.decoding.note import DecodingNote
from s1_jax.decoding.text_pieces import text_pieces
from s1_jax.errors import UserError
from s1_jax.records import make
from s1_jax.records.resume import resume
from s1_jax.runtime.cli import StopFlag, parse, program, renamed, resumable, run_main
from s1_jax.runtime.files import appended
from s1_jax.runtime.locks import locked_file
from s1_jax.runtime.overrides import override
from s1_jax.runtime.progress import progress_bar
from s1_jax.runtime.stages import Stages
from s1_jax.runtime.storage import as_path, check_input, in_bucket, mirrored
from s1_jax.runtime.terminal import say, shown

FORCED_COLOR, NO_COLOR = "\033[33m", "\033[0m"
FORMER_OPTIONS = {"--model": "--model.path", "--dtype": "--model.dtype"}  # still taken, for one version


def main(argv: list[str] | None = None) -> None:
    """Run the command, from its options to its output. Raises UserError."""
    # Options
    argv = renamed(sys.argv[1:] if argv is None else argv, FORMER_OPTIONS)
    config = parse(GenerateConfig, argv, program("generate"), description=__doc__)
    if config.prompt is not None and (config.input or config.output):
        raise UserError("--prompt streams to the terminal; leave out --input and --output")

    # One prompt, to the terminal
    if config.prompt is not None:
        with Stages() as stages:
            model = load(config, stages)
            request = make_request(config, model, {"prompt": config.prompt}, "--prompt")
            warn_of_look_alikes(model, [("--prompt", {"prompt": config.prompt})])
            say_banned_tokens(model, [request])
            stream(make_engine(config, model, 1), request, stages)
        return

    # Many prompts, from file to file
    if config.input is None or config.output is None:
        raise UserError("give --input and --output, or --prompt")
    output = as_path(config.output)
    check_input(output)  # what is in it already is read
    if not in_bucket(output) and not output.parent.is_dir():
        raise UserError(f"there is no folder {output.parent} to write {output.name} into")
    with locked_file(output):
        generate(config, as_path(config.input), output)


def generate(config: GenerateConfig, source: Path, output: Path) -> None:
    """Generate from file to file; all input is read and checked before anything is decoded. Raises as `main` does."""
    rows = list(read_prompts(source))
    with Stages() as stages:
        model = load(config, stages)
    requests = [make_request(config, model, row, where) for where, row in rows]
    warn_of_look_alikes(model, rows)
    engine = make_engine(config, model, len(requests))
    made_by = make.made_by(model=config.model.path, dtype=model.dtype.name, stored=config.stored)
    for request in requests:
        engine.check(request)
    say_banned_tokens(model, requests)
    with resumable(), mirrored(output.parent, glob.escape(output.name)) as folder:
        path = folder.local / output.name
        try:
            done = resume(path, [made_by | engine.identity(request) for request in requests])
        except UserError as error:
            raise UserError(f"{output} {error}; remove it or name another output") from None
        if done:
            say(f"{output}: {done} of {len(requests)} records are there already", file=sys.stderr)

        # Decode and write
        with (
            StopFlag() as stop,
            progress_bar() as bar,
            DecodingNote(f"decoding {len(requests) - done} prompts") as note,
            appended(path) as out,
        ):
            task = bar.add_task("generating", total=len(requests), completed=done, note=note)

            def show(status: Status) -> None:
                note.show(status)
                bar.update(task, completed=done + status.done, seconds_left=note.seconds_left(status))
                stop.check()

            for record in engine.run(requests[done:], show):
                out.write(json.dumps(record | made_by) + "\n")
                out.flush()


def load(config: GenerateConfig, stages: Stages) -> LoadedModel:
    """Load the model of `config`; on a terminal, `stages` say so meanwhile."""
    stages.at(f"loading {config.model.path}", quiet=True)
    model = load_model(config.model.path, config.model.dtype, config.stored, mesh=config.mesh, format=config.format)
    if line := resolve_format(config.format, model.tokenizer)[1]:
        say(line, file=sys.stderr)
    return model


def make_engine(config: GenerateConfig, model: LoadedModel, requests: int) -> Engine:
    """Return the engine for this number of requests."""
    return model.engine(config.max_model_len, config.batch_size, draft_tokens=config.draft_tokens, runs=requests)


def make_request(config: GenerateConfig, model: LoadedModel, row: dict[str, Any], where: str) -> Request:
    """Return an input row as a request; its own budget wins over the options. Raises UserError naming `where`."""
    return Request(
        prompt_token_ids=model.prompt_token_ids(
            row["prompt"] if "prompt" in row else row["prompt_token_ids"], config.thinking
        ),
        budget=override(config.budget, row.get("budget") or {}, f"{where}: field 'budget'"),
        sampling=config.sampling,
        problem_id=row.get("id"),
        seed=config.seed,
        max_answer_tokens=config.max_answer_tokens,
        name=where,
        thinking=config.thinking,
    )


def warn_of_look_alikes(model: LoadedModel, rows: list[tuple[str, dict[str, Any]]]) -> None:
    """Print a line about prompts that contain the text of a special token, if there are any."""
    if line := model.look_alikes((where, row.get("prompt")) for where, row in rows):
        say(line, file=sys.stderr)


def say_banned_tokens(model: LoadedModel, requests: list[Request]) -> None:
    """Print the tokens that each list of banned words bans. Raises UserError as `banned_tokens` does."""
    for words in dict.fromkeys(request.budget.banned_words for request in requests):
        if words:
            say(str(banned_tokens(model.tokenizer, words, model.config.vocab_size)), file=sys.stderr)


def stream(engine: Engine, request: Request, stages: Stages) -> None:
    """Write one request's tokens to standard output as they come; on a terminal, forced ones in another color.

    Until the first comes, `stages` say what is being done. A line about the budget follows on standard error. Raises
    UserError where the request cannot be decoded.
    """
    engine.check(request)
    stages.at("reading the prompt")
    colored = sys.stdout.isatty()
    record: dict[str, Any] = {}
    arrivals: list[tuple[float, int]] = []  # when each piece came, and how many tokens there were by then

    def tokens() -> Iterator[tuple[int, bool]]:
        count = 0
        for piece in engine.stream(request):
            stop.check()
            if not isinstance(piece, Piece):
                record.update(piece)
                continue
            count += len(piece.token_ids)
            arrivals.append((time.perf_counter(), count))
            yield from ((token, piece.forced) for token in piece.token_ids)

    with StopFlag() as stop:
        try:
            for text, forced in text_pieces(engine.tokenizer, tokens()):
                stages.done()
                text = shown(text)
                sys.stdout.write(FORCED_COLOR + text + NO_COLOR if colored and forced else text)
                sys.stdout.flush()
        finally:
            say(flush=True)
    thinking = "{num_thinking_tokens} thinking tokens (end: {end}, {ignores_used} ignored), ".format_map(record)
    answer = "{num_answer_tokens} answer tokens (end: {answer_end})".format_map(record)
    speed = ""
    if arrivals:
        (began, first), (ended, last) = arrivals[0], arrivals[-1]
        speed = f"; {(last - first) / (ended - began):,.1f} tokens/s" if last > first else ""
    say((thinking if request.thinking else "") + answer + speed, file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
