"""Command lines, config files, and the one line a user gets for a mistake."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest
from gcsfs.retry import HttpError

from s1_jax.config import EvaluateConfig, TrainConfig
from s1_jax.config.curate import CurateConfig
from s1_jax.errors import RunError, UserError
from s1_jax.runtime import signals
from s1_jax.runtime.cli import (
    RESUME,
    StopFlag,
    Terminated,
    load_config,
    parse,
    parse_with_file,
    resumable,
    run_main,
    to_json,
)
from tests.runs import PATIENCE, PROJECT

COMMANDS = ("train", "evaluate", "generate", "grade", "plan", "curate", "convert", "lm_eval")


def test_overrides_change_only_what_they_name():
    config = parse(TrainConfig, ["--run-dir", "x", "--optim.peak-lr", "1e-3", "--data.batch-examples", "4"], "train")
    expected = dataclasses.replace(
        TrainConfig(),
        run_dir="x",
        optim=dataclasses.replace(TrainConfig().optim, peak_lr=1e-3),
        data=dataclasses.replace(TrainConfig().data, batch_examples=4),
    )
    assert config == expected


def test_the_public_overrides_of_train_and_evaluate():
    train = parse(
        TrainConfig,
        "--run-dir r --model.path m --data.path d --data.batch-examples 2 --optim.peak-lr 1e-4 --train.epochs 3"
        " --train.seed 7 --checkpoint.every-steps 9".split(),
        "train",
    )
    assert (train.run_dir, train.model.path, train.data.path, train.data.batch_examples) == ("r", "m", "d", 2)
    assert (train.optim.peak_lr, train.train.epochs, train.train.seed, train.checkpoint.every_steps) == (1e-4, 3, 7, 9)
    sweep = parse(
        EvaluateConfig,
        "--run-dir r --model.path m --task.path t --task.limit 5 --sweep.max-thinking-tokens 16 32 None"
        " --sweep.num-ignore 0 1 2".split(),
        "evaluate",
    )
    assert (sweep.task.path, sweep.task.limit, sweep.sweep.max_thinking_tokens) == ("t", 5, (16, 32, None))
    assert sweep.sweep.num_ignore == (0, 1, 2)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--optim.peak-l", "1"], "did you mean --optim.peak-lr"),
        (["--optim.peak_lrr=1"], "did you mean --optim.peak-lr"),
        (["--train.epochs", "many"], "epochs"),
        (["--data.too-long", "shorten"], "too-long"),
        (["--log.profile-steps", "-"], "^--log.profile-steps -: it must be"),
        (["--profile", "1", "x"], "^--profile 1 x: it must be"),
        (["--log.profile_steps=x"], "^--log.profile-steps x: it must be"),
    ],
    ids=str,
)
def test_a_wrong_option_is_one_line(argv, words, capsys):
    with pytest.raises(UserError, match=words) as error:
        parse(TrainConfig, argv, "train")
    assert "\n" not in str(error.value)
    assert capsys.readouterr().err == ""


def test_help_is_for_a_newcomer(capsys):
    with pytest.raises(SystemExit) as stop:
        parse_with_file(TrainConfig, ["--help"], "python -m s1_jax.train")
    assert stop.value.code == 0
    said = capsys.readouterr().out
    for words in ("CONFIG.py", "--optim.peak-lr", "--run-dir", "linear warm-up and a cosine decay"):
        assert words in said


def test_config_files(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from s1_jax.config import TrainConfig\ndef get_config():\n    return TrainConfig(run_dir='mine')\n"
    )
    assert load_config(file).run_dir == "mine"
    assert parse_with_file(TrainConfig, [str(file), "--train.epochs", "2"], "train").train.epochs == 2
    with pytest.raises(UserError, match="gives a TrainConfig; evaluate needs a EvaluateConfig"):
        parse_with_file(EvaluateConfig, [str(file)], "evaluate")
    with pytest.raises(UserError, match="no config file .*; the shipped configs are .*quickstart_sft"):
        load_config(tmp_path / "xyzzy.py")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(UserError, match="no get_config"):
        load_config(tmp_path / "empty.py")
    with pytest.raises(UserError, match="usage: train CONFIG.py .*, or options alone"):
        parse_with_file(TrainConfig, [], "train")


@pytest.mark.parametrize("cls", [TrainConfig, EvaluateConfig, CurateConfig])
def test_options_alone_are_enough(cls, tmp_path):
    assert parse_with_file(cls, ["--run-dir", "x"], "prog") == dataclasses.replace(cls(), run_dir="x")
    file = tmp_path / "mine.py"
    with pytest.raises(UserError, match=f"{file}: the config file comes first: prog {file} "):
        parse_with_file(cls, ["--run-dir", "x", str(file)], "prog")
    with pytest.raises(UserError, match="did you mean --run-dir"):
        parse_with_file(cls, ["--run-dri", "x"], "prog")


def test_a_sweep_by_options_alone():
    options = "--model.path X --task.name aime24 --sweep.max-thinking-tokens 16 None --seeds 0 1"
    config = parse_with_file(EvaluateConfig, options.split(), "evaluate")
    usual = EvaluateConfig()
    assert config == dataclasses.replace(
        usual,
        model=dataclasses.replace(usual.model, path="X"),
        task=dataclasses.replace(usual.task, name="aime24"),
        sweep=dataclasses.replace(usual.sweep, max_thinking_tokens=(16, None)),
        seeds=(0, 1),
    )


def test_json_holds_every_option():
    assert json.loads(to_json(TrainConfig())) == json.loads(json.dumps(dataclasses.asdict(TrainConfig())))


def test_entry_points_end_with_one_line_and_code_2(capsys):
    def fails():
        raise UserError("do this instead")

    def stopped():
        raise KeyboardInterrupt

    for main, code, said in ((fails, 2, "error: do this instead\n"), (lambda: None, 0, "")):
        with pytest.raises(SystemExit) as stop:
            run_main(main)
        assert (stop.value.code, capsys.readouterr().err) == (code, said)
    with pytest.raises(SystemExit) as stop:
        run_main(stopped)
    assert stop.value.code == 130


def system(number, *files):
    return OSError(number, os.strerror(number), *files)


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (UserError("no such thing"), 2, "error: no such thing"),
        (RunError("it went wrong"), 1, "error: it went wrong"),
        (system(errno.ENOSPC), 1, f"error: No space left on device; {RESUME}"),
        (system(errno.ENOSPC, "a/b"), 1, f"error: a/b: No space left on device; {RESUME}"),
        (system(errno.EIO, "a/b"), 1, f"error: a/b: Input/output error; {RESUME}"),
        (ConnectionError("gone"), 1, f"error: gone; {RESUME}"),
        (system(errno.ENOENT, "a/b"), 2, "error: a/b: No such file or directory"),
        (system(errno.EISDIR, "a/b"), 2, "error: a/b: Is a directory"),
        (system(errno.ENOTDIR, "a/b"), 2, "error: a/b: Not a directory"),
        (system(errno.EEXIST, "a/b"), 2, "error: a/b: File exists"),
        (system(errno.EACCES, "a/b"), 2, "error: a/b: Permission denied"),
        (system(errno.EPERM, "a/b"), 2, "error: a/b: Operation not permitted"),
        (system(errno.EROFS, "a/b"), 2, "error: a/b: Read-only file system"),
        (system(errno.ENAMETOOLONG, "a/b"), 2, "error: a/b: File name too long"),
        (system(errno.ELOOP, "a/b"), 2, "error: a/b: Too many levels of symbolic links"),
        (HttpError({"code": 401}), 1, f"error: the bucket cannot be reached: , 401; {RESUME}"),
        (KeyboardInterrupt(), 130, f"interrupted; {RESUME}"),
        (Terminated(), 75, f"received SIGTERM; {RESUME}"),
    ],
    ids=repr,
)
def test_every_end_has_its_code_and_its_line(raised, code, said, capsys):
    """The line on how to resume is printed only where the same command does resume."""

    def main():
        raise raised

    for command, line in ((resumable()(main), said), (main, said.removesuffix(f"; {RESUME}"))):
        with pytest.raises(SystemExit) as ended:
            run_main(command)
        assert (ended.value.code, capsys.readouterr().err) == (code, line + "\n")
        vars(raised).pop("__notes__", None)


def test_what_nobody_expected_keeps_its_traceback():
    def main():
        raise ValueError("a fault of ours")

    with pytest.raises(ValueError, match="a fault of ours"):
        run_main(main)


SLOW_IMPORT = """
import sys, time

