"""The stages of the s1K pipeline in their order."""

from __future__ import annotations

from s1_jax.curation.classify import classify
from s1_jax.curation.collect import collect, collect_inputs
from s1_jax.curation.decontaminate import decontaminate, decontaminate_inputs
from s1_jax.curation.filter import filter
from s1_jax.curation.generate import generate, generate_inputs
from s1_jax.curation.grade import grade, grade_inputs
from s1_jax.curation.measure import measure, measure_inputs
from s1_jax.curation.select import select
from s1_jax.curation.stages import Stage
from s1_jax.curation.write import write, write_inputs

STAGES = (
    Stage("collect", collect, ("collect",), collect_inputs),
    Stage("decontaminate", decontaminate, ("decontaminate",), decontaminate_inputs),
    Stage("generate", generate, ("generate",), generate_inputs),
    Stage("grade", grade, ("grade",), grade_inputs),
    Stage("classify", classify, ("grade",), grade_inputs),
    Stage("measure", measure, ("tokenizer",), measure_inputs),
    Stage("filter", filter, ("filter",)),
    Stage("select", select, ("select",)),
    Stage("write", write, ("run_dir", "write"), write_inputs),
)
