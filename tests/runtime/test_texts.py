"""Text that no file and no tokenizer takes is refused at the door, before anything is read or decoded."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from s1_jax import convert, curate, evaluate, generate, train
from s1_jax.data.prompts import read_prompts
from s1_jax.errors import UserError
from s1_jax.records.lines import read_records, record_line
from s1_jax.runtime.texts import check_texts, is_unicode

HALF = "\ud800"
SAID = "is not valid UTF-8, or contains half of a surrogate pair"
OPTIONS = [
    (evaluate, ["--sweep.ignore-strings", "Wait", f"H{HALF}m"], "--sweep.ignore-strings 'H\\ud800m'"),
    (evaluate, ["--format.think-start", HALF], "--format.think-start '\\ud800'"),
    (evaluate, ["--steps.separator", HALF], "--steps.separator"),
    (evaluate, ["--sweep.instructions", HALF], "--sweep.instructions"),
    (evaluate, ["--task.path", f"a{HALF}.jsonl"], "--task.path 'a\\ud800.jsonl'"),
    (evaluate, ["--run-dir", HALF], "--run-dir"),
    (evaluate, ["--rewards.process", HALF], "--rewards.process"),
    (train, ["--model.path", "\udcff"], "--model.path '\\udcff'"),
    (train, ["--format.end-markers", "a", HALF], "--format.end-markers"),
    (train, ["--log.wandb-project", HALF], "--log.wandb-project"),
    (curate, ["--collect.paths", HALF], "--collect.paths"),
    (curate, ["--generate.teacher.model", HALF], "--generate.teacher.model"),
    (convert, ["--source", "a", "--target", HALF], "--target"),
    (generate, ["--model.path", "m", "--prompt", HALF], "--prompt"),
    (
        generate,
        ["--model.path", "m", "--input", "i", "--output", "o", "--budget.ignore-string", HALF],
        "--budget.ignore-string",
    ),
]


def test_every_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for module, argv, said in OPTIONS:
        with pytest.raises(UserError) as error:
            module.main(argv)
        assert str(error.value).startswith(said) and str(error.value).endswith(SAID), argv
    assert not list(tmp_path.iterdir())


def test_a_config_file(tmp_path):
    path = tmp_path / "config.py"
    for fields, option in [
        (
            "sweep=SweepConfig(extra=(SettingConfig(BudgetConfig(ignore_string=('a', '\\ud800'))),))",
            "--sweep.extra.budget.ignore-string",
        ),
        ("task=TaskConfig(path='\\udc00')", "--task.path"),
    ]:
        path.write_text(f"from s1_jax.config import *\ndef get_config(): return EvaluateConfig({fields})\n")
        with pytest.raises(UserError, match=f"^{option} .* {SAID}$"):
            evaluate.main([str(path)])


def test_a_mapping_and_what_is_no_text():
    check_texts({"a": [1, None, "é", {"b": ("\U0001f600",)}]}, "x")
    for value in ({HALF: 1}, {"a": {"b": [HALF]}}):
        with pytest.raises(UserError, match="^--data.columns "):
            check_texts(value, "data.columns")


@pytest.mark.parametrize("row", [{"prompt": HALF}, {"prompt": "x", "id": HALF}])
def test_a_row_of_prompts(tmp_path, row):
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({"prompt": "x"}) + "\n" + json.dumps(row) + "\n")
    field = list(row)[-1]
    with pytest.raises(UserError, match=f"^{path}, line 2: field '{field}' must be a string of valid Unicode"):
        list(read_prompts(path))


def test_bytes_of_a_command_line_that_are_no_utf_8():
    command = [sys.executable, "-m", "s1_jax.evaluate", "--sweep.ignore-strings", b"\xff"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2 and ended.stderr == f"error: --sweep.ignore-strings '\\udcff' {SAID}\n"


def test_a_record_can_always_be_written(tmp_path):
    """What a judge or an older version brought: no hour of decoding ends at a character."""
    records = [{"text": text} for text in ("é \u2028", HALF, f"\\{HALF}\\n", "a\udcffb", "\\ud800", "\x00")]
    path = tmp_path / "records.jsonl"
    path.write_text("".join(map(record_line, records)), encoding="utf-8")
    assert read_records(path) == records and not is_unicode(records[1]["text"])
