"""From the turns of a chat to the tokens of a prompt, and where the model goes on from there."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from s1_jax.data.chat import encode, ends_in, prompt_text, rendered
from s1_jax.errors import UserError
from s1_jax.serving.errors import ApiError, refusal, too_long
from s1_jax.serving.generation import Terms
from s1_jax.serving.thinking import Thinking

Turn = dict[str, str]  # role, content and, of the assistant's, reasoning_content


class Prompt(NamedTuple):
    """The tokens that the model reads first, and whether it thinks then."""

    token_ids: tuple[int, ...]  # without the start marker, unless the chat template writes it
    thinking: bool
    given_thinking: tuple[int, ...] = ()


class Conversation(NamedTuple):
    """The turns of a chat, and whether the last of them, which is the assistant's, is to be continued."""

    turns: Sequence[Turn]
    continues: bool

    @property
    def in_thinking(self) -> bool:
        """Whether the turn that is to be continued has thinking and no answer yet."""
        return self.continues and bool(self.turns[-1].get("reasoning_content")) and not self.turns[-1]["content"]


def chat_prompt(conversation: Conversation, thinking: Thinking, terms: Terms) -> Prompt:
    """Render a conversation up to the assistant's turn, or up to the end of the one that is to be continued.

    Raises ApiError where it cannot be continued so, and where the chat template refuses it.
    """
    turns = conversation.turns
    if len(turns) > terms.max_model_len:  # each is a token or more, and templates take their time with so many
        raise too_long(f"there are {len(turns):,} messages", terms)
    if not conversation.continues:
        text = _open_turn(turns, thinking.on, terms)
        return Prompt(_ids(text, terms), thinking.on)
    *earlier, last = turns
    if conversation.in_thinking:
        if off := thinking.turned_off:
            raise ApiError(
                400, f"the last message has only thinking to continue, and {off} turns thinking off", off.field
            )
        text = _open_turn(earlier, True, terms)
        return Prompt(_ids(text, terms), True, _ids(last["reasoning_content"], terms))
    if not last["content"]:
        raise ApiError(400, "the last message is to be continued, but it is empty", "messages")
    if asked := thinking.turned_on:
        raise ApiError(400, f"{asked} needs thinking, but the last message is already in its answer", asked.field)
    return Prompt(_ids(_in_answer(earlier, last, terms), terms), False)


def _ids(text: str, terms: Terms) -> tuple[int, ...]:
    return tuple(encode(terms.tokenizer, text))


def _open_turn(turns: Sequence[Turn], thinking: bool, terms: Terms) -> str:
    """Render turns and the beginning of the assistant's, in which thinking is over already if it is off.

    A template with `enable_thinking` sees to that by itself. Without one, a model that thinks by default would go on to
    think, so an empty thinking is written.
    """
    text = _rendered(turns, terms, add_generation_prompt=True, thinking=thinking)
    if thinking or _has_switch(terms.tokenizer, str(terms.tokenizer.chat_template)):
        return text
    if terms.config.thinking or ends_in(text, terms.format.think_start):
        return _thought(text, "", terms)
    return text


def _in_answer(earlier: Sequence[Turn], last: Turn, terms: Terms) -> str:
    """Render a conversation up to the end of an answer that has begun, with its thinking before it."""
    if not last.get("reasoning_content"):
        return _rendered([*earlier, last], terms, continue_final_message=True, thinking=False)
    text = _rendered(earlier, terms, add_generation_prompt=True, thinking=True)
    thought = _thought(text, last["reasoning_content"], terms)
    # the reply's own white space, where it has any
    return (thought.rstrip() if last["content"][:1].isspace() else thought) + last["content"]


def _thought(prompt: str, reasoning: str, terms: Terms) -> str:
    """Append a thinking that has ended, up to where the answer begins, as in the texts that models are trained on."""
    marked = prompt if ends_in(prompt, terms.format.think_start) else prompt + terms.format.think_start
    if not (marked[-1:].isspace() or reasoning[:1].isspace()):
        marked += "\n"
    final = terms.format.final_answer
    space = final[: len(final) - len(final.lstrip())]
    newline = "" if reasoning.endswith("\n") else "\n"
    return f"{marked}{reasoning}{newline}{terms.format.answer_start}{space}"


def _rendered(turns: Sequence[Turn], terms: Terms, **how: Any) -> str:
    try:
        return rendered(terms.tokenizer, turns, **how)
    except UserError as error:
        raise refusal(error, terms, "messages") from None


@lru_cache(maxsize=16)
def _has_switch(tokenizer: PreTrainedTokenizerBase, template: str) -> bool:
    """Return whether the chat template writes another prompt for an answer without thinking."""
    return prompt_text(tokenizer, "?", thinking=True) != prompt_text(tokenizer, "?", thinking=False)