class Slow:
    def find_spec(self, name, *_):
        if name in ("jax", "lm_eval"):
            print("importing", flush=True)
            time.sleep({seconds})

sys.meta_path.insert(0, Slow())
"""


@pytest.mark.parametrize("command", [*(f"s1_jax.{name}" for name in COMMANDS), "s1_jax lm_eval"])
def test_signals_are_heard_while_a_command_is_imported(command, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(SLOW_IMPORT.format(seconds=PATIENCE))
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(tmp_path), str(PROJECT)]))
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    for number, code, line in ((signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, 75, "received SIGTERM\n")):
        with subprocess.Popen([sys.executable, "-m", *command.split()], **pipes) as process:
            try:
                assert process.stdout.readline() == "importing\n"
                process.send_signal(number)
                said = process.communicate(timeout=PATIENCE)[1]
            finally:
                process.kill()
        assert (process.returncode, said) == (code, line)


def caught():
    with suppress(BaseException):
        signal.raise_signal(signal.SIGTERM)


def dropped():
    class Noisy:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    Noisy()


def turned_into_another():
    try:
        signal.raise_signal(signal.SIGTERM)
    except BaseException:
        raise ValueError("as a library says it") from None


@pytest.mark.parametrize("lose", [caught, dropped, turned_into_another])
def test_a_signal_that_a_library_loses_is_raised_again(lose, capsys, monkeypatch):
    monkeypatch.setattr(signals, "AGAIN_SECONDS", 0.01)

    def main():
        lose()
        threading.Event().wait(PATIENCE)

    with pytest.raises(SystemExit) as ended:
        run_main(main)
    assert (ended.value.code, capsys.readouterr().err) == (75, "received SIGTERM\n")


def test_what_is_open_is_closed_in_order(capsys, monkeypatch):
    """A signal is raised again only where it was lost; a second one of the user's ends the closing too."""
    monkeypatch.setattr(signals, "AGAIN_SECONDS", 0.001)
    closed = []

    def main(*more):
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            for number in more:
                signal.raise_signal(number)
            for _ in range(20):
                time.sleep(0.002)
            closed.append(True)

    for command, code, line, times in (
        (main, 130, "interrupted\n", 1),
        (lambda: main(signal.SIGTERM), 75, "received SIGTERM\n", 1),
    ):
        with pytest.raises(SystemExit) as ended:
            run_main(command)
        assert (ended.value.code, capsys.readouterr().err, len(closed)) == (code, line, times)


