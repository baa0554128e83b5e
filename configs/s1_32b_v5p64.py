"""Fine-tune Qwen2.5-32B-Instruct on s1K with s1's recipe (s1-32B), on TPU v5p-64 (32 chips).

    python -m s1_jax.train configs/s1_32b_v5p64.py

Memory and time are planned with the TPU compiler (docs/performance.md), not measured: 56.0 of 95.7 GiB per
chip; 315 steps in 11.4 minutes, 6.1 chip-hours, without loading and compiling.
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
            row_lengths=(20_480, 21_504, 22_528, 24_576, 26_624, 28_672),
            batch_examples=16,
            micro_batch_rows=4,
        ),
        mesh=MeshConfig(fsdp=4, context=4, tensor=2),
    )
