"""The public names of the Python API; `import s1_jax` gives each of them on first use.

import s1_jax

model = s1_jax.load_model("simplescaling/s1.1-32B", dtype="auto", mesh={"tensor": 8})
(record,) = model.generate(["How many r's are in raspberry?"], budget={"max_thinking_tokens": 2048})
"""

from s1_jax.config import BudgetConfig, FormatConfig, MeshConfig, SamplingConfig, StoredConfig
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.engine import Engine
from s1_jax.decoding.loaded_model import LoadedModel, load_model
from s1_jax.errors import RunError, UserError

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
