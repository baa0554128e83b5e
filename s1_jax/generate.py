"""Text under a thinking budget: `python -m s1_jax.generate --model DIR_OR_HUB_ID --input in.jsonl --output out.jsonl`.

Each input line is a JSON object with `prompt` (a user message, put through the chat template) or `prompt_token_ids`,
perhaps an `id`, perhaps a `budget` of its own, whose fields win over the flags. The start marker of thinking is
appended to either, unless it ends in that. The output has one record a line, in input order, each batch as soon as it
is done; the same command goes on with an output that is not finished. With `--prompt "..."` the answer streams to the
terminal instead, tokens that were forced in another color. With `--no-thinking` the model answers at once, as in plain
chat.
"""

from __future__ import annotations

import glob
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from s1_jax.config.generate import GenerateConfig
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.engine import Engine, Piece, Status
from s1_jax.decoding.loaded_model import LoadedModel, load_model
from s1_jax.decoding.note import DecodingNote
from s1_jax.errors import UserError
from s1_jax.records import make
from s1_jax.records.setting import first_difference
from s1_jax.runtime.cli import StopFlag, parse, program, resumable, run_main
from s1_jax.runtime.files import appended
from s1_jax.runtime.json_input import loads, read_jsonl
from s1_jax.runtime.locks import locked_file
from s1_jax.runtime.overrides import override
from s1_jax.runtime.progress import progress_bar
from s1_jax.runtime.stages import Stages
from s1_jax.runtime.storage import as_path, check_input, in_bucket, mirrored
from s1_jax.runtime.terminal import say, shown
from s1_jax.runtime.texts import is_unicode

FORCED_COLOR, NO_COLOR = "\033[33m", "\033[0m"
LONGEST_CHARACTER = 4  # bytes of a character in UTF-8: more tokens than these cannot wait for its end


def is_text(value: Any) -> bool:
    """Whether it is a string that a tokenizer takes."""
    return isinstance(value, str) and is_unicode(value)


INPUT_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "prompt": (is_text, "a string of valid Unicode"),
    "prompt_token_ids": (lambda v: isinstance(v, list) and all(type(i) is int for i in v), "a list of whole numbers"),
    "id": (lambda v: v is None or type(v) is int or is_text(v), "a string of valid Unicode or a whole number"),
    "budget": (lambda v: v is None or isinstance(v, dict), "an object"),
}


def main(argv: list[str] | None = None) -> None:
    """The whole command, in the order things happen. Raises UserError."""
    # Options
    argv = sys.argv[1:] if argv is None else argv
    config = parse(GenerateConfig, argv, program("generate"), description=__doc__)
    if config.prompt is not None and (config.input or config.output):
        raise UserError("--prompt streams to the terminal; leave out --input and --output")

    # One prompt, to the terminal
    if config.prompt is not None:
        with Stages() as stages:
            stages.at(f"loading {config.model}", quiet=True)
            model = load_model(config.model, config.dtype, config.stored)
            request = _request(config, model, {"prompt": config.prompt}, "--prompt")
            engine = model.engine(config.max_model_len, 1, config.format, config.draft_tokens)
            stream(engine, request, stages)
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
    """From file to file: all of the input is read and checked before anything is decoded. Raises as `main` does."""
    rows = list(read_rows(source))
    with Stages() as stages:
        stages.at(f"loading {config.model}", quiet=True)
        model = load_model(config.model, config.dtype, config.stored)
    requests = [_request(config, model, row, where) for where, row in rows]
    if line := model.look_alikes((where, row.get("prompt")) for where, row in rows):
        say(line, file=sys.stderr)
    sizes = (config.max_model_len, config.batch_size, config.format, config.draft_tokens)
    engine = model.engine(*sizes, runs=len(requests))
    made_by = make.made_by(model=config.model, dtype=config.dtype, stored=config.stored)
    for request in requests:
        engine.check(request)
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


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, row) for each line of a JSONL file of prompts. Raises UserError naming file, line and field."""
    for number, row in read_jsonl(path):
        where = f"{path}, line {number}"
        if ("prompt" in row) == ("prompt_token_ids" in row):
            raise UserError(f"{where}: needs a field 'prompt' or a field 'prompt_token_ids', and not both")
        for field, (fits, wanted) in INPUT_FIELDS.items():
            if field in row and not fits(row[field]):
                raise UserError(f"{where}: field {field!r} must be {wanted}")
        yield where, row


def resume(path: Path, expected: list[dict[str, Any]]) -> int:
    """How many records `path` holds already; what a kill left of one more is cut off.

    Raises UserError, saying what is wrong with it, where a record was not made by this very command (`expected` fields
    of each record).
    """
    if not path.exists():
        return 0
    *lines, rest = path.read_bytes().split(b"\n")
    if len(lines) > len(expected):
        raise UserError(f"holds {len(lines)} lines, more than the {len(expected)} prompts")
    for number, (line, wanted) in enumerate(zip(lines, expected, strict=False), start=1):
        try:
            record = loads(line, ours=True)
        except ValueError as error:
            raise UserError(f"line {number} is not a record ({error})") from None
        if field := first_difference(record if isinstance(record, dict) else {}, wanted):
            raise UserError(f"line {number} was made by another command (its {field} differs)")
    if rest and not rest.startswith(b'{"task"'[: len(rest)]):
        raise UserError("ends in something that is not a record")
    if rest:
        os.truncate(path, path.stat().st_size - len(rest))
    return len(lines)


def stream(engine: Engine, request: Request, stages: Stages) -> None:
    """Writes one request's tokens to standard output as they come; on a terminal, forced ones in another color.

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


def text_pieces(tokenizer: PreTrainedTokenizerBase, tokens: Iterable[tuple[int, bool]]) -> Iterator[tuple[str, bool]]:
    """(text, forced) pieces of (token, forced) pairs; a character that is split over tokens comes when it is whole."""
    pending: list[int] = []
    pending_forced = False
    for token, forced in tokens:
        if pending and forced != pending_forced:
            yield tokenizer.decode(pending, skip_special_tokens=False), pending_forced
            pending = []
        pending.append(token)
        pending_forced = forced
        text = tokenizer.decode(pending, skip_special_tokens=False)
        if not text.endswith("\N{REPLACEMENT CHARACTER}") or len(pending) >= LONGEST_CHARACTER:
            yield text, forced
            pending = []
    if pending:
        yield tokenizer.decode(pending, skip_special_tokens=False), pending_forced


def _request(config: GenerateConfig, model: LoadedModel, row: dict[str, Any], where: str) -> Request:
    """An input row as a request; its own budget wins over the flags."""
    return Request(
        prompt_token_ids=model.prompt_token_ids(row["prompt"] if "prompt" in row else row["prompt_token_ids"]),
        budget=override(config.budget, row.get("budget") or {}, f"{where}: field 'budget'"),
        sampling=config.sampling,
        problem_id=row.get("id"),
        seed=config.seed,
        max_answer_tokens=config.max_answer_tokens,
        name=where,
        thinking=config.thinking,
    )


if __name__ == "__main__":
    run_main(main)
