"""How a model marks its thinking, how long it thinks, and how a token is sampled."""

from __future__ import annotations

import dataclasses

from s1_jax.config.options import Count, Options, UnitInterval, Whole
from s1_jax.config.types import Bias, Fraction, Grace, Repetitions, Temperature, TopP
from s1_jax.errors import UserError

S1_ANSWER_START = "<|im_start|>answer"
S1_STOP_TOKENS = ("<|im_end|>", "<|endoftext|>")  # what texts of Qwen2.5's models and s1's end with
S1_END_MARKERS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
AUTO_MARKER = "auto"  # stands for a marker that is read from the tokenizer


@dataclasses.dataclass(frozen=True)
class FormatConfig(Options, section="format"):
    """How a model marks its thinking and its answer. The defaults are s1's; --format auto reads the tokenizer's."""

    think_start: str = "<|im_start|>think"
    """Marker that opens the thinking. It is appended to each prompt that does not end in it. auto reads it from the
    tokenizer."""
    answer_start: str = S1_ANSWER_START
    """Marker that opens the answer. It is appended when thinking ends. auto reads it from the tokenizer."""
    final_answer: str = "\nFinal Answer:"
    """Text appended after answer_start when thinking is cut at its maximum."""
    end_markers: tuple[str, ...] = S1_END_MARKERS
    """Markers that end the thinking when the model generates them; stop tokens end it too. If answer_start is changed
    and these are not, answer_start is the only one."""
    early_stopping_text: str = ""
    """Text appended before answer_start when thinking is cut, such as Qwen3's sentence about the limited time. Without
    it, a newline is appended there unless the thinking ends in one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.answer_start == AUTO_MARKER:
            return  # the end markers follow from the one that is read
        if self.end_markers == S1_END_MARKERS and self.answer_start != S1_ANSWER_START:
            object.__setattr__(self, "end_markers", (self.answer_start,))
        for name in ("think_start", "answer_start"):
            if not getattr(self, name):
                raise UserError(f"format.{name} is empty")
        if not self.end_markers or not all(self.end_markers):
            raise UserError("format.end_markers needs at least one marker, and none of them empty")

    @property
    def is_auto(self) -> bool:
        """Whether a marker has to be read from the tokenizer (`data.formats.resolve_format`)."""
        return AUTO_MARKER in (self.think_start, self.answer_start)


S1 = FormatConfig()
AUTO = FormatConfig(AUTO_MARKER, AUTO_MARKER)


@dataclasses.dataclass(frozen=True)
class BudgetConfig(Options):
    """Budget forcing: how long the model may think (paper section 3.1)."""

    min_thinking_tokens: Whole = 1
    """Minimum number of thinking tokens; the end-of-thinking marker is masked until they have been generated."""
    max_thinking_tokens: Whole | None = None
    """Maximum number of thinking tokens; thinking is cut there and the answer begins. None is as many as fit into the
    context. Without forcing, the run ends there unless its answer has begun."""
    num_ignore: Whole = 0
    """Suppress the first num_ignore end-of-thinking markers and append ignore_string each time."""
    ignore_string: str | tuple[str, ...] = "Wait"
    """String appended in place of a suppressed end marker. Several strings take turns. An empty one appends nothing,
    and the next token is sampled again."""
    forcing: bool = True
    """Enforce the budget. Without forcing the model generates freely, up to max_thinking_tokens, or else up to
    max_answer_tokens for thinking and answer together."""
    newline_grace: Grace = 0.0
    """Let thinking overrun the maximum by up to this fraction of it (0 to 0.1) so that it can finish its line."""
    end_bias: Bias = 0.0
    """Value added to the logits of end markers. It grows linearly from 0 to this at max_thinking_tokens, which it
    needs; 0 turns it off."""
    notice_fractions: tuple[Fraction, ...] = ()
    """Append a notice when these fractions of max_thinking_tokens have been used, such as 0.5 0.75; at most 8, in
    ascending order (BudgetThinker, arXiv 2508.17196). The tokens of a notice count as thinking."""
    notices: tuple[str, ...] = ()
    """Texts of the notices, one for each of notice_fractions."""
    banned_words: tuple[str, ...] = ()
    """Words that the model may not use while it thinks, such as wait hmm (NoWait, arXiv 2506.08343): tokens whose text,
    stripped and in lower case, is one of them are masked."""
    max_repetitions: Repetitions = 0
    """Cut thinking where its last tokens, up to 256 of them, have occurred this many times in a row; 0 turns it off."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.notices) != len(self.notice_fractions):
            raise UserError(
                f"there are {len(self.notices)} notices and {len(self.notice_fractions)} notice_fractions; "
                "each notice needs one"
            )
        if list(self.notice_fractions) != sorted(set(self.notice_fractions)):
            raise UserError(f"notice_fractions {list(self.notice_fractions)} do not ascend")
        if self.notices and self.max_thinking_tokens is None:
            raise UserError("notice_fractions are fractions of max_thinking_tokens; give one")
        if not all(self.notices):
            raise UserError("notices has an empty text")
        if self.max_thinking_tokens is not None and self.min_thinking_tokens > max(self.max_thinking_tokens, 1):
            raise UserError(
                f"min_thinking_tokens {self.min_thinking_tokens} is above "
                f"max_thinking_tokens {self.max_thinking_tokens}"
            )
        if self.end_bias and self.max_thinking_tokens is None:
            raise UserError(f"end_bias {self.end_bias} rises towards max_thinking_tokens; give one")

    @property
    def notice_positions(self) -> list[int]:
        """Return the number of thinking tokens after which each notice is appended."""
        return [int((self.max_thinking_tokens or 0) * fraction) for fraction in self.notice_fractions]

    @property
    def grace_tokens(self) -> int:
        """Return the maximum number of tokens by which thinking may overrun its maximum."""
        return int((self.max_thinking_tokens or 0) * self.newline_grace)


@dataclasses.dataclass(frozen=True)
class SamplingConfig(Options):
    """How the next token is sampled."""

    temperature: Temperature = 0.0
    """Sampling temperature; 0 is greedy decoding."""
    top_k: Whole = 0
    """Sample from only this many most likely tokens; 0 is all of them."""
    top_p: TopP = 1.0
    """Sample from only the most likely tokens whose probabilities add up to this; 1 is all of them."""
    min_p: UnitInterval = 0.0
    """Sample from only tokens that are at least this fraction as likely as the most likely one; 0 is all of them."""


@dataclasses.dataclass(frozen=True)
class StepConfig(Options):
    """Where a step of a search ends: after a separator, after max_step_tokens, or with the run."""

    separator: str | None = "\n\n"
    """Text that ends a step; with None no text does."""
    max_step_tokens: Count | None = None
    """Maximum number of tokens of a step; None is no limit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.separator == "":
            raise UserError("separator is empty; leave it out (None) where no text is to end a step")
