"""Run EleutherAI's lm-evaluation-harness on this engine: `python -m s1_jax.lm_eval --model s1_jax ...`.

The harness has no plugins. So this command registers the model `s1_jax` and then runs the harness's own command line,
with all of its options and subcommands. In Python, `register()` does the same for `lm_eval.simple_evaluate`.
"""

from __future__ import annotations

import os

from s1_jax.errors import UserError
from s1_jax.runtime.cli import run_main

NAME, TARGET = "s1_jax", "s1_jax.harness.model:S1JaxLM"


def register() -> None:
    """Register the model with the harness, if it is not yet. Raises UserError if the harness is not installed."""
    try:
        import lm_eval.models  # noqa: F401, registers the harness's own models
        from lm_eval.api.registry import model_registry
    except ImportError:
        raise UserError("lm_eval is not installed: pip install 's1_jax[lm-eval]'") from None
    if NAME not in model_registry:
        model_registry.register(NAME, target=TARGET)


def main() -> None:
    """Run the command line of the harness."""
    os.environ.setdefault("DISABLE_MULTIPROC", "1")  # its bootstrap would fork a process that has JAX's threads
    register()
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    run_main(main)
