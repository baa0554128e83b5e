"""s1's 11 settings on AIME24 with s1-32B: seven maxima, and the end of thinking ignored 1, 2, 4 and 6 times.

    python -m s1_jax.evaluate configs/sweep_32b_v6e8.py

Hardware and cost as planned with the TPU compiler (docs/performance.md), not yet run: v6e-8 (8 chips), 30.9 of
31.2 GiB a chip with 17 rows of 32,768 tokens. A step gives each row a token and takes 16.6 ms with full caches,
11.1 with half full ones, so a trace that fills its context takes 6 minutes, 0.8 chip-hours; loading the
checkpoint (131 GB), compiling and the answers come on top.
Expected: the paper has 50.0 without forcing and 56.7 as the best of its budgets, at 7,320 thinking tokens.
"""

from s1_jax.config import BudgetConfig, EvaluateConfig, MeshConfig, ModelSource, SettingConfig, SweepConfig, TaskConfig


def get_config() -> EvaluateConfig:
    waits = [SettingConfig(BudgetConfig(num_ignore=count)) for count in (1, 2, 4, 6)]
    return EvaluateConfig(
        run_dir="runs/sweep_32b",
        model=ModelSource(path="simplescaling/s1-32B"),
        task=TaskConfig(name="aime24"),
        sweep=SweepConfig(max_thinking_tokens=(500, 1000, 2000, 4000, 8000, 16000, None), extra=tuple(waits)),
        max_answer_tokens=2048,
        max_model_len=32_768,
        batch_size=17,
        mesh=MeshConfig(fsdp=1, tensor=8),
    )
