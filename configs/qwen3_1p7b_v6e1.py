"""Fine-tune Qwen3-1.7B on s1K with s1's recipe, in Qwen3's own thinking format, on TPU v6e-1 (1 chip).

    python -m s1_jax.train configs/qwen3_1p7b_v6e1.py

Memory and time are planned with the TPU compiler (docs/performance.md), not measured: 30.7 of 31.2 GiB per
chip; 315 steps in 16.2 minutes, 0.3 chip-hours, without loading and compiling.
Adam's moments are in bfloat16; in float32 they do not fit on so few chips.
Expected: a model that thinks between <think> and </think> as s1K's traces do; the paper has no scores for Qwen3.
"""

from s1_jax.config import AUTO, DataConfig, MeshConfig, ModelSource, OptimConfig, TrainConfig


def get_config() -> TrainConfig:
    return TrainConfig(
        run_dir="runs/qwen3_1p7b",
        model=ModelSource(path="Qwen/Qwen3-1.7B", remat="offload"),
        data=DataConfig(
            path="simplescaling/s1K",
            max_length=12_288,
            row_lengths=(12_288, 12_800, 13_312, 13_824),
            batch_examples=16,
            micro_batch_rows=1,
        ),
        optim=OptimConfig(moments="bfloat16"),
        mesh=MeshConfig(fsdp=1),
        format=AUTO,
    )
