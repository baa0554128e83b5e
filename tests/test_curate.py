"""`python -m s1_jax.curate`: all stages with models behind an endpoint, what a change makes anew, mistakes."""

from __future__ import annotations

import json
import re

import datasets
import pyarrow.parquet as pq
import pytest

from s1_jax import curate
from s1_jax.curation.pipeline import STAGES
from s1_jax.errors import RunError, UserError
from tests.curation.stand_in_endpoint import StandInEndpoint, completion

QUESTIONS, CHOSEN = 40, 10
CONFIG = """
from importlib.resources import files
from s1_jax.config.curate import *

def get_config():
    who = dict(base_url=URL, attempts=1, concurrent=4, requests_per_minute=10**6)
    return CurateConfig(
        tokenizer=str(files("s1_jax") / "assets" / "tiny_base"),
        collect=CollectConfig(sources=("synthetic",), limit=40),
        decontaminate=DecontaminateConfig(tasks=("synthetic",), words=16, near_duplicates=None),
        generate=GenerateStageConfig(EndpointConfig("teacher", **who), (EndpointConfig("solver", **who),)),
        select=SelectConfig(size=10),
    )
"""


@pytest.fixture
def endpoint():
    with StandInEndpoint() as endpoint:
        yield endpoint


@pytest.fixture
def start(endpoint, tmp_path):
    """Runs the command with these options; its run_dir."""
    (tmp_path / "config.py").write_text(CONFIG.replace("URL", repr(endpoint.url)))

    def start(*options):
        curate.main([str(tmp_path / "config.py"), "--run-dir", str(tmp_path / "run"), *options])
        return tmp_path / "run"

    return start


def first_number(question):
    return int(re.search(r"Start: (\d+)", question)[1])


def says(prompt):
    """Every fourth question is solved, by whoever is asked; thinking is longer the larger the first number is."""
    start = first_number(prompt)
    result = (start + sum(map(int, re.findall(r"[+-]\d+", prompt)))) % 100
    answer = f"{result:02}" if start % 4 == 0 else "100"
    return 200, completion(f"Answer: {answer}", reasoning_content="step " * (start + 1))


def test_from_questions_to_a_data_set(start, endpoint, capsys):
    endpoint.says = says
    run_dir = start()
    said = capsys.readouterr().out
    table = pq.read_table(run_dir / "8_select.parquet")
    assert len(table) == CHOSEN and table["hard"].to_pylist() == [True] * CHOSEN
    questions = pq.read_table(run_dir / "1_collect.parquet")["question"].to_pylist()
    easy = sum(first_number(question) % 4 == 0 for question in questions)
    assert re.search(rf"select +easy +{easy} +{QUESTIONS - easy}\n", said)
    assert (run_dir / "funnel.png").read_bytes().startswith(b"\x89PNG")
    loaded = datasets.load_dataset(str(run_dir / "dataset"), split="train", cache_dir=str(run_dir / "cache"))
    assert loaded["id"] == table["id"].to_pylist()
    assert len(endpoint.asked) == 2 * QUESTIONS
    assert json.loads((run_dir / "config.json").read_text())["select"]["size"] == CHOSEN

    # Again: nothing is done; another choice: only what follows from it
    before = {path.name: path.stat().st_mtime_ns for path in run_dir.glob("*.parquet")}
    start()
    assert {path.name: path.stat().st_mtime_ns for path in run_dir.glob("*.parquet")} == before
    start("--select.method", "longest", "--write.name", "longest")
    changed = {path.name for path in run_dir.glob("*.parquet") if path.stat().st_mtime_ns != before[path.name]}
    assert changed == {"8_select.parquet", "9_write.parquet"} and len(endpoint.asked) == 2 * QUESTIONS
    chosen = pq.read_table(run_dir / "8_select.parquet")["thinking_tokens"].to_pylist()
    everyone = pq.read_table(run_dir / "7_filter.parquet")["thinking_tokens"].to_pylist()
    assert chosen == sorted(everyone, reverse=True)[:CHOSEN]


def test_stages_can_be_left_for_later(start, endpoint, capsys):
    run_dir = start("--until", "decontaminate")
    assert sorted(path.name for path in run_dir.glob("*.parquet")) == ["1_collect.parquet", "2_decontaminate.parquet"]
    assert not endpoint.asked
    assert "decontaminate" in capsys.readouterr().out


def test_an_endpoint_that_fails_part_way_is_asked_for_the_rest_alone(start, endpoint):
    """It fails early enough that the teacher meets as many failures in a row as end it, in whatever order they come."""
    answered = []

    def early(prompt):
        if len(answered) >= QUESTIONS // 4:
            return 500, "out of order"
        answered.append(prompt)
        return says(prompt)

    endpoint.says = early
    with pytest.raises(RunError, match="teacher"):
        start()
    kept = len(answered)
    endpoint.says, endpoint.asked = says, []
    run_dir = start()
    assert len(endpoint.asked) == 2 * QUESTIONS - kept
    assert pq.read_table(run_dir / "3_generate.parquet")["error"].null_count == QUESTIONS


def test_mistakes_are_named(start, endpoint):
    names = ", ".join(stage.name for stage in STAGES)
    with pytest.raises(UserError, match=f"until: there is no stage 'choose'; the stages are {names}"):
        start("--until", "choose")
    with pytest.raises(UserError, match="there is no stage 'choose'"):
        start("--again-from", "choose", "--until", "collect")
    with pytest.raises(UserError, match="set a local folder"):
        start("--run-dir", "gs://bucket/run")
    with pytest.raises(UserError, match="did you mean --select.size"):
        start("--select.sice", "3")


def test_a_file_that_a_late_stage_needs_is_missed_before_anything_is_collected(tmp_path):
    for option, path, said in [
        ("--write.compare-with", tmp_path / "s1k.jsonl", "write.compare_with: no such file or folder"),
        ("--write.compare-with", "./s1k", "write.compare_with: no such file or folder"),
        ("--decontaminate.paths", tmp_path / "aime.jsonl", "decontaminate.paths: no such file"),
    ]:
        with pytest.raises(UserError, match=said):
            curate.main(["--collect.sources", "synthetic", "--run-dir", str(tmp_path / "run"), option, str(path)])
        assert not (tmp_path / "run").exists()
