"""What a user can get wrong, command by command: one line that names it, before anything is loaded or written.

Each table holds pairs of an input and what its line says. A row more is a test more.
"""

from __future__ import annotations

import os
from importlib import import_module

import pytest

from s1_jax import config as configs
from s1_jax.errors import UserError
from s1_jax.runtime.cli import run_main
from s1_jax.runtime.json_input import read_json, read_jsonl
from s1_jax.runtime.storage import as_path, check_input

LARGE = 10**12
FROM_1 = "it must be a whole number from 1 to 1,073,741,824"
FROM_0 = "it must be a whole number from 0 to 1,073,741,824"
TEMPERATURE = "it must be a number from 1e-06 to 1e+06, or 0"
DEVICES = "it must be a whole number from 1 to 1,073,741,824, or -1"
SEED = "it must be a whole number from 0 to 4,294,967,295"
PLACE = "it must be a string that is not blank"

OPTIONS = {
    "train": (
        ("--data.path=", f"data.path is ''; {PLACE}"),
        ("--model.path=", f"model.path is ''; {PLACE}"),
        ("--run-dir=", f"run_dir is ''; {PLACE}"),
        ("--run-dir= ", f"run_dir is ' '; {PLACE}"),
        ("--data.max-length=0", f"data.max_length is 0; {FROM_1}"),
        ("--data.batch-examples=-1", f"data.batch_examples is -1; {FROM_1}"),
        ("--data.batch-tokens=0", f"data.batch_tokens is 0; {FROM_1} or None"),
        ("--data.row-lengths=0", "data.row_lengths[0] is 0; it must be a whole number from 1 to 16,777,216"),
        ("--data.micro-batch-rows=0", "data.micro_batch_rows is 0; it must be a whole number from 1 to 65,536"),
        ("--data.held-out-share=1", "data.held_out_share is 1.0; it must be a number of at least 0 and below 1"),
        ("--data.held-out-share=nan", "data.held_out_share is nan; it must be a number of at least 0 and below 1"),
        ("--optim.peak-lr=-1e-5", "optim.peak_lr is -1e-05; it must be a number of at least 0"),
        ("--optim.peak-lr=nan", "optim.peak_lr is nan; it must be a number of at least 0"),
        ("--optim.peak-lr=inf", "optim.peak_lr is inf; it must be a number of at least 0"),
        ("--optim.peak-lr=", "--optim.peak-lr : it must be a number of at least 0"),
        ("--optim.warmup-share=1.5", "optim.warmup_share is 1.5; it must be a number from 0 to 1"),
        ("--optim.b2=1", "optim.b2 is 1.0; it must be a number of at least 0 and below 1"),
        ("--optim.eps=0", "optim.eps is 0.0; it must be a number above 0"),
        ("--optim.weight-decay=-1", "optim.weight_decay is -1.0; it must be a number of at least 0"),
        ("--optim.clip-norm=0", "optim.clip_norm is 0.0; it must be a number above 0"),
        ("--optim.moments=float8", "--optim.moments float8: it must be float32 or bfloat16"),
        ("--train.epochs=0", "train.epochs is 0; it must be a whole number from 1 to 10,000"),
        (f"--train.epochs={LARGE}", f"train.epochs is {LARGE}; it must be a whole number from 1 to 10,000"),
        ("--train.epochs=many", "--train.epochs many: it must be a whole number from 1 to 10,000"),
        ("--train.epochs", "--train.epochs: it must be a whole number from 1 to 10,000"),
        ("--train.seed=-1", f"train.seed is -1; {SEED}"),
        (f"--train.seed={LARGE}", f"train.seed is {LARGE}; {SEED}"),
        ("--train.log-every-steps=0", f"train.log_every_steps is 0; {FROM_1}"),
        ("--checkpoint.keep=0", f"checkpoint.keep is 0; {FROM_1}"),
        ("--log.profile-steps=0", f"log.profile_steps[0] is 0; {FROM_1}"),
        *((f"--mesh.{axis}=0", f"mesh.{axis} is 0; {DEVICES}") for axis in ("data", "fsdp", "context", "tensor")),
        ("--mesh.tensor=-2", f"mesh.tensor is -2; {DEVICES}"),
        ("--hosts.start-seconds=0", f"hosts.start_seconds is 0; {FROM_1}"),
        ("--hosts.stall-seconds=-1", f"hosts.stall_seconds is -1; {FROM_0}"),
        ("--hosts.processes=here:99999,2,0", "hosts.processes 'here:99999,2,0': the port 99999 is not between"),
        ("--data.too-long=shorten", "--data.too-long shorten: it must be error or drop or truncate"),
        ("--data.columns=a", "--data.columns a: it must be a mapping of strings to strings or None"),
        ("stray", "no config file stray"),
        ("--run-dir=x stray", "unexpected argument: stray"),
    ),
    "evaluate": (
        ("--run-dir=", f"run_dir is ''; {PLACE}"),
        ("--task.path=", f"task.path is ''; {PLACE} or None"),
        ("--task.limit=0", "task.limit is 0; it must be a whole number from 1 to 1,000,000 or None"),
        (f"--task.limit={LARGE}", f"task.limit is {LARGE}; it must be a whole number from 1 to 1,000,000 or None"),
        ("--task.limit=1.5", "--task.limit 1.5: it must be a whole number from 1 to 1,000,000 or None"),
        ("--task.seed=-1", f"task.seed is -1; {SEED}"),
        *((f"--sampling.temperature={value}", f"temperature is {value}; {TEMPERATURE}") for value in ("nan", "inf")),
        *((f"--sampling.temperature={value}", f"temperature is {value}; {TEMPERATURE}") for value in ("-1.0", "1e-30")),
        ("--sampling.temperature=hot", f"--sampling.temperature hot: {TEMPERATURE}"),
        ("--sampling.top-k=-1", f"top_k is -1; {FROM_0}"),
        ("--sampling.top-p=0", "top_p is 0.0; it must be a number above 0 and of at most 1"),
        ("--sampling.top-p=nan", "top_p is nan; it must be a number above 0 and of at most 1"),
        ("--sampling.min-p=nan", "min_p is nan; it must be a number from 0 to 1"),
        ("--samples=0", "samples is 0; it must be a whole number from 1 to 100,000"),
        (f"--samples={LARGE}", f"samples is {LARGE}; it must be a whole number from 1 to 100,000"),
        ("--seeds=-1", f"seeds[0] is -1; {SEED}"),
        ("--batch-size=0", "batch_size is 0; it must be a whole number from 1 to 65,536"),
        (f"--batch-size={LARGE}", f"batch_size is {LARGE}; it must be a whole number from 1 to 65,536"),
        ("--batch-size=" + "9" * 5000, f"--batch-size {'9' * 60}...: it must be a whole number from 1 to 65,536"),
        ("--max-answer-tokens=-1", f"max_answer_tokens is -1; {FROM_0} or None"),
        ("--max-model-len=0", f"max_model_len is 0; {FROM_1} or None"),
        ("--draft-tokens=-1", "draft_tokens is -1; it must be a whole number from 0 to 1,024"),
        ("--sweep.max-thinking-tokens=-1", f"sweep.max_thinking_tokens[0] is -1; {FROM_0} or None"),
        (f"--sweep.max-thinking-tokens={2**31}", f"sweep.max_thinking_tokens[0] is {2**31}; {FROM_0} or None"),
        ("--sweep.max-thinking-tokens 16 x", "--sweep.max-thinking-tokens 16 x: it must be a tuple, each a whole"),
        ("--sweep.num-ignore=-1", f"sweep.num_ignore[0] is -1; {FROM_0}"),
        ("--sweep.newline-grace=nan", "sweep.newline_grace is nan; it must be a number from 0 to 0.1"),
        ("--sweep.end-bias=inf", "sweep.end_bias is inf; it must be a number from 0 to 1e+06"),
        ("--sweep.methods=beem", "--sweep.methods beem: it must be a tuple, each best_of_n or beam or dvts"),
        ("--sweep.widths=0", "sweep.widths[0] is 0; it must be a whole number from 1 to 65,536"),
        ("--sweep.shared-trace=maybe", "--sweep.shared-trace maybe: it must be true or false"),
        ("--search.exploration=nan", "search.exploration is nan; it must be a number of at least 0"),
        ("--rewards.slots=0", "rewards.slots is 0; it must be a whole number from 1 to 65,536"),
        ("--mesh.data=0", f"mesh.data is 0; {DEVICES}"),
    ),
    "generate": (
        ("", "give --input and --output, or --prompt"),
        ("--model=", f"model.path is ''; {PLACE}"),
        ("--model=m --input= --output=o", f"input is ''; {PLACE} or None"),
        ("--model=m --input=i --output=", f"output is ''; {PLACE} or None"),
        ("--model=m --prompt=x --sampling.temperature=nan", f"temperature is nan; {TEMPERATURE}"),
        ("--model=m --prompt=x --budget.num-ignore=-1", f"num_ignore is -1; {FROM_0}"),
        ("--model=m --prompt=x --seed=-1", f"seed is -1; {SEED}"),
        ("--model=m --prompt=x --batch-size=0", "batch_size is 0; it must be a whole number from 1 to 65,536"),
        ("--model=m --prompt=x --thinking no", "unexpected argument: no"),
        ("--model=m --input=/dev/zero --output=o", "/dev/zero is a device or a pipe; name a file"),
        ("--model=m --input=i --output=/dev/null", "/dev/null is a device or a pipe; name a file"),
    ),
    "grade": (
        ("", "usage: python -m s1_jax.grade RUN_DIR"),
        ("run --judge.temperature=nan", f"judge.temperature is nan; {TEMPERATURE} or None"),
        ("run --judge.concurrent=0", "judge.concurrent is 0; it must be a whole number from 1 to 1,000"),
        ("run --judge.timeout-seconds=0", "judge.timeout_seconds is 0.0; it must be a number above 0 and of at most"),
        ("run --judge.attempts=0", "judge.attempts is 0; it must be a whole number from 1 to 100"),
        ("run --judge.dollars-per-million-tokens 1", "--judge.dollars-per-million-tokens 1: it must be a tuple of 2"),
        ("run --judge.model=m --judge.base-url=http://localhost:99999/v1", "judge.base_url "),
    ),
    "curate": (
        ("--run-dir=", f"run_dir is ''; {PLACE}"),
        ("--collect.paths=", f"collect.paths[0] is ''; {PLACE}"),
        ("--collect.limit=0", f"collect.limit is 0; {FROM_1} or None"),
        ("--collect.near-duplicates=nan", "collect.near_duplicates is nan; it must be a number above 0 and of at"),
        ("--decontaminate.words=0", f"decontaminate.words is 0; {FROM_1}"),
        ("--filter.rules=nonsense", "--filter.rules nonsense: it must be a tuple, each no_trace or no_solution"),
        ("--select.size=0", f"select.size is 0; {FROM_1}"),
        ("--generate.teacher.max-tokens=0", f"max_tokens is 0; {FROM_1}"),
        ("--write.name=a/b", "write.name 'a/b' is not the name of a folder"),
    ),
    "convert": (
        ("--source=a", "missing: --target"),
        ("--source= --target=b", f"source is ''; {PLACE}"),
        ("--source=a --target=", f"target is ''; {PLACE}"),
    ),
    "plan": (
        ("--topology=v5e:1x1 --search-limit=0", f"search_limit is 0; {FROM_1}"),
        ("--topology=v5e:1x1 --optim.peak-lr=nan", "optim.peak_lr is nan; it must be a number of at least 0"),
        ("--topology=v5e:1x1 --lengths=", f"lengths is ''; {PLACE} or None"),
    ),
}
VALUES = {  # in a config file, where no command line has made numbers of words
    "EvaluateConfig(batch_size='64')": "batch_size is '64'; it must be a whole number from 1 to 65,536",
    "EvaluateConfig(batch_size=True)": "batch_size is True; it must be a whole number from 1 to 65,536",
    "EvaluateConfig(batch_size=64.0)": "batch_size is 64.0; it must be a whole number from 1 to 65,536",
    "EvaluateConfig(batch_size=None)": "batch_size is None; it must be a whole number from 1 to 65,536",
    "EvaluateConfig(run_dir=3)": f"run_dir is 3; {PLACE}",
    "EvaluateConfig(run_dir='a\\0b')": f"run_dir is 'a\\x00b'; {PLACE}",
    "EvaluateConfig(seeds=0)": f"seeds is 0; it must be a tuple, each {SEED.removeprefix('it must be ')}",
    "EvaluateConfig(seeds=(0, '1'))": f"seeds[1] is '1'; {SEED}",
    "EvaluateConfig(model='m')": "model is 'm'; it must be a DecodeModelSource",
    "EvaluateConfig(sampling={'temperature': 1})": "sampling is {'temperature': 1}; it must be a SamplingConfig",
    "EvaluateConfig(model=ModelSource(dtype='f8'))": "model.dtype is 'f8'; it must be auto or float32 or bfloat16",
    "EvaluateConfig(sweep=SweepConfig(shared_trace=1))": "sweep.shared_trace is 1; it must be true or false",
    "EvaluateConfig(sweep=SweepConfig(ignore_strings='Wait'))": "sweep.ignore_strings is 'Wait'; it must be a tuple",
    "EvaluateConfig(sweep=SweepConfig(extra=(3,)))": "sweep.extra[0] is 3; it must be a SettingConfig",
    "EvaluateConfig(samples=10**5000)": "samples is a number of thousands of digits; it must be a whole number",
    "TrainConfig(optim=OptimConfig(peak_lr='1e-5'))": "optim.peak_lr is '1e-5'; it must be a number of at least 0",
    "TrainConfig(optim=OptimConfig(peak_lr=-1))": "optim.peak_lr is -1; it must be a number of at least 0",
    "TrainConfig(optim=OptimConfig(b1=10**400))": "optim.b1 is ",
    "TrainConfig(data=DataConfig(columns={'text': 3}))": "data.columns is {'text': 3}; it must be a mapping of strings",
    "TrainConfig(mesh=MeshConfig(data=0))": f"mesh.data is 0; {DEVICES}",
    "TrainConfig(epochs=3)": "TypeError: ",
}
FILES = {  # config files that are none
    b"": " has no get_config()",
    b"import sys\nsys.exit(0)": ": SystemExit: 0",
    b"def get_config():\n    raise SystemExit": ": SystemExit: ",
    b"class Odd(Exception):\n    def __str__(self): raise Odd\nraise Odd": ": Odd: it cannot say why",
    b"class Odd(BaseException): pass\ndef get_config():\n    raise Odd('of two\\nlines')": ": Odd: of two lines",
    b"def get_config(:": ": SyntaxError: invalid syntax",
    b"def get_config(): return '\xff'": ": SyntaxError: (unicode error) 'utf-8' codec can't decode byte 0xff",
    b"\xff\xfeG\0": ": SyntaxError: ",
    b"a\0b": ": SyntaxError: ",
    b"(" * 1000: ": SyntaxError: ",
    b"def get_config(): return get_config()": ": RecursionError: ",
    b"def get_config(): return 3": " gives a int; ",
    b"get_config = 3": ": TypeError: ",
    b"import no_such_module": ": ModuleNotFoundError: ",
}


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """An empty folder to be in, and to leave empty."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", OPTIONS)
def test_options(command, nowhere):
    for line, said in OPTIONS[command]:
        words = line.split(" ") if "= " not in line or "--" in line.partition("= ")[2] else [line]
        with pytest.raises(UserError) as error:
            import_module(f"s1_jax.{command}").main([word for word in words if word])
        assert str(error.value).startswith(said) and "\n" not in str(error.value), line


def test_values_of_a_config_file(tmp_path):
    path = tmp_path / "config.py"
    for value, said in VALUES.items():
        path.write_text(f"from s1_jax.config import *\ndef get_config():\n    return {value}\n")
        command = import_module("s1_jax.train" if value.startswith("Train") else "s1_jax.evaluate")
        with pytest.raises(UserError) as error:
            command.main([str(path)])
        assert str(error.value).startswith(f"{path}: {said}") and "\n" not in str(error.value), value


@pytest.mark.parametrize("command", ["train", "evaluate", "curate", "plan"])
def test_config_files_that_are_none(command, tmp_path):
    path = tmp_path / "config.py"
    for contents, said in FILES.items():
        path.write_bytes(contents)
        with pytest.raises(UserError) as error:
            import_module(f"s1_jax.{command}").main([str(path)])
        assert str(error.value).startswith(f"{path}{said}") and "\n" not in str(error.value), contents


def test_lists_of_a_config_file_are_tuples():
    assert configs.EvaluateConfig(seeds=[0, 1]) == configs.EvaluateConfig(seeds=(0, 1))


def test_devices_and_pipes_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    for path in (tmp_path / "pipe.jsonl", as_path("/dev/zero"), as_path("/dev/null")):
        said = f"^{path} is a device or a pipe; name a file$"
        for read in (check_input, read_json, lambda path: list(read_jsonl(path))):
            with pytest.raises(UserError, match=said):
                read(path)
        for command, argv in {
            "train": [[str(path)], ["--data.path", str(path), "--model.path", str(path)]],
            "evaluate": [[str(path)], ["--model.path", str(path)], ["--task.name", "jsonl", "--task.path", str(path)]],
            "curate": [[str(path)]],
            "plan": [[str(path)]],
            "convert": [["--source", str(path), "--target", str(tmp_path / "x")]],
        }.items():
            for options in argv:
                with pytest.raises(UserError, match=said):
                    import_module(f"s1_jax.{command}").main(options)


@pytest.mark.parametrize(
    ("command", "options", "said"),
    [
        ("train", "--run-dir=file", "file: "),
        ("train", "--run-dir=file/below", "file/below: "),
        ("train", "--run-dir=" + "x" * 300, f"{'x' * 300}: "),
        ("evaluate", "--run-dir=file", "file: "),
        ("curate", "--run-dir=file", "file: "),
        ("grade", "file", "file: "),
        ("convert", "--source=MODEL --target=file/below", "file/below: "),
    ],
)
def test_places_that_cannot_be_written(command, options, said, tmp_path, monkeypatch, capsys, start):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    argv = options.replace("MODEL", str(start / "model")).split()
    with pytest.raises(SystemExit) as ended:
        run_main(lambda: import_module(f"s1_jax.{command}").main(argv))
    printed = capsys.readouterr().err
    assert ended.value.code == 2 and printed.startswith("error: ") and printed.count("\n") == 1, printed
    assert "Run the same command" not in printed
