"""Serve a model with thinking budgets to any client of OpenAI's or Anthropic's protocol.

`python -m s1_jax.serve --model.path DIR_OR_HUB_ID` listens at http://127.0.0.1:8000/v1. Each request may bring its own
minimum and maximum of thinking, and how often the model goes on with "Wait". The page at http://127.0.0.1:8000/ is a
chat that shows the thinking as it happens.
"""

from __future__ import annotations

import os
import sys
import time

from s1_jax.config.serve import ServeConfig
from s1_jax.data.formats import resolve_format
from s1_jax.decoding.engine import Engine
from s1_jax.decoding.loaded_model import LoadedModel, load_model
from s1_jax.errors import UserError
from s1_jax.runtime.cli import parse_with_file, program, run_main
from s1_jax.runtime.stages import Stages
from s1_jax.runtime.terminal import say

try:
    from s1_jax.serving.generation import Terms
    from s1_jax.serving.listen import bind, serve, url_of
except ModuleNotFoundError as missing:
    MISSING: str | None = missing.name
else:
    MISSING = None

PREFIXES = 4  # tokens of the prefix cache, times max_model_len


def main(argv: list[str] | None = None) -> None:
    """Run the command, from its options to its end. Raises UserError, and RunError where the engine fails."""
    # Options
    if MISSING is not None:
        raise UserError(f"{MISSING} is not installed: pip install 's1_jax[serve]'")
    argv = sys.argv[1:] if argv is None else argv
    config = parse_with_file(ServeConfig, argv, program("serve"), __doc__) if argv else ServeConfig()
    keys = read_keys(config.api_key_variable)
    check_hosts()
    bound = bind(config.host, config.port)  # before minutes of loading

    # Model
    with Stages() as stages:
        stages.at(f"loading {config.model.path}", quiet=True)
        model = load_model(config.model.path, config.model.dtype, config.stored, mesh=config.mesh, format=config.format)
        if line := resolve_format(config.format, model.tokenizer)[1]:
            say(line, file=sys.stderr)
        engine = model.engine(config.max_model_len, config.batch_size, scores=True)
        stages.at("compiling the programs of all sizes")
        began = time.perf_counter()
        queue = engine.queue(prefix_tokens(config, engine))
    seconds = time.perf_counter() - began
    say(f"compiled {engine.num_compiled} programs in {seconds:.0f} seconds; no request compiles more", file=sys.stderr)

    # Requests
    terms = make_terms(config, model, engine)
    say(
        f"{terms.model_name}: batch size {config.batch_size}, at most {terms.max_model_len:,} tokens each; "
        f"the page is {url_of(bound)}/ and the API {url_of(bound)}/v1",
        file=sys.stderr,
    )
    serve(terms, engine, queue, keys, bound)


def read_keys(variable: str | None) -> tuple[str, ...]:
    """Read the keys that requests must bring. Raises UserError where the variable is not set."""
    if variable is None:
        return ()
    keys = tuple(filter(None, map(str.strip, os.environ.get(variable, "").split(","))))
    if not keys:
        raise UserError(f"api_key_variable: the environment variable {variable} is not set")
    return keys


def check_hosts() -> None:
    """Raise UserError on a TPU slice of several hosts, unless this process is told to take its own host's chips."""
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
    if len(hosts) > 1 and "TPU_PROCESS_BOUNDS" not in os.environ:
        raise UserError(
            f"this slice has {len(hosts)} hosts, and a server serves the chips of one: start one on each host with "
            "TPU_PROCESS_BOUNDS=1,1,1 TPU_CHIPS_PER_PROCESS_BOUNDS=2,2,1 (its chips), and a load balancer before them"
        )


def prefix_tokens(config: ServeConfig, engine: Engine) -> int:
    """Return how many tokens of past prompts and replies are kept."""
    given = config.prefix_cache_tokens
    return PREFIXES * engine.max_model_len if given is None else given


def make_terms(config: ServeConfig, model: LoadedModel, engine: Engine) -> Terms:
    """Return what the server offers."""
    return Terms(
        config,
        model.tokenizer,
        engine.format,
        engine.max_model_len,
        model.config.vocab_size,
        config.served_model_name or config.model.path,
        int(time.time()),
    )


if __name__ == "__main__":
    run_main(main)
