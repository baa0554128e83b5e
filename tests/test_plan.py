"""`python -m s1_jax.plan` as a user runs it, with the real TPU compiler."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from s1_jax import plan
from s1_jax.config import ModelConfig
from s1_jax.errors import UserError
from s1_jax.planning.search import Result
from s1_jax.planning.topology import parse_topology
from tests.planning.conftest import NEEDS_LIBTPU, PATIENCE, PROJECT
from tests.planning.test_train_estimate import PLAN
from tests.templates import family_tokenizer

CONFIG = """
from s1_jax.config import DataConfig, ModelSource, TrainConfig


def get_config():
    return TrainConfig(model=ModelSource(path="Qwen/Qwen2.5-7B-Instruct"), data=DataConfig(max_length=8192))
"""
SWEEP = """
from s1_jax.config import EvaluateConfig, MeshConfig, ModelSource


def get_config():
    return EvaluateConfig(
        model=ModelSource(path="Qwen/Qwen2.5-7B-Instruct"), max_model_len=32768, max_answer_tokens=16, batch_size=16,
        mesh=MeshConfig(fsdp=2, tensor=2),
    )
"""
MODEL = ModelConfig(512, 256, 512, 2, 2, 2)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A config of a run, with nothing said of its mesh."""
    path = tmp_path_factory.mktemp("config") / "run.py"
    path.write_text(CONFIG)
    return str(path)


@pytest.fixture(scope="module")
def tiny(file, tmp_path_factory):
    """The config, made a tiny one with lengths for two epochs of two steps."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "config.json").write_text(json.dumps(MODEL.to_dict()))
    (folder / "lengths.json").write_text(json.dumps([512, 300, 200, 500, 400, 100]))
    return [
        file,
        *("--model.path", str(folder), "--lengths", str(folder / "lengths.json"), "--topology", "v5e:2x2"),
        *("--mesh.fsdp", "2", "--mesh.tensor", "2", "--train.epochs", "2"),
        *("--data.max-length", "512", "--data.batch-examples", "3", "--data.micro-batch-rows", "2"),
    ]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The config of a sweep, of 7B on four chips."""
    path = tmp_path_factory.mktemp("sweep") / "sweep.py"
    path.write_text(SWEEP)
    return str(path)


def command(*arguments: str) -> subprocess.CompletedProcess:
    """A process of its own: libtpu keeps its lock as long as one lives."""
    env = dict(os.environ, PYTHONPATH=str(PROJECT))
    env.pop("JAX_PLATFORMS", None)
    return subprocess.run(
        [sys.executable, "-m", "s1_jax.plan", *arguments],
        env=env, cwd=PROJECT, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip


@NEEDS_LIBTPU
def test_a_plan_as_json(tiny):
    done = command(*tiny, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["chips"] == 4 and told["device_kind"] == "TPU v5 lite" and told["fits"] is True
    assert told["mesh"] == {"data": 1, "fsdp": 2, "context": 1, "tensor": 2}
    assert told["run"]["steps"] == 4
    assert 1.0 < told["flops"]["ratio"] < 5.0
    memory = told["hbm_gib"]
    assert memory["capacity"] == 15.75
    assert memory["params"] + memory["optimizer"] + memory["temporaries"] <= memory["total"] < memory["capacity"]
    assert {each["axis"] for each in told["collectives"]} >= {"fsdp", "tensor"}
    times = told["seconds"]
    parts = [times[name] for name in ("compute", "hbm", "ici")]
    assert all(part > 0 for part in parts)
    assert times["step_no_overlap"] == pytest.approx(sum(parts)) and times["step_overlap"] >= max(parts)
    assert told["run"]["minutes_no_overlap"] == pytest.approx(4 * times["step_no_overlap"] / 60)
    assert told["run"]["minutes_scheduled"] == pytest.approx(4 * times["scheduled"] / 60)
    assert times["compute"] + times["exposed"] <= times["scheduled"] <= times["step_no_overlap"] + times["latency"]
    assert 0 < times["latency"] <= times["exposed"] < times["scheduled"] and times["hidden"] >= 0
    for name in ("exposed", "hidden"):
        assert sum(each[name] for each in told["collectives"]) == pytest.approx(times[name])
    assert "compiling the step" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
@NEEDS_LIBTPU
@pytest.mark.parametrize("topology", ["v5p:2x2x1", "v6e:2x2"])
def test_each_generation_takes_its_compiler_options_and_hides_communication(tiny, topology):
    told = {}
    for options in ([], ["--train.no-async-collectives"]):
        done = command(*(topology if word == "v5e:2x2" else word for word in tiny), "--json", *options)
        assert done.returncode == 0, done.stderr
        told[bool(options)] = json.loads(done.stdout)
    for plain, one in told.items():
        permutes = [each for each in one["collectives"] if each["kind"] == "collective-permute"]
        assert permutes and sum(each["hidden"] for each in permutes) > 0, plain


@pytest.mark.slow
@NEEDS_LIBTPU
def test_a_plan_of_a_qwen3_in_its_own_format(shared_data, tmp_path):
    model = dataclasses.replace(MODEL, model_type="qwen3", head_dim=128)
    (tmp_path / "config.json").write_text(json.dumps(model.to_dict()))
    family_tokenizer(shared_data, "qwen3").save_pretrained(tmp_path)
    row = {"question": "1+1?", "thinking": "Count on. " * 30, "answer": "2"}
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row | {"question": f"{i}+1?"}) + "\n" for i in range(4)))
    done = command(
        *("--model.path", str(tmp_path), "--format", "auto", "--data.path", str(tmp_path / "rows.jsonl")),
        *("--topology", "v5e:2x2", "--mesh.fsdp", "2", "--mesh.tensor", "2", "--train.epochs", "1", "--json"),
        *("--data.max-length", "512", "--data.batch-examples", "4", "--data.micro-batch-rows", "2"),
    )
    assert done.returncode == 0, done.stderr
    assert "format: <think> ... </think>, because the chat template has enable_thinking" in done.stderr
    told = json.loads(done.stdout)
    queries, pairs = 2 * 128, 2 * 2 * 128  # of MODEL's heads
    layer = 256 * (2 * queries + pairs) + 2 * 128 + 3 * 256 * 512 + 2 * 256
    assert told["parameters"] == 2 * 512 * 256 + 2 * layer + 256
    assert told["fits"] and 1.0 < told["flops"]["ratio"] < 5.0


