"""Fine-tune Qwen2.5-1.5B-Instruct on s1K with s1's recipe (s1-1.5B), on TPU v6e-1 (1 chip).

    python -m s1_jax.train configs/s1_1p5b_v6e1.py

Memory and time are planned with the TPU compiler (docs/performance.md), not measured: 28.5 of 31.2 GiB per
chip; 315 steps in 13.2 minutes, 0.2 chip-hours, without loading and compiling.
Adam's moments are in bfloat16; in float32 they do not fit on so few chips.
Expected: a model that thinks in s1's format; the paper has no scores for this size.
"""

from s1_jax.config import DataConfig, MeshConfig, ModelSource, OptimConfig, TrainConfig


def get_config() -> TrainConfig:
    return TrainConfig(
        run_dir="runs/s1_1.5b",
        model=ModelSource(path="Qwen/Qwen2.5-1.5B-Instruct", remat="full"),
        data=DataConfig(
            path="simplescaling/s1K",
            max_length=12_288,
            row_lengths=(14_336, 14_848, 15_360, 15_872),
            batch_examples=16,
            micro_batch_rows=1,
        ),
        optim=OptimConfig(moments="bfloat16"),
        mesh=MeshConfig(fsdp=1),
    )
