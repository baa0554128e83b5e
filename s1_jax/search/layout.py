r"""How a run is laid out for a reward model, as the cards of Qwen2.5-Math's have it.

process     ...<|im_start|>assistant\n{step}<extra_0>{step}<extra_0>                      a score at each separator
outcome     ...<|im_start|>assistant\n{thinking}\n\n{answer}<|im_end|>\n                  a score at the end

Before that the question, through the reward model's own chat template; where it has a system prompt, that is put in.
Steps are what stands between blank lines, of the thinking and of the answer; the policy's markers are left out.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from s1_jax.config import S1, FormatConfig, SearchConfig
from s1_jax.data.chat import encode, prompt_ids, turn_of
from s1_jax.errors import UserError
from s1_jax.model.reward import RewardConfig

PIECES_KEPT = 2**16  # encoded steps


class RewardText(NamedTuple):
    """A run as a reward model reads it."""

    token_ids: list[int]
    prompt_length: int  # tokens of the question and all around it
    whole: bool  # else it was too long, and what did not fit was left out
    scored: list[int]  # the tokens behind which scores stand: of a process model the last of each step's separator


class RewardLayout:
    """A reward model's texts, made from a run's text with its markers.

    `step_separator` is what the policy puts between steps, `format` how it marks thinking and answer; `reward` names
    the separator that ends a step, which `scoring.separator_ids` has checked. Its tokens are added to those of each
    step, as TRL does, so that no token reaches across. Where they occur elsewhere, in the question or the chat
    template, they end no step. A text has `max_length` tokens at most. What a run began with is encoded alike however
    it goes on, so that a scorer finds it again.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        reward: RewardConfig,
        max_length: int,
        config: SearchConfig,
        *,
        step_separator: str = "\n\n",
        format: FormatConfig = S1,
    ) -> None:
        self.max_length = max_length
        self._reward, self._format = reward, format
        self._reads, self._step_separator = config.reads, step_separator
        # written out by a policy these would end a turn, or a step
        control_texts = [*tokenizer.get_added_vocab(), *([reward.separator] if reward.separator else [])]
        self._control = re.compile("|".join(map(re.escape, sorted(control_texts, key=len, reverse=True))) or r"(?!)")
        self._prompt = lru_cache(PIECES_KEPT)(lambda question: tuple(prompt_ids(tokenizer, question)))
        self._words = lru_cache(PIECES_KEPT)(lambda text: tuple(encode(tokenizer, self._plain(text))))
        self._step_end = tuple(encode(tokenizer, reward.separator)) if reward.separator else ()
        self._turn_end = tuple(encode(tokenizer, turn_of(tokenizer).end))

    def text(self, question: str, run: str) -> RewardText:
        """The text to score. Raises UserError where the question alone is too long.

        Of a run that is too long a process model reads the steps that fit, one at least in part; an outcome model the
        answer alone, as far as it fits.
        """
        prompt = self._prompt(question)
        end = self._step_end or self._turn_end
        room = self.max_length - len(prompt) - len(end)
        if room < 1:
            raise UserError(
                f"a question of {len(prompt)} tokens leaves no room: the reward model reads {self.max_length}"
            )
        if self._reward.kind == "outcome":
            words = self._words(self.response(run))
            read = words if len(words) <= room else self._words(self.answer(run))[:room]
            ids = [*prompt, *read, *end]
            return RewardText(ids, len(prompt), read == words, [len(ids) - 1])
        first, *later = map(self._words, self.steps(run))
        ids, whole = [*prompt, *first[:room], *end], len(first) <= room
        scored = [len(ids) - 1]
        for step in later:
            whole &= len(ids) + len(step) + len(end) <= self.max_length
            if not whole:
                break
            ids += step + end
            scored.append(len(ids) - 1)
        return RewardText(ids, len(prompt), whole, scored)

    def steps(self, text: str) -> list[str]:
        """The steps of a run, white space around them and those without words left out; one at least."""
        parts = [step.strip() for part in self._parts(text) for step in part.split(self._step_separator)]
        return [step for step in parts if self._plain(step)] or [""]

    def response(self, text: str) -> str:
        """What an outcome model reads of a run that fits: thinking and answer as one, or the answer alone."""
        thinking, answer = (part.strip() for part in self._parts(text))
        return self.answer(text) if self._reads == "answer" else f"{thinking}\n\n{answer}".strip()

    def answer(self, text: str) -> str:
        """The answer of a run; of one that has none, its thinking."""
        thinking, answer = (part.strip() for part in self._parts(text))
        return answer or thinking

    def _plain(self, text: str) -> str:
        """The text without what would mean something to the reward model."""
        return self._control.sub(" ", text).strip()

    def _parts(self, text: str) -> tuple[str, str]:
        """Thinking and answer, the last of them if there are several; the latter empty where there is none yet."""
        text = text.removeprefix(self._format.think_start)
        thinking, marker, answer = text.rpartition(self._format.answer_start)
        return (thinking, answer) if marker else (text, "")
