"""Fine-tunes the shipped tiny model on 1,000 generated examples.

    python -m s1_jax.quickstart --until examples
    python -m s1_jax.train configs/quickstart_sft.py

Hardware: 2 CPU cores, about 40 seconds. Expected: the loss falls from 0.75 to below 0.05, and runs/quickstart/sft/hf
holds a model that thinks in s1's format and stops too early.
"""

from importlib.resources import files

from s1_jax.config import CheckpointConfig, DataConfig, ModelSource, OptimConfig, TrainConfig, TrainLoopConfig


def get_config() -> TrainConfig:
    return TrainConfig(
        run_dir="runs/quickstart/sft",
        model=ModelSource(path=str(files("s1_jax") / "assets" / "tiny_base"), remat="none"),
        data=DataConfig(path="runs/quickstart/examples.jsonl", max_length=256, batch_examples=16, micro_batch_rows=8),
        optim=OptimConfig(peak_lr=1e-3),
        train=TrainLoopConfig(epochs=3, log_every_steps=10),
        checkpoint=CheckpointConfig(every_steps=50),
    )
