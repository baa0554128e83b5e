"""Fine-tune Qwen3-32B on s1K with s1's recipe, in Qwen3's own thinking format, on TPU v5p-32 (16 chips).

    python -m s1_jax.train configs/qwen3_32b_v5p32.py

Memory and time are planned with the TPU compiler (docs/performance.md), not measured: 68.7 of 95.7 GiB per
chip; 315 steps in 26.1 minutes, 7.0 chip-hours, without loading and compiling.
The slice has several hosts: run the same command on each, with a run_dir that all of them share.
Expected: a model that thinks between <think> and </think> as s1K's traces do; the paper has no scores for Qwen3.
"""

from s1_jax.config import AUTO, DataConfig, MeshConfig, ModelSource, TrainConfig


def get_config() -> TrainConfig:
    return TrainConfig(
        run_dir="runs/qwen3_32b",
        model=ModelSource(path="Qwen/Qwen3-32B", remat="mlp"),
        data=DataConfig(
            path="simplescaling/s1K",
            max_length=12_288,
            row_lengths=(19_456, 21_504, 22_528, 24_576, 26_624, 28_672),
            batch_examples=16,
            micro_batch_rows=4,
        ),
        mesh=MeshConfig(fsdp=4, context=2, tensor=2),
        format=AUTO,
    )