@NEEDS_LIBTPU
def test_a_plan_that_does_not_fit_is_a_result(file):
    done = command(file, "--topology", "v5litepod-1", "--full", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["fits"] is False and told["hbm_gib"]["total"] > 7.6e9 * 12 / 2**30 > told["hbm_gib"]["capacity"]
    assert told["chips"] == 1 and told["seconds"]["step_overlap"] is None


@pytest.mark.slow
@NEEDS_LIBTPU
def test_a_search_ranks_what_it_compiled(tiny):
    done = command(*tiny, "--search", "--search-limit", "1")
    assert done.returncode == 0, done.stderr
    header, _, *choices = done.stdout.splitlines()
    assert header.split()[0] == "choice" and len(choices) == 1
    assert all("rows of" in choice for choice in choices) and "1/1" in done.stderr


@pytest.mark.slow
@NEEDS_LIBTPU
def test_a_plan_of_a_sweep(sweep, tmp_path):
    """A tiny model whose cache, too large for VMEM, is most of what a step reads."""
    (tmp_path / "config.json").write_text(json.dumps(dataclasses.replace(MODEL, num_hidden_layers=4).to_dict()))
    done = command(sweep, "--model.path", str(tmp_path), "--topology", "v5e:2x2", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["mesh"] == {"data": 1, "fsdp": 2, "context": 1, "tensor": 2} and told["fits"] is True
    assert told["rows"] == 16 and told["capacity"] == 32768
    memory, (full, half) = told["hbm_gib"], (told["step"][name] for name in ("full", "half_full"))
    assert memory["cache"] == 4 * 2 * 2 * 128 * 32768 * 16 * 2 / 4 / 2**30  # layers, keys and values, heads, ...
    assert memory["weights"] + memory["cache"] < memory["programs"]["decode"] <= memory["total"] < memory["capacity"]
    assert (
        1.0 < full["ratio"] < 1.25 and half["bytes_moved"] < 0.6 * full["bytes_moved"]
    )  # attention reads what is live
    assert full["bytes_least"] < 2**30 * (memory["weights"] + memory["cache"]) < 1.1 * full["bytes_least"]
    kernel = 256 * 256 * 2
    assert {each["axis"] for each in told["collectives"]} >= {"fsdp", "tensor"}
    assert all(each["bytes"] / each["count"] < kernel for each in told["collectives"])  # no weight travels
    times = full["seconds"]
    assert full["tokens_per_second_per_chip"] == pytest.approx(16 / 4 / times["scheduled"])
    assert 0 < times["latency"] <= times["exposed"] < times["scheduled"] and times["hbm"] < times["scheduled"]
    assert half["seconds"]["scheduled"] < 0.7 * times["scheduled"]
    least = full["bytes_least"] / 8.1e11
    assert full["roofline_share"] == pytest.approx(least / times["scheduled"]) and times["hbm"] > least
    answers = told["answers"]  # as long a cache, of fewer rows
    assert answers["branches"] == 16 and 0 < answers["step"]["exposed"] < answers["step"]["scheduled"]
    assert answers["step"]["scheduled"] < 0.5 * times["scheduled"]  # a quarter of the rows' caches, four branches each
    assert 0 < answers["suffixes"]["exposed"] < answers["suffixes"]["scheduled"]
    assert told["prefill"]["scheduled"] > 0 and told["requests"] is None


@pytest.mark.slow
@NEEDS_LIBTPU
def test_a_plan_of_requests(sweep, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(MODEL.to_dict()))
    options = ("--model.path", str(tmp_path), "--topology", "v5e:2x2", "--input-len", "1024", "--output-len", "3072")
    done = command(sweep, *options, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["rows"] == 16 and told["capacity"] == 4096 and told["prefill"]["prompt_tokens"] == 1024
    step, prefill = told["step"]["requests"]["seconds"]["scheduled"], told["prefill"]["scheduled"]
    assert told["step"]["half_full"]["seconds"]["scheduled"] < step < told["step"]["full"]["seconds"]["scheduled"]
    requests = told["requests"]
    assert requests["tokens_per_second"] == pytest.approx(16 / (step + 16 * prefill / 3072))
    assert told["answers"] is None and set(told["hbm_gib"]["programs"]) == {"prefill", "fill", "growth", "decode"}


@NEEDS_LIBTPU
@pytest.mark.parametrize(
    "options,message",
    [
        (["--batch-size", "15"], "batch_size 15 must be a multiple of 2"),
        (["--input-len", "15"], "--input-len and --output-len go together; give both or neither"),
        (["--model.path", "Qwen/Qwen2.5-72B-Instruct"], "weights (33.9 GiB) and the cache of 16 rows of 32768 tokens"),
        (["--model.path", "Qwen/Qwen2.5-72B-Instruct", "--rows"], "not even 2 rows of 32768 tokens fit on 4 chips"),
    ],
)
def test_a_sweep_that_cannot_be(sweep, options, message):
    done = command(sweep, "--topology", "v5e:2x2", *options)
    assert done.returncode == 2 and done.stdout == ""
    assert f"error: {message}" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments,message",
    [
        ([], r"--topology is missing; known are v5e:16x16"),
        (["--topology", "v5p-63"], r"unknown topology 'v5p-63'; known: .*v5p-\{8,16"),
        (["--topolgy", "v5p-64"], r"unknown option --topolgy; did you mean --topology\?"),
        (["--topology", "v5p-64", "--mesh.tensr", "4"], r"did you mean --mesh.tensor\?"),
    ],
)
def test_a_users_mistake_is_one_clear_line(file, arguments, message):
    with pytest.raises(UserError, match=message) as error:
        plan.main([file, *arguments])
    assert "\n" not in str(error.value)


def test_examples_come_from_one_place(file):
    with pytest.raises(UserError, match="exclude each other"):
        plan.examples(plan.options([file, "--full", "--lengths", "x.json"]))
    with pytest.raises(UserError, match="tokenizer of Qwen/Qwen2.5-7B-Instruct in a local folder"):
        plan.examples(plan.options([file]))


def test_options_are_the_runs_and_its_own(file):
    config = plan.options([file, "--topology", "v5p-64", "--mesh.tensor", "8", "--json"])
    assert config.mesh.tensor == 8 and config.topology == "v5p-64" and config.json
    assert config.model.path == "Qwen/Qwen2.5-7B-Instruct"


def test_help_tells_a_newcomer_what_it_does(capsys):
    with pytest.raises(SystemExit):
        plan.main(["--help"])
    told = capsys.readouterr().out
    assert "--topology" in told and "needs no TPU" in " ".join(told.split())


def test_the_tables_tell_what_the_schedule_hides():
    told = plan.format_plan(PLAN, "model", parse_topology("v5p-64"))
    rows = {line.rsplit("  ", 1)[0].strip(): line.split()[-1] for line in told.splitlines() if "  " in line}
    assert "all-gather over fsdp  0.000     0.200     0.300" in told
    assert rows["as scheduled"] == "1.600" and rows["waiting for links"] == "0.200" and rows["latency"] == "0.010"
    assert "100 steps: 2.7 minutes as scheduled (1.4 chip-hours, MFU 62.5%), 1.7 with full overlap, 3.3 without" in told
    header, _, row = plan.format_search([Result(plan.PlanConfig(), PLAN)]).splitlines()
    assert header.split()[-5:] == ["s/step", "waiting", "overlapped", "minutes", "MFU"]
    assert row.split()[-5:] == ["1.60", "0.20", "1.00", "2.7", "62.5%"]
