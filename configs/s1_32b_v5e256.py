"""Fine-tune Qwen2.5-32B-Instruct on s1K with s1's recipe (s1-32B), on TPU v5litepod-256 (256 chips).

    python -m s1_jax.train configs/s1_32b_v5e256.py

Memory and time are planned with the TPU compiler (docs/performance.md), not measured: 8.0 of 15.8 GiB per
chip; 315 steps in 5.9 minutes, 25.3 chip-hours, without loading and compiling.
The slice has several hosts: run the same command on each, with a run_dir that all of them share.
Expected, from the paper's s1-32B without budget forcing: 50.0 on AIME24, 92.6 on MATH500, 56.6 on GPQA Diamond.
"""

from s1_jax.config import DataConfig, MeshConfig, ModelSource, TrainConfig


def get_config() -> TrainConfig:
    return TrainConfig(
        run_dir="runs/s1_32b",
        model=ModelSource(path="Qwen/Qwen2.5-32B-Instruct", remat="minimal"),
        data=DataConfig(
            path="simplescaling/s1K",
            max_length=12_288,
            row_lengths=(20_480, 22_528, 24_576, 28_672),
            batch_examples=16,
            micro_batch_rows=4,
        ),
        mesh=MeshConfig(fsdp=4, context=8, tensor=8),
    )
