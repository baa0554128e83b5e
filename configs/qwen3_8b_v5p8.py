"""Fine-tune Qwen3-8B on s1K with s1's recipe, in Qwen3's own thinking format, on TPU v5p-8 (4 chips).

    python -m s1_jax.train configs/qwen3_8b_v5p8.py

Memory and time are planned with the TPU compiler (docs/performance.md), not measured: 86.5 of 95.7 GiB per
chip; 315 steps in 24.2 minutes, 1.6 chip-hours, without loading and compiling.
Expected: a model that thinks between <think> and </think> as s1K's traces do; the paper has no scores for Qwen3.
"""

from s1_jax.config import AUTO, DataConfig, MeshConfig, ModelSource, TrainConfig


def get_config() -> TrainConfig:
    return TrainConfig(
        run_dir="runs/qwen3_8b",
        model=ModelSource(path="Qwen/Qwen3-8B", remat="mlp"),
        data=DataConfig(
            path="simplescaling/s1K",
            max_length=12_288,
            row_lengths=(20_480, 22_528, 24_576, 28_672),
            batch_examples=16,
            micro_batch_rows=4,
        ),
        mesh=MeshConfig(fsdp=4),
        format=AUTO,
    )
