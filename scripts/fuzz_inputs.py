"""Gives every command thousands of inputs that are almost right, and looks at how it ends.

    python scripts/fuzz_inputs.py --inputs 2000 --seed 0
    python scripts/fuzz_inputs.py --again runs/fuzz/17/case.json

An input is a valid one with something changed: options, config files, JSONL of data, prompts and problems, records and
config.json of a run, a model's config.json, its safetensors and tokenizer, and replies of an endpoint. A command has to
end with exit code 0, 1, 2, 75 or 130, one line of error where it fails, no traceback, within a time and a memory, and
with nothing on the screen that steers a terminal. One process runs many inputs through `main()`; a few are given to a
process of their own. Inputs that fail this are kept in a folder (--failures), to be run again. The same seed and number
make the same inputs. 2 cores: some ten minutes for 2,000.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import importlib
import json
import os
import random
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
CODES = (0, 1, 2, 75, 130)
LIMIT = 90.0  # seconds that one input may take
MEMORY = 6 * 2**30  # bytes that it may take
INPUTS_OF_A_WORKER = 250  # then it is started again: compiled programs and whatever else a process gathers
KEPT = 20  # folders of inputs that stay for a while
OF_ITS_OWN = 0.02  # fraction of inputs that a process of their own gets
TRACEBACK = "Traceback (most recent call last)"
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "MPLBACKEND": "Agg",
    "TOKENIZERS_PARALLELISM": "false",
    "S1_JAX_FUZZ_KEY": "sk-fuzz-0123456789",
    "NO_PROXY": "*",
}
SWEEP = ["--sweep.max-thinking-tokens", "4", "8", "--max-answer-tokens", "4", "--max-model-len", "128"]

# What stands in the place of a value
DIGITS = "9" * 5000
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 10**30, 1.5, -0.5, 1e308, float("nan"), float("inf"), -float("inf")),
    *("", " ", "0", "-1", "nan", "a", "\ud800", "\x00", "\x1b[2J\x07", "a\nb\r", "\u202etxt", "a" * 10_000),
    "$\\frac{1}{$",
    *("../../x", "/dev/zero", "/dev/null", "[/red]", "\ufeff", [], {}, [None], [[]], {"": None}, [1, "a"]),
    {"a": {"b": []}},
]
WORDS = [
    *("", " ", "-1", "0", "1", "2", "1.5", "1e400", "nan", "inf", "-inf", DIGITS, "true", "false", "None", "a"),
    "\udcff",
    *("/dev/zero", "/dev/null", "/dev/stdin", "missing", ".", "examples.jsonl", "a" * 5000, "[/red]", "\x1b[2J"),
    "a\nb",
    *("gs://", "s3://a/b", "http://x", "https://u:p@h/v1", "1 2", "--", "-", "1,2", "{}", "\u00e9", "99999", "="),
    "1_000",
]
NUMBERS = [
    "-1",
    "0",
    "1",
    "3",
    "0.5",
    "1.5",
    "1e-300",
    "1e300",
    "1e400",
    "nan",
    "inf",
    "-inf",
    "99999",
    "1" + "0" * 30,
    DIGITS,
]
LINES = [
    *(b"", b"{", b"null", b"[]", b"7", b'"a"', b"\xff\xfe{}", b"\x00", b"\xef\xbb\xbf{}", b"[" * 100_000, b"{}" * 3),
    *(b'{"a": ' * 100_000, b'{"a": 1, "a": 2}', b'{"a": ' + DIGITS.encode() + b"}", b'{"a": NaN}', b'{"a": 1e999}'),
]


@dataclasses.dataclass
class Case:
    """One input: what lies in its folder, and the command that is run there."""

    kind: str
    command: str  # module of s1_jax
    argv: list[str]  # {port}: that of an endpoint which says what `reply.bin` holds
    own: bool = False  # in a process of its own


@dataclasses.dataclass
class Result:
    """How it ended."""

    code: int | None
    out: str
    err: str
    seconds: float
    why: str | None = None  # what is wrong with that


# Making inputs


class Maker:
    """Makes input number `number` of a seed in `folder`, from what lies in `base`."""

    def __init__(self, base: Path, folder: Path, seed: int, number: int) -> None:
        self.base, self.folder, self.draws = base, folder, random.Random(f"{seed}:{number}")

    def make(self) -> Case:
        """The input, with its files written."""
        self.folder.mkdir(parents=True)
        for path in self.base.iterdir():
            (self.folder / path.name).symlink_to(path)
        makers, weights = zip(*KINDS, strict=True)
        (maker,) = self.draws.choices(makers, weights)
        case = maker(self)
        case.own = self.draws.random() < OF_ITS_OWN
        return case

    def own(self, name: str) -> Path:
        """A file of the folder, or one in a folder of it, that may be written: no longer the base's."""
        parts = Path(name).parts
        for i in range(1, len(parts) + 1):
            path = self.folder.joinpath(*parts[:i])
            if path.is_symlink():
                source = path.resolve()
                path.unlink()
                if source.is_dir():
                    path.mkdir()
                    for child in source.iterdir():
                        (path / child.name).symlink_to(child)
                else:
                    shutil.copyfile(source, path)
        return self.folder / name

    # Kinds

    def options(self) -> Case:
        """Options with values that they may not have, options that are none, and too many or too few of them."""
        case = self.draws.choice(GATED)(self)
        names = self.names_of(case.command, case.argv)
        for _ in range(self.draws.choice([1, 1, 1, 2, 3])):
            name, value = self.draws.choice(names), self.word()
            case.argv += self.draws.choices(
                [[name, value], [f"{name}={value}"], [name], [name, value, self.word()], [name[:-1], value], [value]],
                (20, 4, 1, 1, 1, 1),
            )[0]
        if self.draws.random() < 0.1:
            case.argv.pop(self.draws.randrange(len(case.argv)))
        return case

    def config_file(self) -> Case:
        """A config file with lines changed, or that does something else than give a config."""
        command = self.draws.choice(["train", "evaluate", "curate"])
        name = {"train": "quickstart_sft", "evaluate": "quickstart_sweep", "curate": "curate_quickstart"}[command]
        text = (PROJECT / "configs" / f"{name}.py").read_text()
        wrong = self.draws.choice(CODE)
        if self.draws.random() < 0.4:
            lines = text.splitlines()
            lines.insert(self.draws.randint(len(lines) - 3, len(lines)), wrong)
            contents = "\n".join(lines).encode("utf-8", "surrogatepass")
        elif self.draws.random() < 0.5:
            contents = (text + f"\n\n{wrong}\n").encode("utf-8", "surrogatepass")
        else:
            contents = self.bent(text.encode())
        (self.folder / "config.py").write_bytes(contents)
        gate = {"train": self.train, "evaluate": self.evaluate, "curate": self.curate}[command]()
        return Case("config file", command, ["config.py", *gate.argv[1 if command != "curate" else 0 :]])

    def data(self) -> Case:
        """Examples, prompts, problems and questions."""
        case = self.draws.choice([self.train, self.evaluate, self.generate, self.curate])()
        name = {"train": "examples", "generate": "prompts"}.get(case.command, "problems")
        if name == "problems" and self.draws.random() < 0.2:
            other = self.own(self.draws.choice(["problems.parquet", "problems.csv"]))
            other.write_bytes(self.bent(other.read_bytes()))
            argv = [word.replace("problems.jsonl", other.name) for word in case.argv]
            return Case("data", case.command, argv)
        self.bend_lines(f"{name}.jsonl")
        return dataclasses.replace(case, kind="data")

    def kept(self) -> Case:
        """What an earlier start left: records of prompts, tables of curation and answers that were paid for."""
        if self.draws.random() < 0.3:
            self.bend_lines("out.jsonl")
            return Case("kept", "generate", GENERATE)
        names = [str(p.relative_to(self.base)) for p in sorted((self.base / "curated").rglob("*")) if p.is_file()]
        path = self.own(self.draws.choice(names))
        if path.suffix == ".jsonl" and self.draws.random() < 0.7:
            self.bend_lines(str(path.relative_to(self.folder)))
        else:
            path.write_bytes(self.bent(path.read_bytes()))
        return Case(
            "kept", "curate", [*CURATE, "--run-dir", "curated", "--until", "grade", *asking("generate.teacher")]
        )

    def records(self) -> Case:
        """Records of a run, its config.json, and what a judge said."""
        command, argv, folder = self.draws.choice(
            [
                ("grade", ["run"], "run"),
                ("evaluate", ["run"], "run"),
                ("evaluate", ["--parity", "paper"], "paper"),
                ("evaluate", ["--compare", "run", "other"], "run"),
                ("evaluate", ["--compare", "other", "run"], "run"),
                ("evaluate", [*self.decode(), "--run-dir", "run"], "run"),
            ]
        )
        name = self.draws.choices(["records.jsonl", "config.json", "judge.jsonl"], (6, 4, 1))[0]
        path = self.own(f"{folder}/{name}")
        if name == "config.json":
            self.bend_json(path)
        elif name == "records.jsonl":
            self.bend_lines(f"{folder}/{name}")
        else:
            path.write_bytes(self.draws.choice(LINES) + b"\n" + self.draws.choice(LINES) + b"\n")
        return Case("records", command, argv)

    def training_run(self) -> Case:
        """The folder of a training run that is resumed, or whose checkpoint is exported."""
        names = [str(p.relative_to(self.base)) for p in (self.base / "trained").rglob("*") if p.is_file()]
        small = [name for name in names if name.endswith((".json", ".jsonl", "_METADATA", "metadata"))]
        path = self.own(self.draws.choice(small if self.draws.random() < 0.7 else names))
        if path.suffix == ".json" and self.draws.random() < 0.6:
            self.bend_json(path)
        else:
            path.write_bytes(self.bent(path.read_bytes()))
        if self.draws.random() < 0.5:
            return Case("training run", "convert", ["--source", "trained", "--target", "out"])
        return Case("training run", "train", [*TRAINED, "--run-dir", "trained"])

    def model_config(self) -> Case:
        """A model's config.json, and its other settings."""
        name = self.draws.choices(["config.json", "generation_config.json"], (9, 1))[0]
        if name == "config.json":
            self.bend_json(self.own("model/config.json"))
        else:
            folder = self.own("model/config.json").parent
            value = {"eos_token_id": self.draws.choice([*VALUES, [1, 10**9], [True], 3])}
            (folder / name).write_bytes(dumped(value))
        export = ("convert", ["--source", "model", "--target", "out"])
        return Case("model config", *self.draws.choice([export, ("evaluate", self.decode())]))

    def tensors(self) -> Case:
        """The safetensors file: its header, its offsets, its length."""
        path = self.own("model/model.safetensors")
        contents = path.read_bytes()
        (length,) = struct.unpack("<Q", contents[:8])
        header, body = contents[8 : 8 + length], contents[8 + length :]
        if self.draws.random() < 0.5:
            value = json.loads(header)
            self.bend(value)
            header = dumped(value)
        elif self.draws.random() < 0.5:
            header = self.bent(header)
        claimed = len(header)
        if self.draws.random() < 0.3:
            claimed = self.draws.choice([0, 1, length - 1, length + 1, 2**31, 2**63, 2**64 - 1])
            body = self.draws.choice([body, b"", body[: len(body) // 2], body + b"\0"])
        path.write_bytes(struct.pack("<Q", claimed) + header + body)
        return Case("safetensors", "convert", ["--source", "model", "--target", "out"])

    def tokenizer(self) -> Case:
        """Files of the tokenizer, its chat template among them."""
        name = self.draws.choice(["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
        if name == "chat_template.jinja":
            folder = self.own("headless/config.json").parent
            (folder / name).write_text(self.draws.choice(TEMPLATES))
        else:
            self.bend_json(self.own(f"headless/{name}"))
        case = self.draws.choice([self.train, self.evaluate])()
        return dataclasses.replace(case, kind="tokenizer")

    def replies(self) -> Case:
        """What an endpoint says, in HTTP and in JSON."""
        said = copy.deepcopy(REPLY)
        if self.draws.random() < 0.7:
            self.bend(said)
        body = dumped(said) if self.draws.random() < 0.7 else self.bent(dumped(said))
        if self.draws.random() < 0.2:
            body = self.draws.choice(LINES)
        status = self.draws.choices(
            [b"200 OK", b"400 Bad", b"500 X", b"429 X", b"302 X", b"204 X", b"103 X"], (12, *[1] * 6)
        )
        head = b"HTTP/1.1 " + status[0] + b"\r\nContent-Type: application/json\r\n"
        head += self.draws.choice(
            [b"", b"", b"", b"Retry-After: 9e9\r\n", b"Location: http://[\r\n", b"X: \xff\x1b[2J\r\n"]
        )
        head += self.draws.choices(
            [
                f"Content-Length: {len(body)}\r\n".encode(),
                b"",
                b"Transfer-Encoding: chunked\r\n",
                b"Content-Length: 7\r\n",
            ],
            (8, 4, 1, 1),
        )[0]
        reply = head + b"\r\n" + body
        self.own("reply.bin").write_bytes(self.bent(reply) if self.draws.random() < 0.2 else reply)
        if self.draws.random() < 0.5:
            self.own("run/records.jsonl")
            return Case("replies", "grade", ["run", *asking("judge")])
        return Case("replies", "curate", [*CURATE, "--until", "generate", *asking("generate.teacher")])

    def whole(self) -> Case:
        """A command that decodes, with options that may be right."""
        argv = ["--model", "model", "--prompt", "1 + 1 =", "--max-answer-tokens", "2", "--max-model-len", "128"]
        names = self.names_of("generate", [])
        return Case(
            "whole", "generate", [*argv, self.draws.choice(names), self.draws.choice(["0", "1", "2", "0.5", "4"])]
        )

    # Commands that end, for want of weights, once they have read their options and data

    def train(self) -> Case:
        """Training."""
        return Case("options", "train", [*TRAINED, "--run-dir", "out", "--model.path", "headless"])

    def evaluate(self, run_dir: str = "out") -> Case:
        """A sweep."""
        return Case("options", "evaluate", [*self.decode("headless"), "--run-dir", run_dir])

    def generate(self) -> Case:
        """Many prompts."""
        return Case("options", "generate", ["--model", "headless", "--input", "prompts.jsonl", "--output", "out.jsonl"])

    def curate(self) -> Case:
        """The first stage of curation."""
        return Case("options", "curate", [*CURATE, "--until", "collect"])

    def convert(self) -> Case:
        """An export."""
        return Case("options", "convert", ["--source", "headless", "--target", "out"])

    def grade(self) -> Case:
        """Grading, which needs no weights."""
        self.own("run/records.jsonl")
        return Case("options", "grade", ["run"])

    def plan(self) -> Case:
        """A plan, which ends for want of a topology."""
        return Case("options", "plan", [*TRAINED, "--model.path", "headless"])

    def decode(self, model: str = "model") -> list[str]:
        """Arguments of a sweep."""
        config = str(PROJECT / "configs" / "quickstart_sweep.py")
        return [
            config,
            "--run-dir",
            "out",
            "--model.path",
            model,
            "--task.name",
            "jsonl",
            "--task.path",
            "problems.jsonl",
            *SWEEP,
        ]

    # Changing things

    def word(self) -> str:
        """What may stand in the place of an option's value."""
        return self.draws.choice(NUMBERS if self.draws.random() < 0.5 else WORDS)

    def names_of(self, command: str, argv: Sequence[str]) -> list[str]:
        """The options of a command that change nothing outside of the folder, and wait for nobody."""
        from s1_jax.runtime.cli import option_names

        module = importlib.import_module(f"s1_jax.{command}")
        names = option_names(getattr(module, CONFIGS[command]))
        return [name for name in names if not name.startswith(("--hosts.", "--write.push", "--log.wandb"))]

    def bend(self, value: Any) -> None:
        """Changes one place of a JSON value, which is a list or an object, in place."""
        places = list(_places(value))
        if not places:
            return
        for _ in range(self.draws.choice([1, 1, 1, 2, 3])):
            holder, key = self.draws.choice(places)
            new = self.draws.choice(VALUES)
            what = self.draws.random()
            try:
                if what < 0.7:
                    holder[key] = new
                elif what < 0.85:
                    del holder[key]
                elif isinstance(holder, dict):
                    holder[str(new)[:20]] = holder.pop(key)
                else:
                    holder.append(new)
            except (LookupError, TypeError):  # by now it is another
                pass

    def bend_json(self, path: Path) -> None:
        """Changes a file of JSON: its value, or its bytes."""
        contents = path.read_bytes()
        if self.draws.random() < 0.75:
            value = json.loads(contents)
            self.bend(value)
            path.write_bytes(dumped(value))
        else:
            path.write_bytes(self.draws.choice([self.bent(contents), self.draws.choice(LINES)]))

    def bend_lines(self, name: str) -> None:
        """Changes a file of JSONL: a value of a line, a line, or its bytes."""
        path = self.own(name)
        lines = path.read_bytes().splitlines() or [b"{}"]
        number = self.draws.randrange(len(lines))
        what = self.draws.random()
        if what < 0.6:
            value = json.loads(lines[number])
            self.bend(value)
            lines[number] = dumped(value)
        elif what < 0.7:
            lines[number] = self.draws.choice(LINES)
        elif what < 0.75:
            lines.insert(number, lines[number])
        elif what < 0.8:
            lines = lines[:1] * self.draws.choice([0, 1, 3])
        else:
            path.write_bytes(self.bent(b"\n".join(lines) + b"\n"))
            return
        path.write_bytes(b"\n".join(lines) + self.draws.choice([b"\n", b"\n", b"", b"\r\n"]))

    def bent(self, contents: bytes) -> bytes:
        """Bytes with one thing changed."""
        changed, place = bytearray(contents), self.draws.randrange(len(contents) + 1)
        other = self.draws.randrange(len(contents) + 1)
        match self.draws.randrange(7):
            case 0 if contents:
                changed[place - 1] ^= 1 << self.draws.randrange(8)
            case 1:
                del changed[place:]
            case 2:
                del changed[min(place, other) : max(place, other)]
            case 3:
                changed[place:place] = self.draws.randbytes(self.draws.choice([1, 4, 100]))
            case 4:
                changed[place:place] = contents[min(place, other) : max(place, other)][:1000]
            case 5:
                changed[place:place] = self.draws.choice(LINES)[:5000]
            case _:
                changed[:0] = self.draws.choice([b"\xff\xfe", b"\xef\xbb\xbf", b"\x00", b"\n"])
        return bytes(changed)


CONFIGS = {
    "train": "TrainConfig",
    "evaluate": "EvaluateConfig",
    "generate": "GenerateConfig",
    "curate": "CurateConfig",
    "convert": "ConvertConfig",
    "grade": "GradeConfig",
    "plan": "PlanConfig",
}
TRAINED = [
    *(str(PROJECT / "configs" / "quickstart_sft.py"), "--data.path", "examples.jsonl", "--data.batch-examples", "8"),
    *("--data.micro-batch-rows", "8", "--train.epochs", "1", "--model.path", "model", "--checkpoint.every-steps", "1"),
]
CURATE = [
    "--run-dir",
    "out",
    "--collect.paths",
    "problems.jsonl",
    "--decontaminate.tasks",
    "synthetic",
    "--tokenizer",
    "model",
]
GENERATE = ["--model", "model", "--input", "prompts.jsonl", "--output", "out.jsonl", "--max-answer-tokens", "2"]
REPLY = {
    "choices": [{"message": {"content": "yes", "reasoning_content": "hm"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4},
}
GATED: tuple[Callable[[Maker], Case], ...] = (
    *(Maker.train, Maker.evaluate, Maker.generate, Maker.curate, Maker.convert, Maker.grade, Maker.plan),
)
KINDS: tuple[tuple[Callable[[Maker], Case], float], ...] = (
    *((Maker.options, 26), (Maker.config_file, 8), (Maker.data, 16), (Maker.records, 14), (Maker.training_run, 5)),
    (Maker.kept, 6),
    *((Maker.model_config, 8), (Maker.tensors, 7), (Maker.tokenizer, 6), (Maker.replies, 9), (Maker.whole, 1)),
)
CODE = [  # lines of config files
    *("import sys; sys.exit(0)", "raise SystemExit", "raise KeyboardInterrupt", "raise BaseException('no')", "1 / 0"),
    *("raise Exception('two\\nlines \\x1b[2J')", "get_config = 7", "get_config = lambda: None", "del get_config"),
    "(" * 300,
    *("def get_config(): return 7", "def get_config(a): return a", "def get_config():\n    return get_config()"),
    "import x.y",
    *("\x00", "\ud800", "    return", "raise SystemExit('a\\nb')"),
    "class E(Exception):\n    def __str__(self): raise E\nraise E",
]
TEMPLATES = [
    *("", "{{", "{% for i in range(10**9) %}{% for j in range(10**9) %}{% endfor %}{% endfor %}"),
    "{{ 'a' * 3000000000 }}",
    *("{{ messages[9].content }}", "{{ raise_exception('no\\nno') }}", "{{ ''.__class__.__mro__ }}", "{{ 1 / 0 }}"),
    "\x1b[2J",
    *("{% include 'x' %}", "{{ '\\ud800' }}", "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "{{ 10**10**10 }}"),
]


def asking(who: str) -> list[str]:
    """Options of a model behind the endpoint of an input."""
    options = {"base-url": "http://127.0.0.1:{port}/v1", "model": "m", "attempts": "1", "timeout-seconds": "5"}
    options |= {"requests-per-minute": "1000000", "key-variable": "S1_JAX_FUZZ_KEY"}
    return [word for name, value in options.items() for word in (f"--{who}.{name}", value)]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from _places(inner)


def dumped(value: Any) -> bytes:
    """JSON, with NaN and half surrogate pairs where they stand."""
    return json.dumps(value).encode()


def make_base(base: Path) -> None:
    """A valid input of every sort: a model, data, a sweep and a training run."""
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


# Running inputs


def start(folder: Path, command: str, argv: Sequence[str]) -> subprocess.Popen[str]:
    """A process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", f"s1_jax.{command}", *argv],
        cwd=folder,
        env=os.environ | ENVIRONMENT | {"PYTHONPATH": str(PROJECT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="surrogateescape",
    )


def run_alone(folder: Path, case: Case) -> Result:
    """Runs an input in a process of its own."""
    began = time.monotonic()
    with endpoint(folder) as port, start(folder, case.command, with_port(case.argv, port)) as process:
        try:
            out, err = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            return Result(None, *process.communicate(), LIMIT, f"no end after {LIMIT:.0f} s")
    seconds = time.monotonic() - began
    return Result(process.returncode, out, err, seconds, mistake(process.returncode, out, err))


class Worker:
    """The process that runs many inputs, started again after one that it did not survive."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._ran = 0

    def run(self, folder: Path, case: Case) -> Result:
        """How an input ends there."""
        if self._process is None or self._ran >= INPUTS_OF_A_WORKER:
            self.close()
            self._process = subprocess.Popen(
                [sys.executable, __file__, "--worker"],
                env=os.environ | ENVIRONMENT | {"PYTHONPATH": str(PROJECT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            self._ran = 0
        process, self._ran, began = self._process, self._ran + 1, time.monotonic()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps({"folder": str(folder), **dataclasses.asdict(case)}).encode() + b"\n")
        process.stdin.flush()
        while not select.select([process.stdout], [], [], 0.5)[0]:
            seconds = time.monotonic() - began
            why = f"no end after {LIMIT:.0f} s" if seconds > LIMIT else None
            if _memory(process.pid) > MEMORY:
                why = f"more than {MEMORY // 2**30} GiB of memory"
            if why:
                process.send_signal(signal.SIGABRT)  # faulthandler says where it is
                process.wait()
                self._process = None
                return Result(None, *_said(folder), seconds, why)
        line = process.stdout.readline()
        if not line:
            code, self._process = process.wait(), None
            return Result(code, *_said(folder), time.monotonic() - began, f"the process was ended by {-code}")
        code, (out, err) = json.loads(line), _said(folder)
        return Result(code, out, err, time.monotonic() - began, mistake(code, out, err))

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()
            self._process = None


def work() -> None:
    """The worker: an input a line comes in, its exit code goes out."""
    import faulthandler

    from s1_jax.runtime import cli

    results, nothing = os.fdopen(os.dup(1), "w"), os.open(os.devnull, os.O_RDONLY)
    cases = os.fdopen(os.dup(0), "r")
    os.dup2(nothing, 0)
    for line in cases:
        case = json.loads(line)
        os.chdir(case["folder"])
        for descriptor, name in ((1, "stdout.txt"), (2, "stderr.txt")):
            file = os.open(name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_APPEND)
            os.dup2(file, descriptor)
            os.close(file)
        faulthandler.enable()
        with endpoint(Path()) as port:
            module, argv = importlib.import_module(f"s1_jax.{case['command']}"), with_port(case["argv"], port)
            try:
                cli.run_main(lambda: module.main(argv))  # noqa: B023
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
            except BaseException:
                traceback.print_exc()
                code = 1
        cli.before_exit.clear()
        sys.stdout.flush()
        sys.stderr.flush()
        print(json.dumps(code), file=results, flush=True)


@contextlib.contextmanager
def endpoint(folder: Path) -> Iterator[int]:
    """The port of a server that says the bytes of `reply.bin` to whatever it is asked; 0 without that file."""
    path = folder / "reply.bin"
    if not path.exists():
        yield 0
        return
    reply, listener = path.read_bytes(), socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                asked = b""
                while b"\r\n\r\n" not in asked and (piece := connection.recv(2**16)):
                    asked += piece
                connection.sendall(reply)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(2**16):
                    pass

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def with_port(argv: Sequence[str], port: int) -> list[str]:
    """The arguments with the endpoint's port in its place."""
    return [word.replace("{port}", str(port)) for word in argv]


def mistake(code: int, out: str, err: str) -> str | None:
    """What is wrong with how a command ended; None: nothing."""
    from s1_jax.runtime.terminal import shown

    lines = [line for line in err.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    if TRACEBACK in err:
        return f"a traceback: {lines[-1][:200]}"
    if code not in CODES:
        return f"exit code {code}"
    if code in (1, 2) and len(errors) != 1:
        return f"exit code {code} with {len(errors)} lines of error"
    if code in (1, 2) and lines[-1] != errors[0]:
        return "the error is not the last line"
    if code == 0 and errors:
        return "exit code 0 with an error"
    if shown(out) != out or shown(err) != err:
        return "characters that steer a terminal"
    return None


def _said(folder: Path) -> tuple[str, str]:
    files = (folder / name for name in ("stdout.txt", "stderr.txt"))
    out, err = (f.read_bytes().decode("utf-8", "surrogateescape") if f.exists() else "" for f in files)
    return out, err


def _memory(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def keep(base: Path, target: Path, seed: int, number: int, result: Result) -> None:
    """Writes an input that failed, anew and without links, beside what it said."""
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        case = Maker(base, Path(folder) / "case", seed, number).make()
        shutil.copytree(Path(folder) / "case", target)
    about = {"seed": seed, "number": number, "why": result.why, **dataclasses.asdict(case)}
    (target / "case.json").write_text(json.dumps(about, indent=1) + "\n")
    (target / "said.txt").write_text(result.out + result.err, errors="surrogateescape")


def again(files: Sequence[str]) -> int:
    """Runs kept inputs in processes of their own; 1 where one still fails."""
    failed = 0
    for name in files:
        about = json.loads(Path(name).read_text())
        case = Case(**{field.name: about[field.name] for field in dataclasses.fields(Case)})
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(Path(name).parent, Path(folder) / "case")
            result = run_alone(Path(folder) / "case", case)
        failed += result.why is not None
        print(f"{name}: python -m s1_jax.{case.command} {' '.join(map(ascii, case.argv))}")
        print(f"{result.err[-3000:]}exit code {result.code}: {result.why or 'as it should be'}\n", flush=True)
    return int(failed > 0)


def table(ended: Counter[tuple[str, str, str]]) -> str:
    """Inputs by kind and command, and how they ended."""
    from s1_jax.runtime.tables import align

    endings = [*(f"exit {code}" for code in CODES), "failed"]
    groups = sorted({key[:2] for key in ended})
    rows = [[kind, command, *(str(ended[kind, command, one] or "") for one in endings)] for kind, command in groups]
    total = ["all", "", *(str(sum(n for (*_, how), n in ended.items() if how == one)) for one in endings)]
    rows = [[*row[:2], str(sum(map(int, filter(None, row[2:])))), *row[2:]] for row in [*rows, total]]
    return align([["input", "command", "inputs", *endings], *rows])


def main() -> None:
    """Prints a line for each input that fails, and a table; exit code 1 where one did."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--inputs", type=int, default=2000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--first", type=int, default=0, help="number of the first input")
    options.add_argument("--only", help="kind of input, as the table calls it")
    options.add_argument("--verbose", action="store_true", help="print the last line of every input's standard error")
    options.add_argument("--failures", default="runs/fuzz", help="folder for inputs that fail")
    options.add_argument("--again", nargs="+", metavar="FILE", help="case.json of inputs that failed, to be run again")
    options.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.worker:
        work()
        return
    if asked.again:
        sys.exit(again(asked.again))
    os.environ |= ENVIRONMENT
    worker, ended, slowest, began = Worker(), Counter[tuple[str, str, str]](), (0.0, ""), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        base = Path(folder) / "base"
        make_base(base)
        print(f"valid inputs made in {time.monotonic() - began:.0f} s", flush=True)
        for number in range(asked.first, asked.first + asked.inputs):
            here = Path(folder) / str(number)
            case = Maker(base, here, asked.seed, number).make()
            if asked.only not in (None, case.kind):
                shutil.rmtree(here)
                continue
            result = run_alone(here, case) if case.own else worker.run(here, case)
            slowest = max(slowest, (result.seconds, f"input {number}, {case.kind}, {case.command}"))
            ended[case.kind, case.command, "failed" if result.why else f"exit {result.code}"] += 1
            if asked.verbose:
                print(
                    f"{number} {case.kind}, {case.command}: {result.code} {(result.err.splitlines() or [''])[-1][:300]}"
                )
            if result.why:
                print(f"input {number} ({case.kind}, {case.command}): {result.why}", flush=True)
                keep(base, Path(asked.failures) / str(number), asked.seed, number, result)
            # not yet its own: threads of libraries may still look at it, and would complain in the next one
            shutil.rmtree(Path(folder) / str(number - KEPT), ignore_errors=True)
        worker.close()
    failed = sum(count for (*_, how), count in ended.items() if how == "failed")
    print(f"\n{table(ended)}\nslowest: {slowest[0]:.0f} s, {slowest[1]}")
    print(f"{ended.total()} inputs in {time.monotonic() - began:.0f} s, {failed} failed", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
