r"""Texts for reward models, formatted as the model cards of Qwen2.5-Math's reward models say.

process     ...<|im_start|>assistant\n{step}<extra_0>{step}<extra_0>                      a score at each separator
outcome     ...<|im_start|>assistant\n{thinking}\n\n{answer}<|im_end|>\n                  a score at the end

The question comes first, through the reward model's own chat template with its default system prompt. Thinking and
answer are split into steps at blank lines, and the policy's markers are removed.
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

PIECES_KEPT = 2**16  # encoded steps in the cache


class RewardText(NamedTuple):
    """Tokens of one run for a reward model, and the indices at which it is scored."""

    token_ids: list[int]
    prompt_length: int  # tokens before the response
    whole: bool  # False if the run was too long and was cut
    scored: list[int]  # indices of the scored tokens; for a process model the last token of each step's separator


class RewardLayout:
    """Builder of a reward model's texts from the text of a run with its markers.

    `step_separator` is what the policy writes between steps, and `format` has its markers of thinking and answer.
    `reward` names the separator that ends a step for the reward model, which `scoring.separator_ids` has checked. Its
    tokens are appended to those of each step, as in TRL, so that no token spans two steps. Separators in the question
    or the chat template end no step. A text has at most `max_length` tokens. The encoding of a prefix does not depend
    on what follows, so that a scorer can reuse it.
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
        # if the policy writes one of these, it must not end a turn or a step
        special_texts = [*tokenizer.get_added_vocab(), *([reward.separator] if reward.separator else [])]
        self._special = re.compile("|".join(map(re.escape, sorted(special_texts, key=len, reverse=True))) or r"(?!)")
        self._prompt = lru_cache(PIECES_KEPT)(lambda question: tuple(prompt_ids(tokenizer, question)))
        self._words = lru_cache(PIECES_KEPT)(lambda text: tuple(encode(tokenizer, self._plain(text))))
        self._step_end = tuple(encode(tokenizer, reward.separator)) if reward.separator else ()
        self._turn_end = tuple(encode(tokenizer, turn_of(tokenizer).end))

    def text(self, question: str, run: str) -> RewardText:
        """Return the text to score. Raises UserError if the question alone is too long.

        If the run is too long, a process model reads the steps that fit (at least part of the first), and an outcome
        model reads the answer only, truncated if necessary.
        """
        prompt = self._prompt(question)
        end = self._step_end or self._turn_end
        room = self.max_length - len(prompt) - len(end)
        if room < 1:
            raise UserError(
                f"a question of {len(prompt)} tokens leaves no room for a response: the reward model reads at most"
                f" {self.max_length}; raise --rewards.max-length or choose a reward model with a longer context"
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
        """Split a run into steps, stripped and without empty ones; there is at least one."""
        parts = [step.strip() for part in self._parts(text) for step in part.split(self._step_separator)]
        return [step for step in parts if self._plain(step)] or [""]

    def response(self, text: str) -> str:
        """Return what an outcome model reads if it fits: thinking and answer, or the answer only."""
        thinking, answer = (part.strip() for part in self._parts(text))
        return self.answer(text) if self._reads == "answer" else f"{thinking}\n\n{answer}".strip()

    def answer(self, text: str) -> str:
        """Return the answer of a run, or its thinking if there is no answer."""
        thinking, answer = (part.strip() for part in self._parts(text))
        return answer or thinking

    def _plain(self, text: str) -> str:
        """Replace texts that are special tokens for the reward model by spaces, and strip."""
        return self._special.sub(" ", text).strip()

    def _parts(self, text: str) -> tuple[str, str]:
        """Split a run at its last answer marker into thinking and answer, which is empty without a marker."""
        text = text.removeprefix(self._format.think_start)
        thinking, marker, answer = text.rpartition(self._format.answer_start)
        return (thinking, answer) if marker else (text, "")
