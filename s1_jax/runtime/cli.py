"""The command line: parsing it into a config, and ending an entry point with one line and an exit code.

A config file is Python with a `get_config()`. The command line names it by its path or, if it ships with s1_jax, by
its name; `--section.name value` overrides one field of what it returns.
"""

from __future__ import annotations

import dataclasses
import difflib
import errno
import itertools
import json
import os
import re
import sys
import threading
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, suppress
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import Any, TypeVar

import docstring_parser
import tyro

from s1_jax.config import shipped
from s1_jax.config.options import SHOWN, wanted
from s1_jax.errors import RunError, UserError
from s1_jax.runtime.compilation import keep_compiled_programs
from s1_jax.runtime.signals import RAISED, RaisedInMain, stop_of
from s1_jax.runtime.signals import StopFlag as StopFlag
from s1_jax.runtime.signals import Terminated as Terminated
from s1_jax.runtime.storage import as_path, check_input, explained, one_line
from s1_jax.runtime.terminal import in_a_line, say, say_warning
from s1_jax.runtime.texts import check_texts

T = TypeVar("T")

ENDS: tuple[type[BaseException], ...] = (Exception, *RAISED)  # not SystemExit, by which --help ends
RESUME = "finished work is saved. Run the same command to resume."
OF_OPTION = re.compile(r"(?:Error parsing|for argument) '?(--[\w./-]+)")  # in tyro's message on a value: --name/--alias
MISTAKES = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
MISTAKEN = (errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTEMPTY, errno.ENXIO, errno.ENODEV)

before_exit: list[Callable[[int], None]] = []  # called with the exit code before `run_main` ends


def program(command: str) -> str:
    """Return the command as this process was started, for usage lines: `s1-jax train` or `python -m s1_jax.train`."""
    typed = f"s1-jax {command.replace('_', '-')}"
    return typed if sys.argv[0] == typed else f"python -m s1_jax.{command}"


def load_config(path: str | Path) -> Any:
    """Run `get_config()` of a config file, or of the shipped config of that name.

    Raises UserError if there is no such file or name, or if the file fails.
    """
    given, path = path, as_path(path)
    check_input(path)
    if not path.is_file():
        found = shipped.find(str(given))
        if found is None:
            raise UserError(f"no config file {given}, and no shipped config of that name; {shipped.near(str(given))}")
        path = found
    namespace: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), namespace)
        if "get_config" in namespace:
            return namespace["get_config"]()
    except RAISED:  # Ctrl-C, which may arrive here too
        raise
    except BaseException as error:  # SystemExit too: no config file may end a command
        try:
            said = " ".join(str(error).split())
        except Exception:  # the file raised an exception whose text cannot be made
            said = "it cannot say why"
        raise UserError(
            f"{path}: {said if isinstance(error, UserError) else f'{type(error).__name__}: {said}'}"
        ) from None
    raise UserError(f"{path} has no get_config()")


def parse(cls: type[T], argv: list[str], prog: str, default: T | None = None, description: str | None = None) -> T:
    """Parse `argv` into a `cls`, starting from `default`.

    Raises UserError with one line, which suggests the nearest option for an unknown one.
    """
    argv, said = in_full(argv), StringIO()
    try:
        with redirect_stderr(said), lines_of_texts_joined():
            kwargs: dict[str, Any] = {} if default is None else {"default": default}
            config = tyro.cli(cls, args=argv, prog=prog, description=description, **kwargs)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UserError(_one_line(said.getvalue(), cls, argv, prog)) from None
    check_texts(config)
    return config


@contextmanager
def lines_of_texts_joined() -> Iterator[None]:
    """Within: tyro reads the text below a field as one paragraph; by itself it breaks where an indented line begins."""
    read: Any = docstring_parser.parse_from_object

    def joined(of: Any) -> Any:
        found = read(of)
        for text in found.params:
            text.description = text.description and " ".join(text.description.split())
        return found

    docstring_parser.parse_from_object = joined  # type: ignore[assignment]
    try:
        yield
    finally:
        docstring_parser.parse_from_object = read


