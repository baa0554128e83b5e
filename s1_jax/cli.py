"""How a command line becomes a config, and how an entry point ends.

A config file is Python with a `get_config()`; `--section.name value` overrides one field of what it returns.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import signal
import sys
import threading
import typing
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import Any, TypeVar

import tyro

from s1_jax.compilation import keep_compiled_programs
from s1_jax.config import RunError, UserError
from s1_jax.storage import as_path, explained
from s1_jax.terminal import in_a_line, say, say_warning

T = TypeVar("T")

STOPS = {int(signal.SIGINT): "Ctrl-C", int(signal.SIGTERM): "SIGTERM"}
END = b"\0"  # no signal's number
GOES_ON = "what was done is kept, the same command goes on from there"

before_exit: list[Callable[[int], None]] = []  # told the exit code that `run_main` ends with


def load_config(path: str | Path) -> Any:
    """Runs `get_config()` of a config file. Raises UserError where there is none."""
    path = as_path(path)
    if not path.is_file():
        raise UserError(f"no config file {path}; the ones shipped are in configs/")
    namespace: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    try:
        exec(compile(path.read_text(), str(path), "exec"), namespace)
        if "get_config" not in namespace:
            raise UserError(f"{path} has no get_config()")
        return namespace["get_config"]()
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path}: {type(error).__name__}: {error}") from error


def parse(cls: type[T], argv: list[str], prog: str, default: T | None = None, description: str | None = None) -> T:
    """`argv` as a `cls`, starting from `default`. Raises UserError with one line that names the nearest option."""
    said = StringIO()
    try:
        with redirect_stderr(said):
            kwargs: dict[str, Any] = {} if default is None else {"default": default}
            return tyro.cli(cls, args=argv, prog=prog, description=description, **kwargs)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UserError(_one_line(said.getvalue(), cls, argv, prog)) from None


def parse_with_file(cls: type[T], argv: list[str], prog: str, description: str | None = None) -> T:
    """`[CONFIG.py] [overrides]` as a `cls`; without a file the overrides are of the class's defaults.

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
        "(configs/ holds the files shipped; --help lists options and defaults)"
    )


def to_json(config: Any) -> str:
    """A resolved config as JSON, to be saved beside every result."""
    return json.dumps(dataclasses.asdict(config), indent=2, default=str) + "\n"


def run_main(main: Callable[[], int | None]) -> None:
    """Runs an entry point, and ends the process with one line where it fails.

    Exit codes: 2 after UserError, 1 after RunError, 130 after Ctrl-C, 75 after SIGTERM or a preemption: start it again.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a script that starts a command in the background does that
        signal.signal(signal.SIGINT, signal.default_int_handler)
    keep_compiled_programs()
    if isinstance(sys.stdout, TextIOWrapper):
        # piped, lines would come after what stderr shows meanwhile; a text may not fit the terminal's encoding
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    warnings.showwarning = say_warning
    try:
        code, said = main() or 0, ""
    except UserError as error:
        code, said = 2, f"error: {error}"
    except RunError as error:
        code, said = 1, f"error: {error}"
    except OSError as error:  # a full disk, a folder that may not be written
        code, said = 1, f"error: {error}; {GOES_ON}"
    except KeyboardInterrupt:
        code, said = 130, f"interrupted; {GOES_ON}"
    except Terminated:
        code, said = os.EX_TEMPFAIL, f"told to end; {GOES_ON}"
    except Exception as error:
        if (reason := explained(error)) is None:
            raise
        code, said = 1, f"error: {reason}; {GOES_ON}"
    if said:
        say(in_a_line(said), file=sys.stderr, flush=True)
    for tell in before_exit:
        tell(code)
    sys.exit(code)


def option_names(cls: type, prefix: str = "--") -> list[str]:
    """All option names of a (nested) config dataclass, as the command line spells them."""
    hints = typing.get_type_hints(cls, include_extras=True)
    names: list[str] = []
    for field in dataclasses.fields(cls):
        name = prefix + field.name.replace("_", "-")
        inner = hints[field.name]
        names += [alias for arg in getattr(inner, "__metadata__", ()) for alias in getattr(arg, "aliases", None) or ()]
        names += (
            option_names(inner, name + ".") if isinstance(inner, type) and dataclasses.is_dataclass(inner) else [name]
        )
    return names


def _one_line(said: str, cls: type, argv: list[str], prog: str) -> str:
    known = option_names(cls)
    for arg in argv:
        name = arg.split("=")[0].replace("_", "-")
        bare = name.replace("--no-", "--", 1).replace(".no-", ".", 1)
        if arg.startswith("--") and name not in known and bare not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            return f"unknown option {arg.split('=')[0]}" + (
                f"; did you mean {near[0]}?" if near else f" (see {prog} --help)"
            )
    lines = (line.strip("│╭╮╰╯─ ") for line in said.splitlines())
    words = " ".join(line for line in lines if line and not line.startswith(("For full helptext", "Parsing error")))
    return " ".join(words.split())


class Terminated(Exception):
    """The run was told to end by its supervisor or its machine, and has kept what it did."""


class StopFlag:
    """Within: the first Ctrl-C or SIGTERM only sets `asked`, so a step ends in order; a second interrupts.

    That it was heard is printed to standard error at once, also where a compiled call keeps Python from handling it
    for minutes, with what is waited for: `waits_for`, which may be set anew at any time.
    """

    def __init__(self, waits_for: str = "what is under way") -> None:
        self.asked = False
        self.waits_for = waits_for
        self._by_hand = False

    def __enter__(self) -> StopFlag:
        self._before = {number: signal.signal(number, self._ask) for number in STOPS}
        # the interpreter writes a signal's number here when it comes; its handlers run when Python code does again
        self._heard, self._told = os.pipe()
        os.set_blocking(self._told, False)
        self._fd_before = signal.set_wakeup_fd(self._told, warn_on_full_buffer=False)
        self._teller = threading.Thread(target=self._tell, daemon=True)
        self._teller.start()
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._fd_before)
        os.write(self._told, END)  # closing it is not enough where a forked process has it too
        self._teller.join()
        for end in (self._told, self._heard):
            os.close(end)

    def check(self) -> None:
        """Raises once asked, KeyboardInterrupt or Terminated: Python's own can get lost inside a compiled call."""
        if self.asked:
            raise KeyboardInterrupt if self._by_hand else Terminated

    def ask(self) -> None:
        """As SIGTERM does."""
        self.asked = True

    def _tell(self) -> None:
        """Says once what was heard; ends with the flag."""
        said, numbers = False, b""
        while END not in numbers:
            numbers = os.read(self._heard, 64)
            for number in numbers:
                if number in STOPS and not said:
                    said = True
                    say(f"{STOPS[number]} received; waiting for {self.waits_for}", file=sys.stderr, flush=True)

    def _ask(self, number: int, frame: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked, self._by_hand = True, number == signal.SIGINT