def test_a_signal_that_comes_last_within_a_flag_is_not_lost():
    for number, raised in ((signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)):
        with pytest.raises(raised), StopFlag():
            signal.raise_signal(number)
        with pytest.raises(raised), StopFlag():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(number)  # a second one does not wait for the step


def test_ctrl_c_is_heard_in_the_background_of_a_script_too(capsys):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a script's `&` starts a command
    try:
        with pytest.raises(SystemExit) as ended:
            run_main(lambda: signal.raise_signal(signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.value.code == 130 and capsys.readouterr().err.startswith("interrupted")


def test_ctrl_c_in_a_call_that_python_cannot_interrupt_is_heard_at_once(tmp_path):
    """The main thread waits in C for a mutex, as it does for a long step, until what was said has been read."""
    script = f"""
import ctypes, os, threading, time
from s1_jax.runtime.cli import StopFlag, run_main

lib, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)

def free():
    while not os.path.exists({str(tmp_path / "go")!r}):
        time.sleep(0.01)
    lib.pthread_mutex_unlock(mutex)

def main():
    with StopFlag("the first step") as stop:
        stop.waits_for = "step 7, which is then saved"
        lib.pthread_mutex_lock(mutex)
        threading.Thread(target=free).start()
        print("waiting", flush=True)
        lib.pthread_mutex_lock(mutex)
        stop.check()

run_main(main)
"""
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as process:
        try:
            assert process.stdout.readline() == "waiting\n"
            process.send_signal(signal.SIGINT)
            assert process.stderr.readline() == "received Ctrl-C; waiting for step 7, which is then saved\n"
            assert process.poll() is None
            (tmp_path / "go").touch()
            process.wait(60)
        finally:
            process.kill()
        assert process.returncode == 130 and process.stderr.read() == "interrupted\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_wait_for_other_processes_ends_at_once(number, code):
    """As `jax.distributed.initialize` waits: in C, where no handler of Python's runs."""
    script = """
import ctypes
from s1_jax.runtime.cli import run_main
from s1_jax.runtime.signals import Told, end_now

lib, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)

def main():
    with Told(end_now):
        lib.pthread_mutex_lock(mutex)
        print("waiting", flush=True)
        lib.pthread_mutex_lock(mutex)

run_main(main)
"""
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as process:
        try:
            assert process.stdout.readline() == "waiting\n"
            process.send_signal(number)
            said = process.communicate(timeout=PATIENCE)[1]
        finally:
            process.kill()
    assert process.returncode == code and said in ("interrupted\n", "received SIGTERM\n")


def test_signals_are_told_once_and_by_their_names(capfd):
    for number, name in ((signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")):
        with pytest.raises((KeyboardInterrupt, Terminated)), StopFlag("the rows under way") as stop:
            signal.raise_signal(number)
            assert stop.asked
            stop.check()
        assert capfd.readouterr().err == f"received {name}; waiting for the rows under way\n"
    with StopFlag() as outer, StopFlag() as inner:
        pass
    assert not outer.asked and not inner.asked and signal.set_wakeup_fd(-1) == -1
