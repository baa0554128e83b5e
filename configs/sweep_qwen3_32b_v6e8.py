"""Evaluate Qwen3-32B on AIME24 with s1's 11 settings: seven maxima, and 1, 2, 4 and 6 ignored ends of thinking.

    python -m s1_jax.evaluate configs/sweep_qwen3_32b_v6e8.py

Hardware: v6e-8 (8 chips). Cost, planned with the TPU compiler (docs/performance.md), not measured: 30.2 of
31.2 GiB per chip with 17 rows of 32,768 tokens. A step adds a token to each row and takes 16.6 ms with full caches
and 11.0 ms with half full ones. A trace that fills its context takes 6 minutes, 0.8 chip-hours. Loading the
checkpoint (66 GB), compiling and answering add to that.
"""

from s1_jax.config import (
    AUTO,
    BudgetConfig,
    EvaluateConfig,
    MeshConfig,
    ModelSource,
    SettingConfig,
    SweepConfig,
    TaskConfig,
)


def get_config() -> EvaluateConfig:
    waits = [SettingConfig(BudgetConfig(num_ignore=count)) for count in (1, 2, 4, 6)]
    return EvaluateConfig(
        run_dir="runs/sweep_qwen3_32b",
        model=ModelSource(path="Qwen/Qwen3-32B"),
        task=TaskConfig(name="aime24"),
        sweep=SweepConfig(max_thinking_tokens=(500, 1000, 2000, 4000, 8000, 16000, None), extra=tuple(waits)),
        max_answer_tokens=2048,
        max_model_len=32_768,
        batch_size=17,
        mesh=MeshConfig(fsdp=1, tensor=8),
        format=AUTO,
    )
