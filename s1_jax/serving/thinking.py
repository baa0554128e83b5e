"""Whether a request thinks, and for how long: every way in which clients say so, and how they combine.

A field that turns thinking on or off, or that limits it, is a claim. Claims must agree. What no claim says is what the
server does by default, within its limits.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple

from s1_jax.config import BudgetConfig
from s1_jax.config.serve import EffortConfig
from s1_jax.decoding.core.token_ids import ignore_ids, notice_ids
from s1_jax.errors import UserError
from s1_jax.serving import fields
from s1_jax.serving.accepted import REASONING, THINKING
from s1_jax.serving.errors import ApiError
from s1_jax.serving.generation import Terms

EFFORTS = ("none", *(field.name for field in dataclasses.fields(EffortConfig)))
Effort = Annotated[
    Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None, fields.said(f"one of {', '.join(EFFORTS)}")
]
Type = Annotated[Literal["enabled", "disabled", "adaptive"] | None, fields.said("'enabled', 'disabled' or 'adaptive'")]
OWN = {  # fields of `thinking` that have one spelling, with those of BudgetConfig
    "min_tokens": "min_thinking_tokens",
    "num_ignore": "num_ignore",
    "ignore_string": "ignore_string",
    "newline_grace": "newline_grace",
    "end_bias": "end_bias",
    "notice_fractions": "notice_fractions",
    "notices": "notices",
    "banned_words": "banned_words",
    "max_repetitions": "max_repetitions",
}
MAXIMUM = "max_thinking_tokens"
NAMES = {config: f"thinking.{name}" for name, config in OWN.items()} | {MAXIMUM: "thinking.max_tokens"}
IS_NAME = re.compile(rf"\b({'|'.join(NAMES)})\b")


class ThinkingObject(fields.Fields):
    """The field `thinking`: this project's own budget, and Anthropic's switch and maximum."""

    type: Type = None
    budget_tokens: fields.MaybeCount = None
    max_tokens: fields.ThinkingTokens = None
    min_tokens: fields.MaybeWhole = None
    num_ignore: fields.MaybeWhole = None
    ignore_string: fields.TextOrTexts = None
    newline_grace: fields.Number = None
    end_bias: fields.Number = None
    notice_fractions: fields.Numbers = None
    notices: fields.Texts = None
    banned_words: fields.Texts = None
    max_repetitions: fields.MaybeWhole = None


class ReasoningObject(fields.Fields):
    """The field `reasoning`, as OpenRouter has it."""

    max_tokens: fields.MaybeCount = None
    effort: Effort = None
    enabled: fields.Flag = None


class TemplateObject(fields.Fields):
    """The field `chat_template_kwargs`, with the one argument of templates that is about thinking."""

    enable_thinking: fields.Flag = None


class ThinkingField(fields.Fields):
    """The one field about thinking that all protocols have here."""

    thinking: fields.Object = None


class ThinkingFields(ThinkingField):
    """All fields about thinking that clients of OpenAI's protocol send."""

    thinking_token_budget: fields.ThinkingTokens = None
    thinking_budget: fields.ThinkingTokens = None
    enable_thinking: fields.Flag = None
    chat_template_kwargs: fields.Object = None
    reasoning: fields.Object = None
    reasoning_effort: Effort = None


class Claim(NamedTuple):
    """What one field of a request says about thinking."""

    field: str
    value: Any
    on: bool
    limits: bool = False  # whether it says what the maximum is
    maximum: int | None = None  # thinking tokens; None: no maximum

    def __str__(self) -> str:
        return f"{self.field} {fields.shown(self.value)}"


class Thinking(NamedTuple):
    """Whether a request thinks, and its budget, which is the default one where it does not."""

    on: bool
    budget: BudgetConfig = BudgetConfig()
    turned_on: Claim | None = None  # the field of the request that turns thinking on or limits it
    turned_off: Claim | None = None


def read_thinking(body: ThinkingField, terms: Terms, by_default: bool) -> Thinking:
    """Read whether and how long a request thinks; `by_default` holds for one that does not say. Raises ApiError."""
    own = fields.read_fields(ThinkingObject, body.thinking or {}, THINKING, "thinking")
    claims = list(_claims(body, own, terms))
    turned_on = next((claim for claim in claims if claim.on), None)
    turned_off = next((claim for claim in claims if not claim.on), None)
    if turned_on and turned_off:
        raise ApiError(400, f"{turned_on} needs thinking, and {turned_off} turns it off", turned_off.field)
    if turned_off or not (turned_on or by_default):
        return Thinking(False, turned_off=turned_off)
    return Thinking(True, _budget(own, [claim for claim in claims if claim.limits], terms), turned_on)


