"""What a command shows before its first result: the stage it is in, such as loading or compiling."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from s1_jax.runtime.compilation import CompilationWatch
from s1_jax.runtime.progress import clock_time
from s1_jax.runtime.terminal import in_a_line

COMPILING = "compiling"


class Stages:
    """Context that shows on standard error which stage the command is in, until `done` or the end of the block.

    On a terminal it is one line that disappears; elsewhere it is a line for each stage. `live` is false if the terminal
    shows something else, such as a progress bar.
    """

    def __init__(self, console: Console | None = None, live: bool = True) -> None:
        self._console, self._live = console or Console(stderr=True), live
        self._stage, self._said = "", ""
        self._told = False  # whether the stage is shown outside a terminal too
        self._over = False
        self._watch = CompilationWatch(self._compiling)
        self._line = self._console.status(self)  # rich asks for the text with every frame

    def __enter__(self) -> Stages:
        self._watch.__enter__()
        if self._live and self._console.is_terminal:
            self._line.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.done()
        self._watch.__exit__()

    def at(self, stage: str, quiet: bool = False) -> None:
        """Begin a stage; a `quiet` one is shown on a terminal only.

        Stages in which a mistake of the user may still be found are quiet, so that the mistake is the only line.
        """
        self._stage, self._told = stage, not quiet
        self._say(stage)

    def done(self) -> None:
        """Stop showing stages, because what follows needs the terminal for itself."""
        self._over = True
        self._line.stop()

    def __rich__(self) -> Text:
        seconds = self._watch.seconds
        return Text(in_a_line(self._stage) if seconds is None else f"{COMPILING} {clock_time(seconds)}")

    def _compiling(self) -> None:
        self._say(COMPILING)

    def _say(self, text: str) -> None:
        if self._told and not (self._console.is_terminal or self._over or text == self._said):
            self._said = text
            self._console.print(in_a_line(text), highlight=False, markup=False, soft_wrap=True)


class LiveNote:
    """The note of a progress bar: a text, or that a program is compiling, while one is."""

    def __init__(self, text: str = "") -> None:
        self.text = text
        self._watch = CompilationWatch()

    def __enter__(self) -> LiveNote:
        self._watch.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._watch.__exit__()

    @property
    def compiling(self) -> float:
        """Seconds that compilation has taken, which say nothing about the time left."""
        return self._watch.spent

    def __str__(self) -> str:
        seconds = self._watch.seconds
        return self.text if seconds is None else f"{COMPILING} {clock_time(seconds)}"
