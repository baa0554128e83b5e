"""Evaluate the model of configs/quickstart_sft.py on 500 held-out problems with growing maxima of thinking tokens.

    python -m s1_jax.evaluate configs/quickstart_sweep.py

Up to four ends of thinking are ignored with "Wait", so that thinking is limited by the maximum.
Hardware: 2 CPU cores, about 20 seconds. Expected: accuracy near chance (1%) at 16 thinking tokens, above 90%
without a maximum.
"""

from s1_jax.config import EvaluateConfig, ModelSource, SweepConfig, TaskConfig


def get_config() -> EvaluateConfig:
    return EvaluateConfig(
        run_dir="runs/quickstart/sweep",
        model=ModelSource(path="runs/quickstart/sft/hf"),
        task=TaskConfig(name="synthetic", limit=500),
        sweep=SweepConfig(
            max_thinking_tokens=(16, 32, 64, 96, 128, 160, None), num_ignore=(4,), ignore_strings=("Wait",)
        ),
        max_answer_tokens=8,
        max_model_len=256,
        batch_size=256,
    )