def in_full(argv: list[str]) -> list[str]:
    """Return the command line with `--format auto` in full: as one option for each of the two markers."""
    text = [*argv]
    for i, arg in enumerate(text):
        if arg == "--format=auto" or text[i : i + 2] == ["--format", "auto"]:
            rest = text[i + (1 if "=" in arg else 2) :]
            return [*text[:i], "--format.think-start", "auto", "--format.answer-start", "auto", *rest]
    return text


def renamed(argv: list[str], names: Mapping[str, str]) -> list[str]:
    """Return the command line with options under their present names; `names` maps each former name to the present."""
    return [names.get(name, name) + arg.removeprefix(name) for arg in argv for name in [arg.split("=")[0]]]


def parse_with_file(cls: type[T], argv: list[str], prog: str, description: str | None = None) -> T:
    """`[CONFIG.py | NAME] [overrides]` as a `cls`; without a file the overrides are of the class's defaults.

    Raises UserError on what cannot be read, and with a line on usage where there is nothing to read.
    """
    if argv and not argv[0].startswith("-"):
        config = load_config(argv[0])
        if not isinstance(config, cls):
            raise UserError(f"{argv[0]} gives a {type(config).__name__}; {prog} needs a {cls.__name__}")
        return parse(cls, argv[1:], f"{prog} {argv[0]}", default=config, description=description)
    if argv:
        if late := next((arg for arg in argv if arg.endswith(".py")), None):
            raise UserError(f"{late}: the config file comes first: {prog} {late} [--section.name value ...]")
        return parse(cls, argv, f"{prog} [CONFIG.py]", description=description)
    raise UserError(
        f"usage: {prog} CONFIG.py [--section.name value ...], or options alone, on top of their defaults   "
        "(CONFIG.py: a file, or the name of a shipped config such as quickstart_sft; --help lists options and defaults)"
    )


def to_json(config: Any) -> str:
    """Format a resolved config as JSON, which is saved beside every result."""
    return json.dumps(dataclasses.asdict(config), indent=2, default=str) + "\n"


