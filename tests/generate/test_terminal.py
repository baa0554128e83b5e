"""`python -m s1_jax.generate` at a terminal: one prompt streamed, mistakes in one line, help."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from s1_jax import generate
from s1_jax.errors import UserError
from s1_jax.generate import main, text_pieces
from tests.generate.command import loaded
from tests.tokenizer import byte_tokenizer


def test_a_prompt_streams_to_the_terminal(folder, model, capsys, monkeypatch):
    monkeypatch.setattr(generate, "load_model", loaded)
    flags = [
        "--model.path",
        str(folder),
        "--prompt",
        "hi",
        "--budget.max-thinking-tokens",
        "2",
        "--max-answer-tokens",
        "4",
    ]
    (record,) = model.generate(["hi"], {"max_thinking_tokens": 2}, max_answer_tokens=4)
    main(flags)
    plain = capsys.readouterr()
    assert plain.out.rstrip("\n") == record["text"]
    assert "2 thinking tokens (end: forced" in plain.err
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    main(flags)
    colored = capsys.readouterr().out
    assert colored.replace(generate.FORCED_COLOR, "").replace(generate.NO_COLOR, "") == plain.out
    forced = [part.split(generate.NO_COLOR)[0] for part in colored.split(generate.FORCED_COLOR)[1:]]
    assert "".join(forced) == "<|im_start|>think\n<|im_start|>answer\nFinal Answer:"


def test_a_prompt_without_thinking_streams_alone(folder, model, capsys, monkeypatch):
    monkeypatch.setattr(generate, "load_model", loaded)
    (record,) = model.generate(["hi"], max_answer_tokens=4, thinking=False)
    main(["--model.path", str(folder), "--prompt", "hi", "--no-thinking", "--max-answer-tokens", "4"])
    said = capsys.readouterr()
    assert said.out.rstrip("\n") == record["text"]
    counted = rf"^{record['num_answer_tokens']} answer tokens \(end: {record['answer_end']}\); [0-9.,]+ tokens/s$"
    assert re.search(counted, said.err, re.MULTILINE) and "thinking" not in said.err, said.err
    with pytest.raises(UserError, match="--prompt: without thinking there is no budget; leave out max_thinking_tokens"):
        main(["--model.path", str(folder), "--prompt", "hi", "--no-thinking", "--budget.max-thinking-tokens", "4"])


def test_split_characters_come_whole():
    tokenizer = byte_tokenizer()
    ids = tokenizer.encode("aé\N{FAMILY} b\N{MATHEMATICAL BOLD SMALL X}")
    pieces = list(text_pieces(tokenizer, [(i, False) for i in ids]))
    assert "".join(text for text, _ in pieces) == "aé\N{FAMILY} b\N{MATHEMATICAL BOLD SMALL X}"
    assert max(len(text) for text, _ in pieces) == 1
    # bytes that are no character do not hold up what follows, nor does a forced token wait for them
    broken = [*ids[1:2], *tokenizer.encode("xyz")]
    pieces = list(text_pieces(tokenizer, [(i, n > 0) for n, i in enumerate(broken)]))
    assert pieces == [("\N{REPLACEMENT CHARACTER}", False), ("x", True), ("y", True), ("z", True)]


def test_a_mistake_is_one_line_and_exit_code_2(folder):
    flags = ["--model.path", str(folder), "--prompt", "hi", "--budget.max-tokens", "3"]
    command = [sys.executable, "-m", "s1_jax.generate", *flags]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "did you mean --budget.max-thinking-tokens" in done.stderr


def test_options_that_do_not_go_together(folder, tmp_path):
    for flags, message in (
        (["--model.path", str(tmp_path / "none"), "--prompt", "hi"], "no folder"),
        (["--model.path", str(folder)], "give --input and --output, or --prompt"),
        (["--model.path", str(folder), "--input", str(tmp_path)], "give --input and --output, or --prompt"),
        (["--model.path", str(folder), "--prompt", "hi", "--input", str(tmp_path)], "leave out --input"),
        (["--model.path", str(folder), "--prompt", "hi", "--max-model-len", "129"], "max_model_len 129 is not between"),
        (["--model.path", str(folder), "--prompt", "hi", "--format.answer-start", ""], "format.answer_start is empty"),
    ):
        with pytest.raises(UserError, match=message):
            main(flags)


def test_former_options_are_still_taken(folder, model, capsys, monkeypatch):
    monkeypatch.setattr(generate, "load_model", loaded)
    (record,) = model.generate(["hi"], max_answer_tokens=4, thinking=False)
    rest = ["--prompt", "hi", "--no-thinking", "--max-answer-tokens", "4"]
    for former in (["--model", str(folder), "--dtype", "float32"], [f"--model={folder}", "--dtype=auto"]):
        main([*former, *rest])
        assert capsys.readouterr().out.rstrip("\n") == record["text"]
    with pytest.raises(UserError, match="--model.dtype float16: it must be auto or float32 or bfloat16"):
        main(["--model", str(folder), "--dtype", "float16", *rest])


def test_a_prompt_with_the_text_of_a_special_token_is_told(folder, capsys, monkeypatch):
    monkeypatch.setattr(generate, "load_model", loaded)
    for prompt, told in (("hi", False), ("a<|im_end|>b", True)):
        main(["--model.path", str(folder), "--prompt", prompt, "--no-thinking", "--max-answer-tokens", "2"])
        assert ("1 prompt contains the text of a special token" in capsys.readouterr().err) == told


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "--model.remat" not in said
    for option in (
        "--model.path",
        "--mesh.tensor",
        "--stored.weights",
        "--budget.max-thinking-tokens",
        "--sampling.temperature",
        "--max-model-len",
        "--prompt",
    ):
        assert option in said
