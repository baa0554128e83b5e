"""Budget forcing beside majority, best-of-N, beam search, DVTS, REBASE and MCTS, with the quickstart's model.

    python -m s1_jax.evaluate configs/quickstart_methods.py

The reward models are the tiny ones that ship with the package (scripts/make_tiny_reward.py). Every method runs on the
same decoder; methods.png sets their accuracy against what they generate, their longest run and the clock.
Hardware: 2 CPU cores, about 6 minutes. Expected: the vote of 16 runs weighted by the outcome model above 80%, 16
REBASE runs above 70%, "Wait" put in twice above 90% for a tenth of their tokens.
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
    drawn = SamplingConfig(temperature=1.0)
    searches = []
    for width in WIDTHS:
        votes = SearchConfig(width=width, vote="majority")
        searches += [
            SettingConfig(sampling=drawn, search=votes),
            SettingConfig(BudgetConfig(num_ignore=2), sampling=drawn, search=votes),  # both ways at once
            SettingConfig(sampling=drawn, search=SearchConfig(width=width, vote="best"), reward="outcome"),
            SettingConfig(sampling=drawn, search=SearchConfig(width=width, vote="best"), reward="process"),
            SettingConfig(sampling=drawn, search=SearchConfig(width=width), reward="outcome"),
            *(
                SettingConfig(sampling=drawn, search=SearchConfig(method, width), reward="process")
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