@contextmanager
def resumable() -> Iterator[None]:
    """Context of work that the same command can resume; if it is stopped here, `run_main` says so."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, UserError | RunError):  # these say themselves what to do
            error.add_note(RESUME)
        raise


def run_main(main: Callable[[], int | None]) -> None:
    """Run an entry point and end the process, with one line on standard error if it fails.

    Exit codes: 2 after UserError or a path that cannot be read or written, 1 after RunError or a full disk, 130 after
    Ctrl-C, 75 after SIGTERM or a preemption, which means: start it again.
    """
    with RaisedInMain() as heard:
        try:
            keep_compiled_programs()
            if isinstance(sys.stdout, TextIOWrapper):
                # in a pipe, lines would come late; and a text may not fit the terminal's encoding
                sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
            warnings.showwarning = say_warning
            threading.excepthook = say_of_thread
            code, said = main() or 0, ""
            heard.over(code)
        except ENDS as error:
            end = end_of(error) or (heard.stop and (heard.stop.exit_code, heard.stop.line))
            if end is None:
                raise
            code, said = end
            heard.over(code)
    if said:
        with suppress(OSError):  # standard error may be on a full disk
            say(in_a_line(said), file=sys.stderr, flush=True)
    for tell in before_exit:
        tell(code)
    flush_output()
    sys.exit(code)


def end_of(error: BaseException) -> tuple[int, str] | None:
    """Return the exit code and the line for an error; None for a bug, which keeps its traceback."""
    if isinstance(error, UserError):
        return 2, f"error: {error}"
    if isinstance(error, RunError):
        return 1, f"error: {error}"
    kept = f"; {RESUME}" if RESUME in getattr(error, "__notes__", ()) else ""
    if (stop := stop_of(error)) is not None:
        return stop.exit_code, stop.line + kept
    if isinstance(error, OSError) and (isinstance(error, MISTAKES) or error.errno in MISTAKEN):
        return 2, f"error: {_of_system(error)}"
    if (reason := explained(error)) is not None:  # of a bucket's client; some of its errors are OSErrors
        return 1, f"error: {reason}{kept}"
    if isinstance(error, OSError):  # a full disk
        return 1, f"error: {_of_system(error)}{kept}"
    return None


def say_of_thread(failed: threading.ExceptHookArgs) -> None:
    """Replace `threading.excepthook`: an OSError in a library's thread is one line without a traceback.

    The main thread finds out by itself if it depends on that thread. Other errors keep their traceback.
    """
    if isinstance(failed.exc_value, OSError):
        with suppress(OSError):  # standard error may be on the full disk
            say(f"warning: in a background thread: {in_a_line(_of_system(failed.exc_value))}", file=sys.stderr)
    else:
        threading.__excepthook__(failed)


def flush_output() -> None:
    """Flush standard output, and drop what cannot be written.

    If the reader is gone or the disk is full, Python would complain a second time while it ends.
    """
    if sys.stdout is None:  # it was closed when the process started
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def option_names(cls: type) -> list[str]:
    """Return all option names of a (nested) config dataclass, as the command line spells them."""
    return list(option_types(cls))


def option_types(cls: type, prefix: str = "--") -> dict[str, Any]:
    """Return the types of these options by option name."""
    hints = typing.get_type_hints(cls, include_extras=True)
    found: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        name, hint = prefix + field.name.replace("_", "-"), hints[field.name]
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            found |= option_types(hint, name + ".")
        else:
            aliases = (getattr(extra, "aliases", None) or () for extra in getattr(hint, "__metadata__", ()))
            found |= dict.fromkeys([name, *(alias for some in aliases for alias in some)], hint)
    return found


def _one_line(said: str, cls: type, argv: list[str], prog: str) -> str:
    """Shorten tyro's message, which has several lines and repeats itself, to one line."""
    types = option_types(cls)
    for arg in argv:
        name = arg.split("=")[0].replace("_", "-")
        bare = name.replace("--no-", "--", 1).replace(".no-", ".", 1)
        if arg.startswith("--") and name not in types and bare not in types:
            near = difflib.get_close_matches(name, types, n=1, cutoff=0.4)
            return f"unknown option {arg.split('=')[0]}" + (
                f"; did you mean {near[0]}?" if near else f" (see {prog} --help)"
            )
    lines = (line.strip("│╭╮╰╯─ ") for line in said.splitlines())
    words = " ".join(" ".join(line for line in lines if line).split())
    names = found[1].split("/") if (found := OF_OPTION.search(words)) else []
    if given := next((arg for arg in reversed(argv) if _name_in(arg) in names and _name_in(arg) in types), None):
        name = _name_in(given)
        return f"{' '.join([name, *_values_of(name, argv)])}: it must be {wanted(types[name])}"
    if words.startswith("Required options"):
        missing = [name for name in types if re.search(rf"{name}\b.*\(required\)", words)]
        return f"missing: {', '.join(missing)} (see {prog} --help)"
    _, _, strays = words.partition("Unrecognized options: ")
    return f"unexpected argument: {strays.split(' For full helptext')[0]}" if strays else words


def _name_in(arg: str) -> str:
    return arg.split("=")[0].replace("_", "-")


def _values_of(option: str, argv: list[str]) -> list[str]:
    """Return the values that the command line gives to an option, long ones cut."""
    at = max(i for i, arg in enumerate(argv) if _name_in(arg) == option)
    _, equals, value = argv[at].partition("=")
    values = [value] if equals else list(itertools.takewhile(lambda arg: not arg.startswith("--"), argv[at + 1 :]))
    return [value if len(value) <= SHOWN else f"{value[:SHOWN]}..." for value in values]


def _of_system(error: OSError) -> str:
    """Return the system's message, after the name of the file that it is about."""
    said = error.strerror or one_line(error)
    return said if error.filename is None else f"{error.filename}: {said}"
