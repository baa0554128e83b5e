"""Options of every command as frozen dataclasses that check themselves, in one module per command.

Config files import from here. `s1_jax.runtime.cli` turns command lines into these classes. The options of curation are
in `s1_jax.config.curate`, and those of lm-evaluation-harness are in `s1_jax.config.lm_eval`. The text below a field is
its text in `--help` and in the command-line reference.
"""

from s1_jax.config.budget import AUTO, S1, BudgetConfig, FormatConfig, SamplingConfig, StepConfig
from s1_jax.config.endpoint import EndpointConfig, GradeConfig, JudgeConfig
from s1_jax.config.evaluate import EvaluateConfig, SettingConfig, SweepConfig, TaskConfig
from s1_jax.config.model import DecodeModelSource, HostsConfig, MeshConfig, ModelSource, StoredConfig
from s1_jax.config.model_config import ModelConfig
from s1_jax.config.rope_config import Llama3Scaling, YarnScaling
from s1_jax.config.search import RewardsConfig, SearchConfig
from s1_jax.config.train import CheckpointConfig, DataConfig, LogConfig, OptimConfig, TrainConfig, TrainLoopConfig

__all__ = [
    "AUTO",
    "S1",
    "BudgetConfig",
    "CheckpointConfig",
    "DataConfig",
    "DecodeModelSource",
    "EndpointConfig",
    "EvaluateConfig",
    "FormatConfig",
    "GradeConfig",
    "HostsConfig",
    "JudgeConfig",
    "Llama3Scaling",
    "LogConfig",
    "MeshConfig",
    "ModelConfig",
    "ModelSource",
    "OptimConfig",
    "RewardsConfig",
    "SamplingConfig",
    "SearchConfig",
    "SettingConfig",
    "StepConfig",
    "StoredConfig",
    "SweepConfig",
    "TaskConfig",
    "TrainConfig",
    "TrainLoopConfig",
    "YarnScaling",
]
