"""Options of `python -m s1_jax.serve`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from s1_jax.config.budget import S1, BudgetConfig, FormatConfig, SamplingConfig
from s1_jax.config.model import DecodeModelSource, MeshConfig, StoredConfig
from s1_jax.config.options import LARGEST, Count, Options, Range, Whole
from s1_jax.config.types import Rows, Switch
from s1_jax.errors import UserError

Port = Annotated[int, Range(0, 65_535)]
Seconds = Annotated[float, Range(0, 86_400)]


@dataclass(frozen=True)
class EffortConfig(Options, section="effort"):
    """Maximum number of thinking tokens for each `reasoning_effort` of OpenAI's protocol; None is no maximum.

    The effort "none" turns thinking off.
    """

    minimal: Whole | None = 128
    """Maximum number of thinking tokens with reasoning_effort minimal."""
    low: Whole | None = 512
    """Maximum number of thinking tokens with reasoning_effort low."""
    medium: Whole | None = 2048
    """Maximum number of thinking tokens with reasoning_effort medium."""
    high: Whole | None = 8192
    """Maximum number of thinking tokens with reasoning_effort high."""
    xhigh: Whole | None = None
    """Maximum number of thinking tokens with reasoning_effort xhigh."""


@dataclass(frozen=True)
class LimitsConfig(Options, section="limits"):
    """Upper bounds of what one request may ask for, and of how much may wait."""

    max_thinking_tokens: Count | None = None
    """Maximum number of thinking tokens that a request may ask for; a request without a maximum gets this one. None is
    no bound."""
    max_num_ignore: Whole = 64
    """Maximum number of suppressed end-of-thinking markers that a request may ask for; more is status 400."""
    max_completion_tokens: Count | None = None
    """Maximum number of tokens of thinking, markers and answer together that a request may ask for; more is status
    400. None is what fits into --max-model-len."""
    max_choices: Annotated[int, Range(1, 10_000)] = 64
    """Maximum number of choices of one request: its prompts times its n."""
    max_waiting: Whole = 256
    """Maximum number of choices that wait for a row of the batch; a request beyond that is refused with status 429,
    unless nothing else is running."""
    max_body_bytes: Annotated[int, Range(1024, LARGEST)] = 4 * 2**20
    """Maximum size of a request's body in bytes; a larger one is refused with status 413."""
    request_seconds: Annotated[float, Range(1, 86_400)] = 3600.0
    """Seconds after which a request that is not finished is given up with status 504."""


@dataclass(frozen=True)
class ServeConfig(Options):
    """Options of `python -m s1_jax.serve`."""

    model: DecodeModelSource = DecodeModelSource()
    served_model_name: str | None = None
    """Name of the model in requests and replies; None is the value of --model.path."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 is every interface of the machine, where requests should need a key."""
    port: Port = 8000
    """Port to listen on; 0 chooses a free one."""
    api_key_variable: str | None = None
    """Name of the environment variable that holds the keys, separated by commas, of which each request must bring one.
    With None, requests need no key."""
    max_model_len: Count | None = None
    """Maximum number of tokens of prompt, thinking and answer together; None is the model's context. With fewer, the
    server needs less memory and starts sooner."""
    batch_size: Rows = 32
    """Maximum number of choices decoded at a time. The batch shrinks while fewer are running."""
    thinking: Switch = True
    """Let chat requests think unless they turn it off; false is for models that were not trained to."""
    budget: BudgetConfig = BudgetConfig()
    """Thinking budget of a request that brings none; what a request brings replaces it field by field."""
    sampling: SamplingConfig = SamplingConfig(temperature=1.0)
    """Sampling of a request, where it does not say otherwise."""
    effort: EffortConfig = EffortConfig()
    limits: LimitsConfig = LimitsConfig()
    format: FormatConfig = S1
    stored: StoredConfig = StoredConfig()
    mesh: MeshConfig = MeshConfig()
    prefix_cache_tokens: Whole | None = None
    """Number of tokens whose keys and values are kept of past prompts and replies, to be read again if a prompt begins
    with them; 0 turns it off, and None is four times --max-model-len."""
    drain_seconds: Seconds = 30.0
    """Seconds for which SIGTERM or Ctrl-C lets running requests finish; new ones are refused meanwhile."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages that may call the server, such as https://example.org, or * for all of them."""
    example: str | None = None
    """Question that the page offers as an example; with None it offers none."""
    log_seconds: Seconds = 10.0
    """Seconds between two lines on standard error about the load, while there is any; 0 prints none."""
    log_prompts: Switch = False
    """Print the text of each prompt to standard error."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.api_key_variable and not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", self.api_key_variable):
            raise UserError("api_key_variable must be the name of an environment variable, never the key itself")
        if not self.budget.forcing:
            raise UserError("budget.forcing is false; the server always enforces its budgets")
