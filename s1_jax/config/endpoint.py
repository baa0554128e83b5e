"""Options of a model that answers questions: a judge of answers, a teacher or a solver of curation."""

from __future__ import annotations

import dataclasses
import re
from typing import Annotated, Literal

from s1_jax.config.budget import S1, FormatConfig
from s1_jax.config.endpoint_url import is_unencrypted, url_mistake
from s1_jax.config.model import MeshConfig
from s1_jax.config.options import Count, NotNegative, Options, Range
from s1_jax.config.types import Switch, Temperature
from s1_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class EndpointConfig(Options):
    """A model that answers questions, behind an endpoint in OpenAI's form or decoded here."""

    model: str = ""
    """Name of the model at the endpoint. Without base_url it is the folder or hub id of a model that is decoded here;
    empty is no model."""
    base_url: str | None = None
    """URL of an endpoint that speaks OpenAI's protocol, up to and including /v1. With None the model is decoded
    here."""
    key_variable: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the endpoint's key, never the key itself. It may be unset if the
    endpoint needs no key."""
    temperature: Temperature | None = 0.0
    """Sampling temperature; 0 is greedy. None leaves it out of the request, for endpoints that refuse one; a model
    decoded here is then greedy."""
    max_tokens: Count = 16_384
    """Maximum number of tokens of one reply, thinking included."""
    concurrent: Annotated[int, Range(1, 1000)] = 16
    """Number of requests at a time; rows of the batch if the model is decoded here."""
    requests_per_minute: Annotated[int, Range(1, 10**6)] = 600
    """Maximum number of requests per minute to an endpoint."""
    timeout_seconds: Annotated[float, Range(0, 86_400, above=True)] = 600.0
    """Seconds after which a request to an endpoint is given up and tried again."""
    attempts: Annotated[int, Range(1, 100)] = 8
    """Maximum number of attempts at one request, with growing pauses between them."""
    thinking: Switch = True
    """Let a model that is decoded here think first, after the start marker of its format; false is for plain instruct
    models."""
    mesh: MeshConfig = MeshConfig()
    """Devices of a model that is decoded here."""
    dollars_per_million_tokens: tuple[NotNegative, NotNegative] = (0.0, 0.0)
    """Price in dollars of a million tokens read and of a million written, for the cost that is shown."""
    max_tokens_field: Literal["auto", "max_tokens", "max_completion_tokens", "none"] = "auto"
    """Name of the request's field for max_tokens. auto is max_tokens, and max_completion_tokens if the endpoint asks
    for it; none leaves the limit out."""
    plain_http: Switch = False
    """Allow http:// to another machine, over which key, prompts and replies travel unencrypted."""
    format: FormatConfig = S1
    """How a model that is decoded here marks its thinking."""

    def __post_init__(self) -> None:
        super().__post_init__()
        name = self.section
        if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", self.key_variable):  # not shown: it may be the key itself
            raise UserError(f"{name}key_variable must be the name of an environment variable, never the key itself")
        if self.base_url is None:
            return
        if mistake := url_mistake(self.base_url):
            raise UserError(f"{name}base_url {mistake}")
        if not self.model:
            raise UserError(f"{name}base_url needs {name}model, the model's name at the endpoint")
        if is_unencrypted(self.base_url) and not self.plain_http:
            raise UserError(
                f"{name}base_url is http:// to another machine: the key, prompts and replies would go there "
                f"unencrypted; use https://, or allow it with {name}plain_http true"
            )


@dataclasses.dataclass(frozen=True)
class JudgeConfig(EndpointConfig, section="judge"):
    """An LLM that grades answers which no rule could; without a model the rules alone decide."""

    max_tokens: Count = 4096
    """Maximum number of tokens of one reply, thinking included; a judge that reasons needs room before its verdict."""
    requests_per_minute: Annotated[int, Range(1, 10**6)] = 60
    """Maximum number of requests per minute to an endpoint."""


@dataclasses.dataclass(frozen=True)
class GradeConfig(Options):
    """Options of `python -m s1_jax.grade RUN_DIR`."""

    judge: JudgeConfig = JudgeConfig()
    """The judge of answers that the rules leave open."""
