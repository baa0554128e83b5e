"""Valid inputs, from which the other inputs are made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from fuzz.cases import CURATE, GENERATE, PROJECT, REPLY, TRAINED, Case, Maker, asking, dumped
from fuzz.running import run_alone


def make_base(base: Path) -> None:
    """Write valid inputs of every kind: a model, data, a sweep and a training run."""
    import pyarrow as pa
    from pyarrow import csv
    from pyarrow import parquet as pq

    from s1_jax.data.synthetic import generate_examples

    base.mkdir()
    tiny = PROJECT / "s1_jax" / "assets" / "tiny_base"
    shutil.copytree(tiny, base / "model")
    shutil.copytree(tiny, base / "headless", ignore=shutil.ignore_patterns("*.safetensors"))
    rows = list(generate_examples(0, 24))
    problems = [{"id": i, "problem": f"{i} + 1 = ?", "answer": str(i + 1)} for i in range(4)]
    prompts = [{"id": i, "prompt": f"{i} + 1 ="} for i in range(4)]
    for name, lines in (("examples", rows), ("problems", problems), ("prompts", prompts)):
        (base / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    maker = Maker(base, base, 0, 0)
    table = pa.Table.from_pylist([row | {"solution": row["answer"]} for row in problems])
    pq.write_table(table, base / "problems.parquet")
    csv.write_csv(table, base / "problems.csv")
    (base / "reply.bin").write_bytes(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + dumped(REPLY))
    for command, argv in (
        ("evaluate", [*maker.decode(), "--run-dir", "sweep"]),
        ("train", [*TRAINED, "--run-dir", "trained", "--checkpoint.keep", "1"]),
        ("generate", GENERATE),
        ("curate", [*CURATE, "--run-dir", "curated", "--until", "grade", *asking("generate.teacher")]),
    ):
        done = run_alone(base, Case("valid", command, argv))
        assert done.code == 0, done.err
    (base / "run").mkdir()
    for name in ("records.jsonl", "config.json"):
        shutil.copyfile(base / "sweep" / name, base / "run" / name)
    (base / "run" / "judge.jsonl").write_text("")
    for name in ("other", "paper"):
        shutil.copytree(base / "run", base / name)
    records = [json.loads(line) for line in (base / "run" / "records.jsonl").read_text().splitlines()]
    said = "<|im_start|>think\nhm\n<|im_start|>answer\nFinal Answer: about 70<|im_end|>"
    undecided = [record | {"gold": "70", "text": said} for record in records]
    of_paper = [record | {"task": "math500"} for record in records]
    for name, lines in (("run", undecided), ("paper", of_paper)):
        (base / name / "records.jsonl").write_bytes(b"".join(dumped(line) + b"\n" for line in lines))
    shutil.rmtree(base / "sweep")
    shutil.rmtree(base / "trained" / "hf")
