"""Traces and attempts: by an endpoint, by a model decoded here, or those that rows came with."""

import dataclasses
import shutil

import jax
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from s1_jax.config.curate import CurateConfig, EndpointConfig, GenerateStageConfig
from s1_jax.curation.answers import ask_all
from s1_jax.curation.generate import NO_ATTEMPT, NO_TRACE, generate, generate_inputs
from s1_jax.curation.stages import Made, Stage, run_stages
from s1_jax.decoding import loaded_model
from s1_jax.errors import RunError, UserError
from s1_jax.records.lines import read_records
from s1_jax.runtime.progress import progress_bar
from tests.curation.stand_in_endpoint import StandInEndpoint, completion

QUESTIONS = ["How many?", "Why?", "Who?", "How many?"]


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with StandInEndpoint() as server:
        yield server


def endpoint(server, model):
    return EndpointConfig(model, server.url, requests_per_minute=10**6, attempts=1)


def run(tmp_path, options, columns=None):
    """The table behind the stage."""
    columns = {"id": [str(i) for i in range(len(QUESTIONS))], "question": QUESTIONS} | (columns or {})
    stages = [
        Stage("pool", lambda *_: Made({name: pa.array(values) for name, values in columns.items()}), ()),
        Stage("generate", generate, ("generate",)),
    ]
    with progress_bar(shown=False) as bar:
        path = run_stages(stages, CurateConfig(generate=options), tmp_path, bar)
    return pq.read_table(path).to_pydict()


def test_a_teacher_and_two_solvers(tmp_path, server):
    def says(prompt):
        model = server.asked[-1][1]["model"]
        if model == "teacher":
            bare = {"Why?": completion("I know"), "Who?": completion("I", "length", reasoning="hm")}
            return 200, bare.get(prompt, completion("7", reasoning="3+4"))
        return (200, completion("cut", "length")) if model == "small" else (400, "") if prompt == "Who?" else "8"

    server.says = says
    models = [dataclasses.replace(endpoint(server, name), concurrent=1) for name in ("teacher", "small", "large")]
    table = run(tmp_path, GenerateStageConfig(models[0], tuple(models[1:])))
    assert table["thinking"] == ["3+4", None, None, "3+4"] and table["attempt"] == ["7", None, None, "7"]
    assert table["error"] == [None, NO_TRACE, "cut off at the limit of tokens", None]
    assert table["solver_1"] == ["cut"] * 4 and table["solver_1_error"] == [None] * 4
    assert table["solver_2"] == ["8", "8", None, "8"] and table["solver_2_error"] == [None, None, "status 400", None]
    assert server.prompts == [*QUESTIONS[:3]] * 3, "the question alone, each once"
    assert len(list((tmp_path / "answers").iterdir())) == 3


def test_without_a_teacher_rows_keep_what_they_came_with(tmp_path):
    columns = {"thinking": ["hm", None, "  ", "hm"], "attempt": ["7", "8", "9", None]}
    table = run(tmp_path, GenerateStageConfig(), columns)
    assert table["error"] == [None, NO_TRACE, NO_TRACE, NO_ATTEMPT]
    assert {name: table[name] for name in columns} == columns
    assert run(tmp_path / "none", GenerateStageConfig())["error"] == [NO_TRACE] * 4
    nulls = {name: pa.nulls(4, pa.string()) for name in columns}
    assert run(tmp_path / "nulls", GenerateStageConfig(), nulls)["error"] == [NO_TRACE] * 4


def test_a_failed_stage_leaves_no_table_and_goes_on(tmp_path, server):
    server.says = lambda prompt: (500, "")
    options = GenerateStageConfig(endpoint(server, "m"))
    with pytest.raises(RunError, match="teacher: m answered none of 3 prompts"):
        run(tmp_path, options)
    assert not (tmp_path / "2_generate.parquet").exists()
    server.says = lambda prompt: (200, completion("7", reasoning="3+4"))
    assert run(tmp_path, options)["attempt"] == ["7"] * 4


def ask(tmp_path, who, prompts):
    with progress_bar(shown=False) as bar:
        return list(ask_all(who, prompts, tmp_path / "generate", bar, "solver 1"))


@pytest.fixture
def one_device(monkeypatch):
    monkeypatch.setattr(loaded_model, "devices_for", lambda mesh: jax.devices()[:1])


@pytest.mark.parametrize("thinking", [True, False])
def test_a_model_decoded_here(tmp_path, start, thinking, capsys, request):
    if not thinking:
        request.getfixturevalue("one_device")
    who = EndpointConfig(str(start / "model"), max_tokens=24, concurrent=2, thinking=thinking)
    answers = ask(tmp_path, who, [*QUESTIONS, "?" * 500])
    assert answers[0] == answers[3] and answers[4].text == "" and "max_model_len" in answers[4].error
    (path,) = (tmp_path / "answers").iterdir()
    kept = read_records(path)
    assert len(kept) == 3 and all(0 < line["tokens_written"] <= 24 for line in kept)
    assert all(line["tokens_read"] > len(line["prompt"]) for line in kept)
    assert any(line["thinking"] for line in kept) == thinking
    assert "1 have no answer" in capsys.readouterr().out
    before = path.read_bytes()
    assert ask(tmp_path, who, QUESTIONS) == answers[:4]
    assert path.read_bytes() == before and "0 of them sent now" in capsys.readouterr().out


@pytest.mark.usefixtures("one_device")
def test_other_weights_under_the_same_name_are_another_model(tmp_path, start):
    folder = tmp_path / "model"
    who = EndpointConfig(str(folder), max_tokens=8, concurrent=4)
    elsewhere = EndpointConfig("m", "http://127.0.0.1:9/v1"), EndpointConfig("org/hub-id")
    config = CurateConfig(generate=GenerateStageConfig(who, elsewhere))
    assert generate_inputs(config) == []
    shutil.copytree(start / "model", folder)
    ask(tmp_path, who, QUESTIONS)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    ask(tmp_path, who, QUESTIONS)
    (path,) = (tmp_path / "answers").iterdir()
    assert len(path.read_bytes().splitlines()) == 6
    assert {path.name for path in generate_inputs(config)} >= {"config.json", "model.safetensors", "tokenizer.json"}


def test_no_model_there(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        ask(tmp_path, EndpointConfig("./nowhere"), QUESTIONS)
