"""s1-1.5B: Qwen2.5-1.5B-Instruct fine-tuned on s1K with s1's recipe, on TPU v6e-1 (1 chip).

    python -m s1_jax.train configs/s1_1p5b_v6e1.py

Hardware and cost as planned with the TPU compiler (docs/performance.md), not yet run: 28.6 of 31.2 GiB a chip;
315 steps in 10 to 19 minutes, 0.3 chip-hours at most, without loading and compiling.
Adam's moments are kept in bfloat16; in float32 they leave no room on so few chips.
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
