"""How a command line becomes a config, and how an entry point ends.

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

ENDS: tuple[type[BaseException], ...] = (Exception, *RAISED)  # not SystemExit: --help has said all
GOES_ON = "what was done is kept, the same command goes on from there"
OF_OPTION = re.compile(r"(?:Error parsing|for argument) '?(--[\w./-]+)")  # in what tyro says of a value: --name/--alias
MISTAKES = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
MISTAKEN = (errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTEMPTY, errno.ENXIO, errno.ENODEV)

before_exit: list[Callable[[int], None]] = []  # told the exit code that `run_main` ends with


def program(command: str) -> str:
    """The command's name in usage lines, as this process was started: `s1-jax train` or `python -m s1_jax.train`."""
    typed = f"s1-jax {command.replace('_', '-')}"
    return typed if sys.argv[0] == typed else f"python -m s1_jax.{command}"


def load_config(path: str | Path) -> Any:
    """Runs `get_config()` of a config file, or of the shipped config of that name.

    Raises UserError where there is no such file or name, and where the file fails.
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
    except RAISED:  # Ctrl-C, which may come here too
        raise
    except BaseException as error:  # SystemExit too: no config file ends a command
        try:
            said = " ".join(str(error).split())
        except Exception:  # an exception of its own, whose text fails
            said = "it cannot say why"
        raise UserError(
            f"{path}: {said if isinstance(error, UserError) else f'{type(error).__name__}: {said}'}"
        ) from None
    raise UserError(f"{path} has no get_config()")


def parse(cls: type[T], argv: list[str], prog: str, default: T | None = None, description: str | None = None) -> T:
    """`argv` as a `cls`, starting from `default`. Raises UserError with one line that names the nearest option."""
    said = StringIO()
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
    """A resolved config as JSON, to be saved beside every result."""
    return json.dumps(dataclasses.asdict(config), indent=2, default=str) + "\n"


@contextmanager
def resumable() -> Iterator[None]:
    """Within: what is done is kept, and the same command goes on from there; `run_main` says so where it is stopped."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, UserError | RunError):  # which say themselves what is to be said
            error.add_note(GOES_ON)
        raise


def run_main(main: Callable[[], int | None]) -> None:
    """Runs an entry point, and ends the process with one line where it fails.

    Exit codes: 2 after UserError or a place that cannot be read or written, 1 after RunError or what is nobody's
    mistake, 130 after Ctrl-C, 75 after SIGTERM or a preemption: start it again.
    """
    with RaisedInMain() as heard:
        try:
            keep_compiled_programs()
            if isinstance(sys.stdout, TextIOWrapper):
                # piped, lines would come after what stderr shows meanwhile; a text may not fit the terminal's encoding
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
        with suppress(OSError):  # standard error on a full disk
            say(in_a_line(said), file=sys.stderr, flush=True)
    for tell in before_exit:
        tell(code)
    flush_output()
    sys.exit(code)


def end_of(error: BaseException) -> tuple[int, str] | None:
    """The exit code and the line of an error that a command may end with; None for a fault of ours."""
    if isinstance(error, UserError):
        return 2, f"error: {error}"
    if isinstance(error, RunError):
        return 1, f"error: {error}"
    kept = f"; {GOES_ON}" if GOES_ON in getattr(error, "__notes__", ()) else ""
    if (stop := stop_of(error)) is not None:
        return stop.exit_code, stop.line + kept
    if isinstance(error, OSError) and (isinstance(error, MISTAKES) or error.errno in MISTAKEN):
        return 2, f"error: {_of_system(error)}"
    if (reason := explained(error)) is not None:  # of a bucket's client, some of whose errors are OSErrors
        return 1, f"error: {reason}{kept}"
    if isinstance(error, OSError):  # a full disk
        return 1, f"error: {_of_system(error)}{kept}"
    return None


def say_of_thread(failed: threading.ExceptHookArgs) -> None:
    """In place of `threading.excepthook`: one line on a library's thread that met a full disk, and no traceback.

    What the main thread needs of it, it finds out by itself; a thread's fault of ours keeps its traceback.
    """
    if isinstance(failed.exc_value, OSError):
        with suppress(OSError):  # the disk behind standard error, too
            say(f"warning: in the background: {in_a_line(_of_system(failed.exc_value))}", file=sys.stderr)
    else:
        threading.__excepthook__(failed)


def flush_output() -> None:
    """Writes out what standard output still holds; drops it where its reader is gone or its disk is full, of which
    Python would complain once more while it ends.
    """
    if sys.stdout is None:  # it was closed from the start
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def option_names(cls: type) -> list[str]:
    """All option names of a (nested) config dataclass, as the command line spells them."""
    return list(option_types(cls))


def option_types(cls: type, prefix: str = "--") -> dict[str, Any]:
    """The types of these options by name."""
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
    """What tyro says in several lines, of which some say a thing twice."""
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
    """What the command line gives as an option's values, cut where it is long."""
    at = max(i for i, arg in enumerate(argv) if _name_in(arg) == option)
    _, equals, value = argv[at].partition("=")
    values = [value] if equals else list(itertools.takewhile(lambda arg: not arg.startswith("--"), argv[at + 1 :]))
    return [value if len(value) <= SHOWN else f"{value[:SHOWN]}..." for value in values]


def _of_system(error: OSError) -> str:
    """What the system says, behind the file it says it of."""
    said = error.strerror or one_line(error)
    return said if error.filename is None else f"{error.filename}: {said}"
