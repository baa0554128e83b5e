"""Options of `python -m s1_jax.quickstart`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from s1_jax.config.options import Options, Place
from s1_jax.config.types import Epochs, Limit


@dataclass(frozen=True)
class QuickstartConfig(Options):
    """Options of `python -m s1_jax.quickstart`."""

    run_dir: Place = "runs/quickstart"
    """Folder to write: the examples, the fine-tuned model and the sweep. A stopped quickstart resumes from it."""
    until: Literal["examples", "train", "sweep", "compare"] = "compare"
    """Last step to run: make the examples, fine-tune, sweep the thinking budgets, compare with other methods."""
    epochs: Epochs = 3
    """Number of passes of the fine-tuning over the 1,000 examples."""
    problems: Limit = 500
    """Number of held-out problems in the sweep and in the comparison."""
