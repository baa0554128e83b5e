"""How a model marks its thinking, how long it thinks, and how a token is sampled."""

from __future__ import annotations

import dataclasses

from s1_jax.config.options import Count, Options, Share, Whole
from s1_jax.config.types import Bias, Grace, Temperature, TopP
from s1_jax.errors import UserError

S1_ANSWER_START = "<|im_start|>answer"
S1_STOP_TOKENS = ("<|im_end|>", "<|endoftext|>")  # what texts of Qwen2.5's models and s1's end with
S1_END_MARKERS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")


@dataclasses.dataclass(frozen=True)
class FormatConfig(Options, section="format"):
    """How a model marks where its thinking and its answer begin; the defaults are s1's (data/chat.py)."""

    think_start: str = "<|im_start|>think"  # opens the thinking; appended to prompts that do not end in it
    answer_start: str = S1_ANSWER_START  # opens the answer; appended where thinking ends
    final_answer: str = "\nFinal Answer:"  # appended to that where thinking is cut
    # what ends the thinking where the model writes it, besides its stop tokens; left at s1's beside another
    # answer_start, it is that answer_start
    end_markers: tuple[str, ...] = S1_END_MARKERS

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.end_markers == S1_END_MARKERS and self.answer_start != S1_ANSWER_START:
            object.__setattr__(self, "end_markers", (self.answer_start,))
        for name in ("think_start", "answer_start"):
            if not getattr(self, name):
                raise UserError(f"format.{name} is empty")
        if not self.end_markers or not all(self.end_markers):
            raise UserError("format.end_markers needs at least one marker, and none of them empty")


S1 = FormatConfig()


@dataclasses.dataclass(frozen=True)
class BudgetConfig(Options):
    """Budget forcing of one row (paper section 3.1)."""

    min_thinking_tokens: Whole = 1  # the end of thinking cannot be drawn before
    # the end of thinking is forced here; without forcing, a run ends here unless its answer has begun
    max_thinking_tokens: Whole | None = None
    num_ignore: Whole = 0  # how many drawn ends are discarded
    ignore_string: str | tuple[str, ...] = "Wait"  # what follows a discarded end; several take turns
    # off: the model writes on freely after the start marker, until max_thinking_tokens; where none is given,
    # max_answer_tokens, as far as it is given, bounds all that it writes
    forcing: bool = True
    newline_grace: Grace = 0.0  # share of the maximum that thinking may pass it by, to the end of a line
    # added to the logits of end markers: nothing when thinking begins, in even steps all of it at the maximum
    end_bias: Bias = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_thinking_tokens is not None and self.min_thinking_tokens > max(self.max_thinking_tokens, 1):
            raise UserError(
                f"min_thinking_tokens {self.min_thinking_tokens} is above "
                f"max_thinking_tokens {self.max_thinking_tokens}"
            )
        if self.end_bias and self.max_thinking_tokens is None:
            raise UserError(f"end_bias {self.end_bias} rises towards max_thinking_tokens; give one")

    @property
    def grace_tokens(self) -> int:
        """How many tokens thinking may go on behind the maximum, at most."""
        return int((self.max_thinking_tokens or 0) * self.newline_grace)


@dataclasses.dataclass(frozen=True)
class SamplingConfig(Options):
    """How a token is drawn; temperature 0 is greedy."""

    temperature: Temperature = 0.0
    top_k: Whole = 0  # 0: all
    top_p: TopP = 1.0
    min_p: Share = 0.0


@dataclasses.dataclass(frozen=True)
class StepConfig(Options):
    """Where the steps of a search end: behind a separator, after so many tokens, or, at the latest, with the run."""

    separator: str | None = "\n\n"  # none: no text ends a step
    max_step_tokens: Count | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.separator == "":
            raise UserError("separator is empty; leave it out (None) where no text is to end a step")
