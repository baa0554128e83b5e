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
    """A model that answers questions: behind an endpoint in OpenAI's form, or decoded here."""

    model: str = ""  # its name at the endpoint, or a folder or hub id where there is none
    base_url: str | None = None  # of an endpoint that speaks OpenAI's protocol, up to and with /v1; none: decoded here
    key_variable: str = "OPENAI_API_KEY"  # the environment variable with the key, if it needs one
    # None: the request has none, for endpoints that refuse one; decoded here: greedy
    temperature: Temperature | None = 0.0
    max_tokens: Count = 16_384  # of one answer, thinking included
    concurrent: Annotated[int, Range(1, 1000)] = 16  # requests at a time; decoded here: rows of the batch
    requests_per_minute: Annotated[int, Range(1, 10**6)] = 600  # at most
    timeout_seconds: Annotated[float, Range(0, 86_400, above=True)] = 600.0  # of one request
    attempts: Annotated[int, Range(1, 100)] = 8  # at one request, ever longer apart
    thinking: Switch = True  # decoded here: after the start marker of `format`; false for plain instruct models
    mesh: MeshConfig = MeshConfig()  # decoded here
    # read and written, for the cost that is shown
    dollars_per_million_tokens: tuple[NotNegative, NotNegative] = (0.0, 0.0)
    # the request's field for max_tokens; auto: max_tokens, and the newer name where the endpoint asks for it; none: the
    # request has no limit but the endpoint's own
    max_tokens_field: Literal["auto", "max_tokens", "max_completion_tokens", "none"] = "auto"
    plain_http: Switch = False  # allow http:// to other machines: the key, prompts and replies go there unencrypted
    format: FormatConfig = S1  # decoded here: how the model marks its thinking

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
    """An LLM that decides on answers which no rule could; without a model the rules alone decide."""

    max_tokens: Count = 4096  # of one answer, thinking included: a judge that reasons needs room before its yes or no
    requests_per_minute: Annotated[int, Range(1, 10**6)] = 60  # at most


@dataclasses.dataclass(frozen=True)
class GradeConfig(Options):
    """Options of `python -m s1_jax.grade RUN_DIR`."""

    judge: JudgeConfig = JudgeConfig()
