"""s1-32B: Qwen2.5-32B-Instruct fine-tuned on s1K with s1's recipe.

    python -m s1_jax.train configs/s1_32b_v5p64.py

Hardware: TPU v5p-64 (32 chips): fsdp 8 x tensor 4, float32 master weights and moments (16 bytes a parameter, 16.4 GB
a chip). Cost: a roofline estimate, not a measurement: 12 to 15 minutes of compute for 315 steps at 45% MFU. Not yet run
on that hardware, whose several hosts the trainer does not start together yet.
Expected: the paper's s1-32B without forcing has 50.0 on AIME24, 92.6 on MATH500, 56.6 on GPQA Diamond.
"""

from s1_jax.config import DataConfig, MeshConfig, ModelSource, TrainConfig


def get_config() -> TrainConfig:
    return TrainConfig(
        run_dir="runs/s1_32b",
        model=ModelSource(path="Qwen/Qwen2.5-32B-Instruct", remat="full"),
        # A step of s1 holds about 90,000 tokens: 8 rows of 12,288. A longer example is an error that names it.
        data=DataConfig(
            path="simplescaling/s1K", max_length=12288, too_long="error", batch_examples=16, micro_batch_rows=8
        ),
        mesh=MeshConfig(fsdp=8, tensor=4),
    )
