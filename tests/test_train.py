"""`python -m s1_jax.train` as a user runs it: what it writes, and that nothing is lost when it is stopped."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from io import StringIO
from types import ModuleType, SimpleNamespace

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from s1_jax import train
from s1_jax.checkpoints import orbax
from s1_jax.errors import RunError, UserError
from tests.runs import MAIN, PATIENCE, PROJECT, STEPS, gate, options, rows, wait_for_step
from tests.tokenizer import byte_tokenizer

LOADING = 0.2  # seconds a step keeps the slow loader busy
ROW = "s1_jax.training.metrics:MetricsLog.write"  # called once a step
MESH_TOLERANCE = 1e-4  # relative, of the loss: float32 sums in another order, over several steps


def command(*arguments: str, first: str = "") -> subprocess.Popen:
    """The command line in a process of its own, on 8 simulated devices as in this one; `first` is code run before."""
    env = dict(os.environ, JAX_NUM_CPU_DEVICES="8", JAX_DEFAULT_MATMUL_PRECISION="float32", PYTHONPATH=str(PROJECT))
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    program = ["-c", f"{first}\n{MAIN.format('s1_jax.train')}"] if first else ["-m", "s1_jax.train"]
    return subprocess.Popen([sys.executable, *program, *arguments], env=env, cwd=PROJECT, **pipes)


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "undisturbed"
    train.main(options(start, run_dir))
    return run_dir


def test_a_run_writes_what_it_promises(start, undisturbed, capsys):
    metrics = rows(undisturbed)
    assert [row["step"] for row in metrics] == list(range(1, STEPS + 1))
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    assert metrics[0]["lr"] == 0.0 and metrics[1]["lr"] > metrics[-1]["lr"] > 0
    assert [row["examples_seen"] for row in metrics] == [16, 32, 40, 56, 72, 80]
    assert all(0 < row["real_share"] <= 1 and row["tokens"] > 0 and row["real_tokens_per_s"] > 0 for row in metrics)
    assert all(row["mfu"] is None and np.isfinite(row["grad_norm"]) for row in metrics)
    assert json.loads((undisturbed / "config.json").read_text())["optim"]["b2"] == 0.95
    assert any((undisturbed / "tensorboard").iterdir()) and any((undisturbed / "checkpoints").iterdir())

    model = AutoModelForCausalLM.from_pretrained(undisturbed / "hf")
    assert AutoTokenizer.from_pretrained(undisturbed / "hf").chat_template == byte_tokenizer().chat_template
    before = load_file(start / "model" / "model.safetensors")
    after = {name: weight.numpy() for name, weight in model.state_dict().items()}
    assert all(not np.array_equal(before[name], after[name]) for name in before)

    train.main(options(start, undisturbed, "--train.log-every-steps", "9", "--profile", "2"))
    assert "is finished" in capsys.readouterr().out and len(rows(undisturbed)) == STEPS


def test_a_killed_run_goes_on_to_the_same_bits(start, undisturbed, tmp_path):
    arguments = options(start, tmp_path / "run")
    first = command(*arguments, first=gate(ROW, 3, tmp_path / "go"))
    wait_for_step(first, tmp_path / "run", 3, saved=2)
    first.kill()
    first.communicate()
    assert first.returncode == -signal.SIGKILL and not (tmp_path / "run" / "hf").exists()
    second = command(*arguments)
    out, err = second.communicate(timeout=PATIENCE)
    assert second.returncode == 0, err
    assert "resuming from step 2 " in out
    assert (tmp_path / "run" / "hf" / "model.safetensors").read_bytes() == (
        undisturbed / "hf" / "model.safetensors"
    ).read_bytes()
    same = ("step", "loss", "grad_norm", "lr", "examples_seen")
    assert [[row[k] for k in same] for row in rows(tmp_path / "run")] == [
        [row[k] for k in same] for row in rows(undisturbed)
    ]


def test_ctrl_c_saves_the_step_it_is_in(start, undisturbed, tmp_path):
    arguments = options(start, tmp_path / "run", "--checkpoint.every-steps", "100")
    process = command(*arguments, first=gate(ROW, 2, tmp_path / "go"))
    wait_for_step(process, tmp_path / "run", 2)
    process.send_signal(signal.SIGINT)
    (tmp_path / "go").touch()
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and "Run the same command" in err and "Traceback" not in err
    stopped_at = rows(tmp_path / "run")[-1]["step"]
    assert stopped_at == 2
    train.main(arguments)
    assert (tmp_path / "run" / "hf" / "model.safetensors").read_bytes() == (
        undisturbed / "hf" / "model.safetensors"
    ).read_bytes()


@pytest.mark.slow
def test_a_run_goes_on_on_another_mesh(start, undisturbed, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def stop_at_four(log, row, write=train.MetricsLog.write):
        write(log, row)
        if row["step"] == 4:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(train.MetricsLog, "write", stop_at_four)
        with pytest.raises(Stop):
            train.main(options(start, tmp_path / "run"))
    train.main(options(start, tmp_path / "run", "--mesh.fsdp", "4", "--mesh.tensor", "2"))
    for ours, theirs in zip(rows(tmp_path / "run"), rows(undisturbed), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=MESH_TOLERANCE)


def test_an_array_that_a_step_would_copy_to_the_devices_by_itself_is_refused(start, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "place_rows", lambda layout, arrays, rows: arrays)  # they stay on the host
    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
        train.main(options(start, tmp_path / "run"))


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(start, tmp_path):
    overflow = ("--optim.peak-lr", "1e38", "--checkpoint.every-steps", "1")  # the first rate is 0, the second overflows
    with pytest.raises(
        RunError, match=r"step 2: .*loss \d.*param_norm inf, from .*sft-0-\d.* last good checkpoint is that of step 1"
    ):
        train.main(options(start, tmp_path, *overflow))
    saved = {int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()}
    assert saved == {1} and rows(tmp_path)[-1]["step"] == 1 and not (tmp_path / "hf").exists()


def test_held_out_examples_are_not_trained_on_and_their_loss_is_logged(start, tmp_path, monkeypatch, capsys):
    class Stop(Exception):
        pass

    def stop_at_one(log, row, write=train.MetricsLog.write):
        write(log, row)
        if row["step"] == 1:
            raise Stop

    arguments = options(start, tmp_path, "--data.held-out-share", "0.2", "--train.held-out-every-steps", "1")
    with monkeypatch.context() as patch, pytest.raises(Stop):  # before the first checkpoint
        patch.setattr(train.MetricsLog, "write", stop_at_one)
        train.main(arguments)
    capsys.readouterr()
    train.main(arguments)
    metrics = rows(tmp_path)
    assert metrics[-1]["examples_seen"] == 2 * 32
    assert [row["step"] for row in metrics if "held_out_loss" in row] == [0, 1, 2, 3, 4]
    before, after_one, after_two, *_ = (row["held_out_loss"] for row in metrics)
    assert before == after_one != after_two  # the first step has rate 0
    assert metrics[0]["loss"] is None and metrics[0]["examples_seen"] == 0
    assert f"held-out loss before the first step: {before:.4f}\n" in capsys.readouterr().out


@pytest.fixture(scope="module")
def watched(start, tmp_path_factory):
    """A run that is watched in every way, by a loader that is slow and a W&B that is played."""
    seen = SimpleNamespace(run_dir=tmp_path_factory.mktemp("runs") / "watched", order=[], wandb_rows=[])

    def slowly(loader, position, batches=train.Loader.batches):
        for step in batches(loader, position):
            time.sleep(LOADING)
            seen.order.append("input")
            yield step

    @dataclasses.dataclass
    class Number:
        value: jax.Array

        def __float__(self):
            seen.order.append("read")
            return float(self.value)

    def compile_step(*args, compile_step=train.compile_step, **kwargs):
        step_fn = compile_step(*args, **kwargs)

        def told(*args):
            seen.order.append("dispatch")
            state, metrics = step_fn(*args)
            return state, metrics | {"loss": Number(metrics["loss"])}

        return told

    wandb = ModuleType("wandb")
    run = SimpleNamespace(define_metric=lambda *_, **__: None, log=seen.wandb_rows.append, finish=lambda **_: None)
    wandb.init = lambda **given: seen.__setattr__("wandb_given", given) or run
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as out:
        patch.setattr(train.Loader, "batches", slowly)
        patch.setattr(train, "compile_step", compile_step)
        patch.setitem(sys.modules, "wandb", wandb)
        chosen = ("--profile", "2", "3", "--log.wandb-project", "s1", "--train.log-every-steps", "4")
        train.main(options(start, seen.run_dir, *chosen))
    seen.out = out.getvalue()
    return seen


def test_the_lines_printed_are_a_table_of_the_first_step_each_fourth_and_the_last(watched):
    header, *lines = [line for line in watched.out.splitlines() if re.match(r" *(step|\d+/6)\b", line)]
    # a CPU tells neither MFU nor memory
    assert header.split() == "step loss grad lr tokens/s wait ms real s/step to go".split()
    assert [line.split()[0] for line in lines] == ["1/6", "4/6", "6/6"]
    assert re.search(r"compiled \[\d+, 8, 512\] in \d+\.\d s$", lines[0])
    assert all(len(line) == len(header) for line in lines[1:])
    for line, row in zip(lines, (rows(watched.run_dir)[n - 1] for n in (1, 4, 6)), strict=True):
        assert line.split()[1] == f"{row['loss']:.4f}" and line.split()[4] == f"{row['real_tokens_per_s']:,.0f}"


def test_compilation_is_told_apart_from_the_first_step(watched):
    first, *others = rows(watched.run_dir)
    assert first["compile_seconds"] > first["seconds"] > 0
    assert all("compile_seconds" not in row and row["seconds"] > 0 for row in others)
    assert all(row["hbm_gib"] is None and row["hbm_peak_gib"] is None for row in (first, *others))


def test_the_wait_for_input_is_counted_and_is_part_of_the_step(watched):
    *waited, last = rows(watched.run_dir)
    assert all(LOADING <= row["input_wait_seconds"] < row["seconds"] for row in waited)
    assert last["input_wait_seconds"] < min(row["input_wait_seconds"] for row in waited)  # nothing more to load


def test_the_next_input_is_fetched_while_the_devices_compute(watched):
    assert watched.order == ["input", *["dispatch", "input", "read"] * (STEPS - 1), "dispatch", "read"]


def test_the_chosen_steps_are_traced(watched):
    folder = watched.run_dir / "profile" / "steps_2_to_3"
    assert any(folder.rglob("*.xplane.pb")) and any(folder.rglob("*.trace.json.gz"))
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    (trace,) = folder.rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert [event["args"]["step_num"] for event in events if event.get("name") == "train"] == ["2", "3"]
    assert f"trace of steps 2 to 3: {folder}" in watched.out


def test_wandb_gets_the_config_and_every_row(watched):
    given = watched.wandb_given
    assert given["project"] == "s1" and given["config"] == json.loads((watched.run_dir / "config.json").read_text())
    known = [{name: value for name, value in row.items() if value is not None} for row in rows(watched.run_dir)]
    assert watched.wandb_rows == known


def test_watching_changes_no_bit(watched, undisturbed):
    assert (watched.run_dir / "hf" / "model.safetensors").read_bytes() == (
        undisturbed / "hf" / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize(
    "change,message",
    [
        (["--optim.peak-lr", "0.5"], r"contains a run with other options .optim.peak_lr was 0.001, is 0.5"),
        (["--optim.peek-lr", "0.5"], r"unknown option --optim.peek-lr; did you mean --optim.peak-lr\?"),
        (["--run-dir", "s3://bucket/run"], "s3://bucket/run: the only URLs that can be paths are gs://BUCKET/FOLDER"),
        (["--train.epochs", "many"], r"epochs"),
        (["--data.path", "nowhere.jsonl", "--run-dir", "elsewhere"], r"nowhere.jsonl"),
        (["--model.path", "./nowhere", "--run-dir", "elsewhere"], r"no folder ./nowhere"),
        (["--data.micro-batch-rows", "3", "--run-dir", "elsewhere"], r"micro_batch_rows 3 must be a multiple of 8"),
        (
            ["--data.row-lengths", "513", "--mesh.tensor", "2", "--mesh.fsdp", "4", "--run-dir", "elsewhere"],
            r"rows of 513 tokens must be a multiple of 2, the mesh's context x tensor",
        ),
        (["--data.max-length", "1024", "--run-dir", "elsewhere"], r"max_length 1024 is above"),
        (["--mesh.tensor", "3", "--mesh.fsdp", "2", "--run-dir", "elsewhere"], r"6 places; there are 8 devices"),
        (["--profile", "5", "7", "--run-dir", "elsewhere"], r"log.profile_steps has 7; the last step is 6"),
        (["--log.wandb-project", "s1", "--run-dir", "elsewhere"], r"Weights & Biases: pip install wandb$"),
    ],
)
def test_a_users_mistake_is_one_clear_line(start, undisturbed, tmp_path, monkeypatch, change, message):
    arguments = options(start, undisturbed)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)  # not installed
    with pytest.raises(UserError, match=message) as error:
        train.main([*arguments, *change])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "elsewhere" / "checkpoints").exists() or not any(
        (tmp_path / "elsewhere" / "checkpoints").iterdir()
    )


def test_a_mistake_on_the_command_line_exits_with_2_and_no_traceback():
    process = command("nowhere/quickstart_sft.py")
    out, err = process.communicate(timeout=PATIENCE)
    said = "error: no config file nowhere/quickstart_sft.py, and no shipped config of that name; did you mean "
    assert (process.returncode, out, err) == (2, "", f"{said}quickstart_sft?\n")


@pytest.fixture(scope="module")
def stopped(start, tmp_path_factory):
    """A run that was stopped behind step 4, and its examples."""
    run_dir = tmp_path_factory.mktemp("runs") / "stopped"

    class Stop(Exception):
        pass

    def stop_at_five(log, row, write=train.MetricsLog.write):
        write(log, row)
        if row["step"] == 5:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.MetricsLog, "write", stop_at_five)
        with pytest.raises(Stop):
            train.main(options(start, run_dir))
    deadline = time.time() + PATIENCE
    while not (run_dir / "checkpoints" / "4").exists():  # a save goes on in the background
        assert time.time() < deadline
        time.sleep(0.02)
    return run_dir, (start / "examples.jsonl").read_text().splitlines(keepends=True)


@pytest.mark.parametrize("name", ["another answer", "another order", "a row less", "rows more", "beyond the end"])
def test_data_that_changed_since_the_stop_is_refused(name, start, stopped, tmp_path):
    run_dir, lines = stopped
    other = json.loads(lines[6])
    changed, said = {
        "another answer": (
            [*lines[:6], json.dumps(other | {"answer": other["answer"] + "!"}) + "\n", *lines[7:]],
            r"training examples \(40\), number 7 \(id sft-0-6\) differs",
        ),
        "another order": ([*lines[1:], lines[0]], r"\(40, all in another order\), number 1 \(id sft-0-1\)"),
        "a row less": (lines[:-1], r"\(39 now, 40 before\), the last ones are missing"),
        "rows more": (lines + [line.replace("sft-0", "sft-1") for line in lines], r"number 41 \(id sft-1-0\)"),
        "beyond the end": (lines[:8], r"\(8 now, 40 before\)"),
    }[name]
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    (start / "examples.jsonl").write_text("".join(changed))
    try:
        with pytest.raises(UserError, match=rf"stopped contains a run on other examples: .*{said}"):
            train.main(options(start, run_dir))
    finally:
        (start / "examples.jsonl").write_text("".join(lines))
    assert all(path.read_bytes() == contents for path, contents in before.items())


def test_a_checkpoint_without_a_digest_resumes_where_it_fits_the_data(start, stopped, tmp_path, monkeypatch, capsys):
    run_dir, lines = stopped
    shutil.copytree(run_dir, tmp_path / "run")
    (tmp_path / "run" / "examples.json").unlink()

    def restore(checkpointer, target, restore=orbax.Checkpointer.restore):
        state, meta = restore(checkpointer, target)
        return state, {name: value for name, value in meta.items() if name != "examples"}

    monkeypatch.setattr(orbax.Checkpointer, "restore", restore)
    (start / "examples.jsonl").write_text("".join(lines[:8]))
    try:
        with pytest.raises(UserError, match=r"is at step 4, behind 56 examples, where this data makes 2 steps of 16"):
            train.main(options(start, tmp_path / "run"))
    finally:
        (start / "examples.jsonl").write_text("".join(lines))
    capsys.readouterr()
    train.main(options(start, tmp_path / "run"))
    said = capsys.readouterr().out
    assert said.count("without a digest of its examples") == 1 and "resuming from step 4" in said
    assert (tmp_path / "run" / "hf" / "config.json").exists() and (tmp_path / "run" / "examples.json").exists()
