"""What a command is doing while nothing comes of it yet: loading, compiling, and then how fast it decodes."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from s1_jax.runtime.compilation import CompilationWatch
from s1_jax.runtime.progress import clock_time
from s1_jax.runtime.terminal import in_a_line

COMPILING = "compiling"


class Stages:
    """Within: says on standard error which stage the command is at; over with `done`, and where the block ends.

    On a terminal it is one line that goes away, else a line for each stage. Only a terminal is told of stages in which
    a mistake of the user's may still turn up, which is to be one line. Not `live`: a terminal shows something else.
    """

    def __init__(self, console: Console | None = None, live: bool = True) -> None:
        self._console, self._live = console or Console(stderr=True), live
        self._stage, self._said = "", ""
        self._told = False  # whether a stage has begun that all are told of
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
        """The stage that begins; `quiet`: for a terminal only."""
        self._stage, self._told = stage, not quiet
        self._say(stage)

    def done(self) -> None:
        """Nothing is said any more: what follows needs the terminal for itself."""
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
    """The note of a progress bar: a text, and within the block that a program compiles, while one does."""

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
        """Seconds that compilation has taken: they tell nothing of the time left."""
        return self._watch.spent

    def __str__(self) -> str:
        seconds = self._watch.seconds
        return self.text if seconds is None else f"{COMPILING} {clock_time(seconds)}"
