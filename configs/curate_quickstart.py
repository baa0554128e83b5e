"""Curate a small data set offline: questions of the tiny task, a teacher, a solver, and 1,000 selected examples.

    ./scripts/quickstart_curate.sh
    python -m s1_jax.curate configs/curate_quickstart.py     # only the curation, without training before and after

The teacher is the model of configs/quickstart_sft.py, which stops thinking too early by construction; the solver is the
tiny base model. The domain of a question is its number of updates.
Hardware: 2 CPU cores, about 2 minutes. Expected: 3,000 questions, 2,979 with a trace, 2,897 of them hard; the 1,000
selected have 74 thinking tokens on average, compared with 53 for 1,000 random ones.
"""

from importlib.resources import files

from s1_jax.config.curate import CollectConfig, CurateConfig, DecontaminateConfig, EndpointConfig, GenerateStageConfig

BASE = str(files("s1_jax") / "assets" / "tiny_base")


def get_config() -> CurateConfig:
    return CurateConfig(
        run_dir="runs/quickstart/curate",
        tokenizer=BASE,
        collect=CollectConfig(sources=("synthetic",), limit=3000),
        # all questions consist of the same words, so that only long n-grams show that two are the same
        decontaminate=DecontaminateConfig(tasks=("synthetic",), words=16, near_duplicates=None),
        generate=GenerateStageConfig(
            # sampled, so that the teacher sometimes thinks longer
            teacher=EndpointConfig("runs/quickstart/sft/hf", temperature=1.0, max_tokens=200, concurrent=64),
            solvers=(EndpointConfig(BASE, max_tokens=200, concurrent=64),),
        ),
    )
