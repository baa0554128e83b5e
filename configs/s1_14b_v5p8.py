"""Fine-tune Qwen2.5-14B-Instruct on s1K with s1's recipe (s1-14B), on TPU v5p-8 (4 chips).

    python -m s1_jax.train configs/s1_14b_v5p8.py

Memory and time are planned with the TPU compiler (docs/performance.md), not measured: 79.9 of 95.7 GiB per
chip; 315 steps in 45.7 minutes, 3.0 chip-hours, without loading and compiling.
Expected: a model that thinks in s1's format; the paper has no scores for this size.
"""

from s1_jax.config import DataConfig, MeshConfig, ModelSource, TrainConfig


def get_config() -> TrainConfig:
    return TrainConfig(
        run_dir="runs/s1_14b",
        model=ModelSource(path="Qwen/Qwen2.5-14B-Instruct", remat="offload"),
        data=DataConfig(
            path="simplescaling/s1K",
            max_length=12_288,
            row_lengths=(20_480, 22_528, 24_576, 28_672),
            batch_examples=16,
            micro_batch_rows=4,
        ),
        mesh=MeshConfig(fsdp=4),
    )
