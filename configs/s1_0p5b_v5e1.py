"""Fine-tune Qwen2.5-0.5B-Instruct on s1K with s1's recipe (s1-0.5B), on TPU v5litepod-1 (1 chip).

    python -m s1_jax.train configs/s1_0p5b_v5e1.py

Memory and time are planned with the TPU compiler (docs/performance.md), not measured: 12.3 of 15.8 GiB per
chip; 315 steps in 18.2 minutes, 0.3 chip-hours, without loading and compiling.
Expected: a model that thinks in s1's format; the paper has no scores for this size.
"""

from s1_jax.config import DataConfig, MeshConfig, ModelSource, TrainConfig


def get_config() -> TrainConfig:
    return TrainConfig(
        run_dir="runs/s1_0.5b",
        model=ModelSource(path="Qwen/Qwen2.5-0.5B-Instruct", remat="full"),
        data=DataConfig(
            path="simplescaling/s1K",
            max_length=12_288,
            row_lengths=(14_336, 14_848, 15_360, 15_872),
            batch_examples=16,
            micro_batch_rows=1,
        ),
        mesh=MeshConfig(fsdp=1),
    )
