"""s1K made anew: 59,029 questions of 16 sources, traces, and the 1,000 that are chosen (the paper, section 2).

    pip install "s1_jax[curate]"
    python -m s1_jax.curate configs/curate_s1k.py                        # all of it
    python -m s1_jax.curate configs/curate_s1k.py --until decontaminate  # what costs nothing, first
    python -m s1_jax.train configs/s1_32b_v5p64.py --data.path runs/curate_s1k/s1k

The teacher answers behind an endpoint (here DeepSeek-R1, s1K-1.1's teacher; its key in DEEPSEEK_API_KEY); give its
prices, in dollars a million tokens read and written, to see the cost so far and to come:
--generate.teacher.dollars-per-million-tokens READ WRITTEN. Solvers and judge are decoded here.
Sources that are gated or gone are named and left out; GPQA asks that its questions not be put online.
Hardware: v6e-8 for solvers and judge; the rest needs 2 cores and 4 GiB. Not run: no hub, endpoint or TPU was at hand.
Expected, from the paper: 59,029 questions, 54,116 with traces, 51,581 in good form, 24,496 that neither solver got
right, 1,000 chosen.
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
        # "where m and n are relatively prime positive integers" does not make two questions one (docs/guides/curate.md)
        decontaminate=DecontaminateConfig(common=10),
        generate=GenerateStageConfig(teacher, solvers=(smaller, larger)),
        grade=GradeStageConfig(judge=larger),
        write=WriteConfig(name="s1k", compare_with="simplescaling/s1K"),
    )
