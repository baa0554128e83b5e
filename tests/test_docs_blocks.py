"""Every shell and Python block of README and docs/ is checked, in one of two ways.

A block without a mark is run: offline, in a folder with the project's configs and the tiny models, a page's blocks in
their order. A block under a comment is not run: `<!-- needs: tpu -->` (or gpu, account, network), or
`<!-- not run: why -->`. Every command of this project in them is still parsed by its own parser, config file included,
and every script and its options are looked up.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from s1_jax.config.lm_eval import HarnessConfig, KeywordConfig
from s1_jax.tasks import registry
from tests.pages import NEEDS, PAGES, PROJECT, Block, blocks_of, commands_of, own_command
from tests.runs import PATIENCE

BLOCKS = [block for page in PAGES if page.name != "CHANGELOG.md" for block in blocks_of(page)]
SHELL, PYTHON = "bash", "python"
OTHERS = ("text", "json", "jsonl", "diff", "toml", "html", "bibtex")  # shown, not run: outputs and files
FROM_RECORDS = ("--compare", "--parity")  # of s1_jax.evaluate: what follows are folders
SMALLER = {  # of the configs in the folder that blocks are run in
    "quickstart_sft.py": {"epochs=3": "epochs=1"},
    "quickstart_sweep.py": {"limit=500": "limit=6", "batch_size=256": "batch_size=8"},
    "quickstart_methods.py": {
        "limit=100": "limit=2",
        "WIDTHS = (4, 16)": "WIDTHS = (2,)",
        "batch_size=64": "batch_size=8",
    },
}
QUOTED = re.compile(r"\$?'[^']*'|\"[^\"]*\"")
SPECIAL = re.compile(r"[|;&<>$]")  # what only a shell does
LONG = {  # pages whose blocks take longest: CI runs them in turn
    f"docs/{name}.md"
    for name in ("cookbook", "concepts/metrics", "concepts/shared_trace", "guides/generate", "guides/train")
}
CONTEXT = 256  # tokens that the model takes: what does not end by itself ends here
EXAMPLES = 48  # of the quickstart's fine-tuning


class Parsed(Exception):
    """The command line is understood; nothing more is wanted of the command."""


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)
def test_a_block_names_its_language_and_what_it_needs(block):
    is_directive = block.language.startswith("{")
    assert is_directive or block.language in (SHELL, PYTHON, *OTHERS), f"{block.where}: {block.language!r}"
    assert block.needs is None or block.needs in NEEDS, f"{block.where}: needs {block.needs!r}; known are {NEEDS}"


@pytest.mark.parametrize(
    "block",
    [block for block in BLOCKS if block.language == SHELL and not block.is_run],
    ids=lambda block: block.where,
)
def test_commands_are_ones_that_their_programs_take(block, monkeypatch):
    monkeypatch.chdir(PROJECT)
    for words in commands_of(block.text):
        check_command(words, block, monkeypatch)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == PYTHON], ids=lambda block: block.where)
def test_python_is_valid(block):
    compile(block.text, block.where, "exec")


RUN = {page: [b for b in BLOCKS if b.page == page and b.is_run and b.language in (SHELL, PYTHON)] for page in PAGES}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=name, marks=[pytest.mark.slow] * (name in LONG))
        for page, blocks in RUN.items()
        if blocks and (name := str(page.relative_to(PROJECT)))
    ],
)
def test_blocks_of_a_page_run(page, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(registry, "TASKS", dict(registry.TASKS))  # a page adds one
    namespace: dict = {"__name__": "block"}
    for block in RUN[page]:
        if block.language == PYTHON:
            exec(compile(block.text, block.where, "exec"), namespace)
        else:
            run_shell(block, workplace)


def check_command(words: list[str], block: Block, monkeypatch) -> None:
    """Fails where a command of this project would be refused, or a script or its option is not there."""
    where = f"{block.where}: {' '.join(words)[:200]}"
    if own := own_command(words):
        module, argv = own
        if module == "s1_jax.lm_eval":
            check_harness(argv)
        elif not (module == "s1_jax.evaluate" and (argv[0] in FROM_RECORDS or is_folder(argv))):
            try:
                parse(module, argv, monkeypatch)
            except SystemExit as stop:  # --help
                assert not stop.code, where
            except Exception as error:
                pytest.fail(f"{where}\n{type(error).__name__}: {error}")
        return
    for program in words[:2]:
        if re.fullmatch(r"(\./)?(scripts|benchmarks|docs)/\S+\.(py|sh)", program):
            assert (PROJECT / program).is_file(), f"{where}: there is no {program}"
            for option in options_of(program, words):
                assert option in source_of(program), f"{where}: {program} has no {option}"


def options_of(program: str, words: list[str]) -> list[str]:
    """The options that are a script's own: not those of pytest, nor of the run that scripts/tpu.sh starts."""
    if program.endswith("/test.sh"):
        return []
    last = next((i for i, word in enumerate(words) if word in ("train", "evaluate", "--model.path")), len(words))
    return [word.split("=")[0] for word in words[:last] if word.startswith("--")]


def source_of(program: str) -> str:
    """A script with the parts it sources."""
    parts = (PROJECT / "scripts").glob("_*.sh") if program.endswith(".sh") else ()
    return "".join(part.read_text() for part in (PROJECT / program, *parts))


def is_folder(argv: list[str]) -> bool:
    return len(argv) == 1 and not argv[0].startswith("-") and not argv[0].endswith(".py")


