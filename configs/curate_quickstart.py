"""The making of a data set in small, offline: questions of the tiny task, a teacher, a solver, 1,000 chosen examples.

    ./scripts/quickstart_curate.sh
    python -m s1_jax.curate configs/curate_quickstart.py     # the same without the models before and after it

The teacher is the model that configs/quickstart_sft.py makes, which stops thinking too early by construction; the
solver is the tiny base model it came from. A question's domain is its number of updates.
Hardware: 2 CPU cores, about 2 minutes. Expected: 3,000 questions, 2,979 with a trace, 2,897 of them hard, 1,000 chosen
with 74 thinking tokens on average beside 53 of 1,000 random ones.
"""

from importlib.resources import files

from s1_jax.config.curate import CollectConfig, CurateConfig, DecontaminateConfig, EndpointConfig, GenerateStageConfig

BASE = str(files("s1_jax") / "assets" / "tiny_base")


def get_config() -> CurateConfig:
    return CurateConfig(
        run_dir="runs/quickstart/curate",
        tokenizer=BASE,
        collect=CollectConfig(sources=("synthetic",), limit=3000),
        # all questions are made of the same words, so that only long runs of them say that two are one
        decontaminate=DecontaminateConfig(tasks=("synthetic",), words=16, near_duplicates=None),
        generate=GenerateStageConfig(
            # drawn, so that it thinks long now and then
            teacher=EndpointConfig("runs/quickstart/sft/hf", temperature=1.0, max_tokens=200, concurrent=64),
            solvers=(EndpointConfig(BASE, max_tokens=200, concurrent=64),),
        ),
    )