def _claims(body: ThinkingField, own: ThinkingObject, terms: Terms) -> Iterator[Claim]:
    """List what each field says, in a fixed order."""
    if own.type in ("enabled", "disabled"):
        yield Claim("thinking.type", own.type, own.type == "enabled")
    if own.max_tokens is not None:
        yield _limit("thinking.max_tokens", own.max_tokens)
    if own.budget_tokens is not None:
        yield _limit("thinking.budget_tokens", own.budget_tokens)
    if isinstance(body, ThinkingFields):
        yield from _claims_of_others(body, terms)
    for name in OWN:
        if (value := getattr(own, name)) is not None:
            yield Claim(f"thinking.{name}", value, True)


def _claims_of_others(body: ThinkingFields, terms: Terms) -> Iterator[Claim]:
    """List what the fields of vLLM, Qwen, OpenRouter and OpenAI say."""
    template = fields.read_fields(TemplateObject, body.chat_template_kwargs or {}, {}, "chat_template_kwargs")
    reasoning = fields.read_fields(ReasoningObject, body.reasoning or {}, REASONING, "reasoning")
    switches = {
        "enable_thinking": body.enable_thinking,
        "chat_template_kwargs.enable_thinking": template.enable_thinking,
        "reasoning.enabled": reasoning.enabled,
    }
    for name, on in switches.items():
        if on is not None:
            yield Claim(name, on, on)
    for name in ("thinking_token_budget", "thinking_budget"):
        if (tokens := getattr(body, name)) is not None:
            yield _limit(name, tokens) if tokens else Claim(name, tokens, False)
    if reasoning.max_tokens is not None:
        yield _limit("reasoning.max_tokens", reasoning.max_tokens)
    for name, effort in {"reasoning.effort": reasoning.effort, "reasoning_effort": body.reasoning_effort}.items():
        if effort == "none":
            yield Claim(name, effort, False)
        elif effort is not None:
            yield Claim(name, effort, True, limits=True, maximum=_within(getattr(terms.config.effort, effort), terms))


def _limit(name: str, tokens: int) -> Claim:
    return Claim(name, tokens, True, limits=True, maximum=None if tokens == -1 else tokens)


def _within(tokens: int | None, terms: Terms) -> int | None:
    """Lower the server's own maximum to its limit."""
    ceiling = terms.config.limits.max_thinking_tokens
    return tokens if ceiling is None else ceiling if tokens is None else min(tokens, ceiling)


def _budget(own: ThinkingObject, limits: list[Claim], terms: Terms) -> BudgetConfig:
    """Put the request's fields over the server's defaults, within the server's limits."""
    config = terms.config
    given = {OWN[name]: value for name in OWN if (value := getattr(own, name)) is not None}
    if own.num_ignore is not None and own.num_ignore > config.limits.max_num_ignore:
        most = config.limits.max_num_ignore
        raise fields.wrong("thinking.num_ignore", own.num_ignore, f"at most {most}, the server's limit")
    maximum = _maximum(limits, terms)
    names = {name: NAMES[name] if name in given else f"the server's default {NAMES[name]}" for name in NAMES}
    if maximum is None:
        names[MAXIMUM] = NAMES[MAXIMUM]
    elif limits and maximum == limits[0].maximum:
        names[MAXIMUM] = limits[0].field
    elif limits or maximum != config.budget.max_thinking_tokens:
        names[MAXIMUM] = "the server's limit"
    try:
        budget = dataclasses.replace(config.budget, **given, max_thinking_tokens=maximum)
        ignore_ids(terms.tokenizer, budget)
        notice_ids(terms.tokenizer, budget.notices)
    except UserError as error:
        raise _contradiction(str(error), names) from None
    return budget


def _maximum(limits: list[Claim], terms: Terms) -> int | None:
    """Return the maximum of thinking tokens that a request gives, or else the server's."""
    if not limits:
        return _within(terms.config.budget.max_thinking_tokens, terms)
    first = limits[0]
    for other in limits[1:]:
        if other.maximum != first.maximum:
            raise ApiError(400, f"{first} and {other} disagree; give one maximum of thinking tokens", other.field)
    ceiling = terms.config.limits.max_thinking_tokens
    if ceiling is not None and first.maximum is not None and first.maximum > ceiling:
        raise fields.wrong(first.field, first.value, f"at most {ceiling}, the server's limit")
    return _within(first.maximum, terms)


def _contradiction(message: str, names: Mapping[str, str]) -> ApiError:
    """Name the options of a budget in a message as the request does."""
    found = [names[name] for name in IS_NAME.findall(message)]
    message = IS_NAME.sub(lambda match: names[match[0]], message)
    if any(name.startswith("the server's default") for name in found):
        message += "; a request can give its own"
    return ApiError(400, message, next((name for name in found if not name.startswith("the server")), None))
