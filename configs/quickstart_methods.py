"""Compare budget forcing with majority voting, best-of-N, beam search, DVTS, REBASE and MCTS on the quickstart's model.

    python -m s1_jax.evaluate configs/quickstart_methods.py

The reward models are the tiny ones of the package (scripts/make_tiny_reward.py). All methods use the same decoder;
methods.png plots accuracy against generated tokens, the longest run and time.
Hardware: 2 CPU cores, about 6 minutes. Expected: above 80% for 16 runs weighted by the outcome model, above 70% for 16
runs of REBASE, and above 90% for "Wait" appended twice, with a tenth of their tokens.
"""

from importlib.resources import files

from s1_jax.config import (
    BudgetConfig,
    EvaluateConfig,
    ModelSource,
    RewardsConfig,
    SamplingConfig,
    SearchConfig,
    SettingConfig,
    StepConfig,
    SweepConfig,
    TaskConfig,
)
from s1_jax.config.search import MethodName

ASSETS = files("s1_jax") / "assets"
WIDTHS = (4, 16)
BY_STEPS: tuple[MethodName, ...] = ("beam", "dvts", "rebase", "mcts")


def get_config() -> EvaluateConfig:
    sampled = SamplingConfig(temperature=1.0)
    searches = []
    for width in WIDTHS:
        votes = SearchConfig(width=width, vote="majority")
        searches += [
            SettingConfig(sampling=sampled, search=votes),
            SettingConfig(BudgetConfig(num_ignore=2), sampling=sampled, search=votes),  # both combined
            SettingConfig(sampling=sampled, search=SearchConfig(width=width, vote="best"), reward="outcome"),
            SettingConfig(sampling=sampled, search=SearchConfig(width=width, vote="best"), reward="process"),
            SettingConfig(sampling=sampled, search=SearchConfig(width=width), reward="outcome"),
            *(
                SettingConfig(sampling=sampled, search=SearchConfig(method, width), reward="process")
                for method in BY_STEPS
            ),
        ]
    return EvaluateConfig(
        run_dir="runs/quickstart/methods",
        model=ModelSource(path="runs/quickstart/sft/hf"),
        task=TaskConfig(name="synthetic", limit=100),
        sweep=SweepConfig(num_ignore=(0, 1, 2, 4), extra=tuple(searches)),
        steps=StepConfig(separator="\n"),
        rewards=RewardsConfig(str(ASSETS / "tiny_reward_process"), str(ASSETS / "tiny_reward_outcome")),
        max_answer_tokens=8,
        max_model_len=256,
        batch_size=64,
    )