def parse(module: str, argv: list[str], monkeypatch) -> None:
    """Lets a command read its options and do no more. Raises whatever it raises on them."""
    command = importlib.import_module(module)

    def then_stop(real):
        def parsed(*args, **kwargs):
            real(*args, **kwargs)
            raise Parsed

        return parsed

    with monkeypatch.context() as patched:
        for name in ("parse", "parse_with_file"):
            if hasattr(command, name):
                patched.setattr(command, name, then_stop(getattr(command, name)))
        with pytest.raises(Parsed):
            command.main(argv)


def check_harness(argv: list[str]) -> None:
    """Names of arguments and keywords; the options besides are the harness's own."""
    known = {"--model_args": HarnessConfig, "--gen_kwargs": KeywordConfig}
    for option, value in itertools.pairwise(argv):
        if option in known:
            names = {pair.partition("=")[0] for pair in re.split(r",(?=\w+=)", value)}
            unknown = names - set(known[option].__dataclass_fields__)
            assert not unknown, f"{option}: {unknown}"


def run_shell(block: Block, folder: Path) -> None:
    """Commands of this project in this process, which has compiled before; all else by bash."""
    for piece in pieces_of(block.text):
        words = [own_command(command) for command in commands_of(piece)] if "\n" not in piece else []
        own = words[0] if len(words) == 1 and not SPECIAL.search(QUOTED.sub("", piece)) else None
        if own is None:
            run_bash(piece, block, folder)
            continue
        try:
            assert not importlib.import_module(own[0]).main([unescaped(word) for word in own[1]])
        except SystemExit as stop:  # --help
            assert not stop.code, block.where


def pieces_of(text: str) -> list[str]:
    """Lines of shell, continued ones joined, and here-documents whole; one piece where variables are set."""
    if "export " in text:
        return [text]
    pieces = re.split(r"(^cat .*<<'END'\n(?:.*\n)*?END\n)", text, flags=re.MULTILINE)
    return [line for i, piece in enumerate(pieces) for line in ([piece] if i % 2 else lines_of(piece))]


def lines_of(text: str) -> list[str]:
    return [line for line in text.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]


def run_bash(text: str, block: Block, folder: Path) -> None:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env=os.environ | {"PATH": f"{folder / '.venv' / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, f"{block.where}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def unescaped(word: str) -> str:
    """$'...' as bash reads it; shlex leaves the dollar and the escapes."""
    return word[1:].encode().decode("unicode_escape") if word.startswith("$") and "\\" in word else word


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    """A folder as after the quickstart, with small configs: a model, examples, and a sweep of 6 problems."""
    folder = tmp_path_factory.mktemp("pages")
    for name in ("scripts", "benchmarks", "s1_jax", "docs", "tests"):
        (folder / name).symlink_to(PROJECT / name)
    shutil.copytree(PROJECT / "configs", folder / "configs")
    for name, smaller in SMALLER.items():
        path = folder / "configs" / name
        text = path.read_text()
        for old, new in smaller.items():
            assert old in text, f"configs/{name} has no {old}"
            text = text.replace(old, new)
        path.write_text(text)
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("python", "python3"):
        (folder / ".venv" / "bin" / name).write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (folder / ".venv" / "bin" / name).chmod(0o755)
    model = folder / "runs" / "quickstart" / "sft" / "hf"
    shutil.copytree(str(files("s1_jax") / "assets" / "tiny_base"), model)
    config = json.loads((model / "config.json").read_text()) | {"max_position_embeddings": CONTEXT}
    (model / "config.json").write_text(json.dumps(config))
    made = folder / "runs" / "quickstart" / "examples.jsonl"
    importlib.import_module("s1_jax.quickstart").main(["--run-dir", str(made.parent), "--until", "examples"])
    made.write_text("".join(made.read_text().splitlines(keepends=True)[:EXAMPLES]))
    before = Path.cwd()
    try:
        os.chdir(folder)
        importlib.import_module("s1_jax.evaluate").main(["configs/quickstart_sweep.py"])
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def workplace(prepared, tmp_path) -> Path:
    """A copy of that folder for one page."""
    folder = tmp_path / "s1_jax"
    shutil.copytree(prepared, folder, symlinks=True)
    return folder


def test_marks_languages_and_commands_are_read(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- needs: tpu -->\n```bash\nA=1 python -m s1_jax.train c.py \\\n    --x 1 && ls # no\n```\n\n"
        "<!-- not run: slow -->\n\ntext\n\n```python\nx = 1\n```\n\n    indented\n"
    )
    first, second, third = blocks_of(page)
    assert (first.language, first.needs, first.is_run) == ("bash", "tpu", False)
    assert (second.language, second.not_run, second.is_run) == ("python", None, True)  # not right before it
    assert third.language == "indented"  # which no page may have
    commands = commands_of(first.text)
    assert commands == [["python", "-m", "s1_jax.train", "c.py", "--x", "1"], ["ls"]]
    assert own_command(commands[0]) == ("s1_jax.train", ["c.py", "--x", "1"])
    assert own_command(["s1-jax", "lm-eval", "--y"]) == ("s1_jax.lm_eval", ["--y"])
    assert own_command(commands[1]) is None
    shell = "cat > a <<'END'\n{}\nEND\npython -m s1_jax.train \\\n  --x 1\n# no\nls > b\n"
    assert pieces_of(shell) == ["cat > a <<'END'\n{}\nEND\n", "python -m s1_jax.train    --x 1", "ls > b"]
    with pytest.raises(pytest.fail.Exception, match="did you mean --sweep"):
        check_command(
            "python -m s1_jax.evaluate configs/quickstart_sweep.py --sweep.num-ignores 1".split(), first, monkeypatch
        )
    with pytest.raises(AssertionError, match="there is no scripts/gone.sh"):
        check_command(["bash", "scripts/gone.sh"], first, monkeypatch)
