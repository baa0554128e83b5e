"""s1 in JAX: fine-tuning on long reasoning, thinking budgets, and the sweeps that show what they buy."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from s1_jax.runtime.platforms import choose_platform

if TYPE_CHECKING:
    from s1_jax.api import (
        BudgetConfig,
        Engine,
        FormatConfig,
        LoadedModel,
        MeshConfig,
        Request,
        RunError,
        SamplingConfig,
        StoredConfig,
        UserError,
        load_model,
    )

if sys.argv[:1] == ["-m"]:  # so it is while Python looks for the module of `python -m s1_jax.train`
    from s1_jax.runtime.signals import end_at_once

    end_at_once()  # a command is heard from here on: what it imports takes seconds

choose_platform()  # before anything imports JAX

# transformers would warn that PyTorch is absent; only its tokenizers are used
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

__version__ = "0.1.0"
__all__ = [
    "BudgetConfig",
    "Engine",
    "FormatConfig",
    "LoadedModel",
    "MeshConfig",
    "Request",
    "RunError",
    "SamplingConfig",
    "StoredConfig",
    "UserError",
    "load_model",
]


def __getattr__(name: str) -> Any:
    # On first use: the model stack takes seconds to import, which `--help` and the ground files do without.
    if name in __all__:
        from s1_jax import api

        return getattr(api, name)
    raise AttributeError(f"module 's1_jax' has no attribute {name!r}")
