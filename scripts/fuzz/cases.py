"""Makers of inputs: each is a valid one with a change that depends only on the seed and the input's number."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
import random
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fuzz.values import CODE, LINES, NUMBERS, TEMPLATES, VALUES, WORDS

PROJECT = Path(__file__).resolve().parents[2]
OF_ITS_OWN = 0.02  # fraction of inputs that run in their own process
SWEEP = ["--sweep.max-thinking-tokens", "4", "8", "--max-answer-tokens", "4", "--max-model-len", "128"]
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
GENERATE = ["--model.path", "model", "--input", "prompts.jsonl", "--output", "out.jsonl", "--max-answer-tokens", "2"]
REPLY = {
    "choices": [{"message": {"content": "yes", "reasoning_content": "hm"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4},
}


@dataclasses.dataclass
class Case:
    """One input: files in a folder, and the command that is run there."""

    kind: str
    command: str  # module of s1_jax
    argv: list[str]  # {port} is replaced by that of an endpoint that replies with `reply.bin`
    own: bool = False  # whether it runs in its own process


class Maker:
    """Maker of input number `number` of a seed, in `folder`, from the valid files in `base`."""

    def __init__(self, base: Path, folder: Path, seed: int, number: int) -> None:
        self.base, self.folder, self.draws = base, folder, random.Random(f"{seed}:{number}")

    def make(self) -> Case:
        """Write the files of the input and return it."""
        self.folder.mkdir(parents=True)
        for path in self.base.iterdir():
            (self.folder / path.name).symlink_to(path)
        makers, weights = zip(*KINDS, strict=True)
        (maker,) = self.draws.choices(makers, weights)
        case = maker(self)
        case.own = self.draws.random() < OF_ITS_OWN
        return case

    def own(self, name: str) -> Path:
        """Replace a link to a base file (or a file in a folder) by a copy that may be changed, and return its path."""
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
        """Give options invalid values, unknown options, and too many or too few arguments."""
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
        """Change lines of a config file, or replace them by code that does not return a config."""
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
        """Change a file of examples, prompts, problems or questions."""
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
        """Change files of an earlier start: records of prompts, tables of curation, saved answers."""
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
        """Change records of a run, its config.json, or saved replies of a judge."""
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
        """Change the folder of a training run that is resumed, or whose checkpoint is exported."""
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
        """Change a model's config.json or its other settings."""
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
        """Change the header, the offsets or the length of the safetensors file."""
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
        """Change files of the tokenizer, including its chat template."""
        name = self.draws.choice(["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
        if name == "chat_template.jinja":
            folder = self.own("headless/config.json").parent
            (folder / name).write_text(self.draws.choice(TEMPLATES))
        else:
            self.bend_json(self.own(f"headless/{name}"))
        case = self.draws.choice([self.train, self.evaluate])()
        return dataclasses.replace(case, kind="tokenizer")

    def replies(self) -> Case:
        """Change the HTTP or the JSON of an endpoint's reply."""
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
        """Make a command that decodes, with options that may be valid."""
        argv = ["--model.path", "model", "--prompt", "1 + 1 =", "--max-answer-tokens", "2", "--max-model-len", "128"]
        names = self.names_of("generate", [])
        return Case(
            "whole", "generate", [*argv, self.draws.choice(names), self.draws.choice(["0", "1", "2", "0.5", "4"])]
        )

    # Commands that end after reading their options and data, because there are no weights

    def train(self) -> Case:
        """Make a command that trains a model."""
        return Case("options", "train", [*TRAINED, "--run-dir", "out", "--model.path", "headless"])

    def evaluate(self, run_dir: str = "out") -> Case:
        """Make a command that evaluates a sweep."""
        return Case("options", "evaluate", [*self.decode("headless"), "--run-dir", run_dir])

    def generate(self) -> Case:
        """Make a command that generates from many prompts."""
        argv = ["--model.path", "headless", "--input", "prompts.jsonl", "--output", "out.jsonl"]
        return Case("options", "generate", argv)

    def curate(self) -> Case:
        """Make a command that runs the first stage of curation."""
        return Case("options", "curate", [*CURATE, "--until", "collect"])

    def convert(self) -> Case:
        """Make a command that exports a checkpoint."""
        return Case("options", "convert", ["--source", "headless", "--target", "out"])

    def grade(self) -> Case:
        """Make a command that grades records, which needs no weights."""
        self.own("run/records.jsonl")
        return Case("options", "grade", ["run"])

    def plan(self) -> Case:
        """Make a command that plans, which ends because no topology is given."""
        return Case("options", "plan", [*TRAINED, "--model.path", "headless"])

    def decode(self, model: str = "model") -> list[str]:
        """Return the arguments of a sweep with this model."""
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

    # Changes of files

    def word(self) -> str:
        """Choose a replacement for an option's value."""
        return self.draws.choice(NUMBERS if self.draws.random() < 0.5 else WORDS)

    def names_of(self, command: str, argv: Sequence[str]) -> list[str]:
        """List the options of a command that change nothing outside the folder and do not wait for anything."""
        from s1_jax.runtime.cli import option_names

        module = importlib.import_module(f"s1_jax.{command}")
        names = option_names(getattr(module, CONFIGS[command]))
        return [name for name in names if not name.startswith(("--hosts.", "--write.push", "--log.wandb"))]

    def bend(self, value: Any) -> None:
        """Change one element of a JSON value, which is a list or an object, in place."""
        elements = list(_elements(value))
        if not elements:
            return
        for _ in range(self.draws.choice([1, 1, 1, 2, 3])):
            holder, key = self.draws.choice(elements)
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
            except (LookupError, TypeError):  # an earlier change replaced it
                pass

    def bend_json(self, path: Path) -> None:
        """Change the value or the bytes of a JSON file."""
        contents = path.read_bytes()
        if self.draws.random() < 0.75:
            value = json.loads(contents)
            self.bend(value)
            path.write_bytes(dumped(value))
        else:
            path.write_bytes(self.draws.choice([self.bent(contents), self.draws.choice(LINES)]))

    def bend_lines(self, name: str) -> None:
        """Change a value, a line or the bytes of a JSONL file."""
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
        """Return the bytes with one random change."""
        changed, index = bytearray(contents), self.draws.randrange(len(contents) + 1)
        other = self.draws.randrange(len(contents) + 1)
        match self.draws.randrange(7):
            case 0 if contents:
                changed[index - 1] ^= 1 << self.draws.randrange(8)
            case 1:
                del changed[index:]
            case 2:
                del changed[min(index, other) : max(index, other)]
            case 3:
                changed[index:index] = self.draws.randbytes(self.draws.choice([1, 4, 100]))
            case 4:
                changed[index:index] = contents[min(index, other) : max(index, other)][:1000]
            case 5:
                changed[index:index] = self.draws.choice(LINES)[:5000]
            case _:
                changed[:0] = self.draws.choice([b"\xff\xfe", b"\xef\xbb\xbf", b"\x00", b"\n"])
        return bytes(changed)


GATED: tuple[Callable[[Maker], Case], ...] = (
    *(Maker.train, Maker.evaluate, Maker.generate, Maker.curate, Maker.convert, Maker.grade, Maker.plan),
)
KINDS: tuple[tuple[Callable[[Maker], Case], float], ...] = (
    *((Maker.options, 26), (Maker.config_file, 8), (Maker.data, 16), (Maker.records, 14), (Maker.training_run, 5)),
    (Maker.kept, 6),
    *((Maker.model_config, 8), (Maker.tensors, 7), (Maker.tokenizer, 6), (Maker.replies, 9), (Maker.whole, 1)),
)


def asking(who: str) -> list[str]:
    """Return the options of a model behind the endpoint of an input."""
    options = {"base-url": "http://127.0.0.1:{port}/v1", "model": "m", "attempts": "1", "timeout-seconds": "5"}
    options |= {"requests-per-minute": "1000000", "key-variable": "S1_JAX_FUZZ_KEY"}
    return [word for name, value in options.items() for word in (f"--{who}.{name}", value)]


def _elements(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from _elements(inner)


def dumped(value: Any) -> bytes:
    """Encode a value as JSON, with NaN and half surrogate pairs as they are."""
    return json.dumps(value).encode()
