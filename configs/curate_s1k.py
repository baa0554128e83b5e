"""Build s1K again: 59,029 questions from 16 sources, their traces, and the selection of 1,000 (paper, section 2).

    pip install "s1_jax[curate]"
    python -m s1_jax.curate configs/curate_s1k.py                        # all stages
    python -m s1_jax.curate configs/curate_s1k.py --until decontaminate  # only the stages that cost nothing
    python -m s1_jax.train configs/s1_32b_v5p64.py --data.path runs/curate_s1k/s1k

The teacher is behind an endpoint (here DeepSeek-R1, the teacher of s1K-1.1, with its key in DEEPSEEK_API_KEY). With its
prices in dollars per million tokens, the cost so far and in total is shown:
--generate.teacher.dollars-per-million-tokens READ WRITTEN. Solvers and judge are decoded on this machine.
Sources that are gated or deleted are skipped with a message. GPQA asks that its questions are not published.
Hardware: v6e-8 for solvers and judge; the rest needs 2 cores and 4 GiB. Not yet run with hub, endpoint and TPU.
Expected, from the paper: 59,029 questions, 54,116 with traces, 51,581 after the filter rules, 24,496 that neither
solver got right, 1,000 selected.
"""

from s1_jax.config import MeshConfig
from s1_jax.config.curate import (
    CollectConfig,
    CurateConfig,
    DecontaminateConfig,
    EndpointConfig,
    GenerateStageConfig,
    GradeStageConfig,
    WriteConfig,
)
from s1_jax.curation.sources import PUBLIC


def get_config() -> CurateConfig:
    larger = EndpointConfig(
        "Qwen/Qwen2.5-32B-Instruct",
        temperature=0.05,
        max_tokens=8192,
        concurrent=64,
        thinking=False,
        mesh=MeshConfig(fsdp=1, tensor=8),
    )
    smaller = EndpointConfig(
        "Qwen/Qwen2.5-7B-Instruct",
        temperature=0.05,
        max_tokens=8192,
        concurrent=128,
        thinking=False,
        mesh=MeshConfig(fsdp=2, tensor=4),
    )
    teacher = EndpointConfig(
        "deepseek-reasoner",
        base_url="https://api.deepseek.com/v1",
        key_variable="DEEPSEEK_API_KEY",
        max_tokens=32_768,
        concurrent=64,
        timeout_seconds=1800.0,
    )
    return CurateConfig(
        run_dir="runs/curate_s1k",
        collect=CollectConfig(sources=tuple(PUBLIC)),
        # "where m and n are relatively prime positive integers" is common to many questions (docs/guides/curate.md)
        decontaminate=DecontaminateConfig(common=10),
        generate=GenerateStageConfig(teacher, solvers=(smaller, larger)),
        grade=GradeStageConfig(judge=larger),
        write=WriteConfig(name="s1k", compare_with="simplescaling/s1K"),
    )
