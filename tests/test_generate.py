"""`s1_jax.load_model` and `python -m s1_jax.generate`, from files to files and to a terminal."""

from __future__ import annotations

import copy
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import cache

import numpy as np
import pytest
import torch

import s1_jax
from s1_jax import generate
from s1_jax.decoding.host.slots import rows_at_a_time
from s1_jax.errors import UserError
from s1_jax.generate import main, read_rows, text_pieces
from s1_jax.runtime.compilation import CompilationWatch
from tests.runs import PATIENCE
from tests.tokenizer import byte_tokenizer

TOLERANCE = 1e-4  # of the largest logit: float32 through every layer, sums in another order
V, IM_END = 264, 258
FIELDS = [
    *(
        "task",
        "problem_id",
        "sample",
        "seed",
        "temperature",
        "min_thinking_tokens",
        "max_thinking_tokens",
        "num_ignore",
    ),
    *("ignore_string", "prompt_token_ids", "thinking_token_ids", "answer_token_ids", "num_thinking_tokens"),
    *(
        "num_answer_tokens",
        "end",
        "answer_end",
        "ignores_used",
        "text",
        "extracted_answer",
        "gold",
        "correct",
        "forcing",
    ),
]

loaded = cache(s1_jax.load_model)  # models that stay compiled from test to test


@pytest.fixture(scope="module")
def reference(tiny_model):
    """A random transformers model whose thinking often ends by itself."""
    model = copy.deepcopy(tiny_model(1, vocab_size=V, max_position_embeddings=128).torch_model)
    with torch.no_grad():
        model.lm_head.weight[256:259] *= 1.7
    return model


@pytest.fixture(scope="module")
def folder(reference, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    reference.save_pretrained(path)
    byte_tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def model(folder):
    return loaded(str(folder), "float32")


@pytest.fixture
def run(folder, tmp_path, monkeypatch):
    """`run(rows, *flags)`: the command on these input rows; gives the output rows."""
    monkeypatch.setattr(generate, "load_model", loaded)

    def run(rows, *flags):
        (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        main(arguments(folder, tmp_path, *flags))
        return output(tmp_path)

    return run


def arguments(folder, tmp_path, *flags):
    paths = ("--model", str(folder), "--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl"))
    return [*paths, "--max-answer-tokens", "4", *flags]


def output(tmp_path):
    return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]


def test_logits_with_padding_on_either_side(model, reference):
    ids = np.random.default_rng(0).integers(0, 259, (3, 20))
    lengths = np.array([20, 9, 1])
    for mask in (None, np.arange(20) < lengths[:, None], np.arange(20) >= 20 - lengths[:, None]):
        real = np.ones_like(ids) if mask is None else mask.astype(np.int64)
        mine = model.logits(ids.tolist(), None if mask is None else real.tolist())
        assert mine.dtype == np.float32 and mine.shape == (3, 20, V)
        with torch.no_grad():
            theirs = reference(torch.tensor(ids), attention_mask=torch.tensor(real)).logits.numpy()
        assert np.abs(mine - theirs)[real == 1].max() <= TOLERANCE * np.abs(theirs).max()


def test_logits_of_many_sizes_are_few_programs(folder, reference):
    """Padding with rows and tokens that mean nothing changes no logit, whatever padding there is already."""
    model = s1_jax.load_model(str(folder))  # with no program yet
    rng = np.random.default_rng(1)
    shapes = [(1, 1), (1, 2), (1, 16), (1, 17), (2, 31), (3, 5), (3, 20), (4, 33), (2, 100), (1, 127), (1, 128)]
    for B, T in shapes:
        ids, lengths = rng.integers(0, 259, (B, T)), rng.integers(1, T + 1, (B, 1))
        for mask in (np.arange(T) < lengths, np.arange(T) >= T - lengths):
            mine = model.logits(ids, mask)
            alone = (
                np.asarray(model._logits(model.params, ids.astype(np.int32), mask.astype(np.int32))) if T > 99 else mine
            )
            with torch.no_grad():
                theirs = reference(torch.tensor(ids), attention_mask=torch.tensor(mask.astype(np.int64))).logits.numpy()
            assert mine.shape == (B, T, V) and mine.base is None, "or it keeps the padding's logits alive"
            assert np.abs(mine - theirs)[mask].max() <= TOLERANCE * np.abs(theirs).max()
            # the sums of attention have other blocks
            assert np.abs(mine - alone)[mask].max() <= TOLERANCE / 10 * np.abs(theirs).max()
    with CompilationWatch() as watch:
        again = s1_jax.load_model(str(folder))
        before = watch.programs
        for B, T in shapes:
            again.logits(np.zeros((B, T), int))
    # tokens of 16, 32, 64, 128; rows of 1, 2, 4
    assert again._logits._cache_size() == len(
        {(1, 16), (1, 32), (2, 32), (4, 16), (4, 32), (4, 64), (2, 128), (1, 128)}
    )
    assert watch.programs - before == again._logits._cache_size()
    assert again.logits(np.zeros((0, 3), int)).shape == (0, 3, V) and again.logits(np.zeros((2, 0), int)).size == 0


def test_logits_refuses_what_it_cannot_read(model):
    for ids, mask in (([1, 2], None), ([[0.5]], None), ([[V]], None), ([[-1]], None), ([[1, 2]], [[1]])):
        with pytest.raises(UserError, match=r"token_ids|attention_mask"):
            model.logits(ids, mask)


def test_generate_takes_texts_and_ids(model):
    text, ids = model.generate(["hi", [1, 2, 3]], budget={"max_thinking_tokens": 5}, max_answer_tokens=3)
    assert model.tokenizer.decode(text["prompt_token_ids"]) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert ids["prompt_token_ids"] == [1, 2, 3]
    assert set(FIELDS) <= set(text)
    assert model.generate([text["prompt_token_ids"]], {"max_thinking_tokens": 5}, max_answer_tokens=3) == [text]
    assert model.generate([]) == []
    assert model.config.max_position_embeddings == 128


@pytest.mark.parametrize("max_answer_tokens", [0, 1, 16, 64])
def test_without_forcing_max_answer_tokens_bounds_all(model, max_answer_tokens):
    free = {"forcing": False}
    (record,) = model.generate(["hi"], budget=free, max_answer_tokens=max_answer_tokens)
    assert record["num_thinking_tokens"] + record["num_answer_tokens"] <= max_answer_tokens
    assert record["max_new_tokens"] == max_answer_tokens
    (unlimited,) = model.generate(["hi"], budget=free)
    assert "max_new_tokens" not in unlimited and unlimited["thinking_token_ids"][:64] == (
        record["thinking_token_ids"] + unlimited["thinking_token_ids"][len(record["thinking_token_ids"]) : 64]
    )
    (each,) = model.generate(["hi"], budget=free | {"max_thinking_tokens": 2}, max_answer_tokens=max_answer_tokens)
    assert each["num_thinking_tokens"] <= 2 and each["num_answer_tokens"] <= max_answer_tokens


def test_without_thinking_there_is_an_answer_alone(model, reference):
    (record,) = model.generate(["hi"], max_answer_tokens=9, thinking=False)
    prompt = record["prompt_token_ids"]
    assert model.tokenizer.decode(prompt).endswith("<|im_start|>assistant\n")
    with torch.no_grad():
        theirs = reference.generate(
            torch.tensor([prompt]),
            max_new_tokens=9,
            do_sample=False,
            eos_token_id=[256, IM_END],
            pad_token_id=256,
            suppress_tokens=list(range(259, V)),
        )[0, len(prompt) :].tolist()
    assert record["text"] == model.tokenizer.decode(theirs) and record["thinking"] is False
    assert (record["num_thinking_tokens"], record["end"]) == (0, "none")
    assert model.generate([prompt], max_answer_tokens=9, thinking=False) == [record]
    assert model.generate(["hi"], {}, max_answer_tokens=9, thinking=False) == [record]
    for name, value in {"max_thinking_tokens": 3, "forcing": False, "num_ignore": 1, "ignore_string": ""}.items():
        with pytest.raises(UserError, match=f"prompt 0: without thinking there is no budget; leave out {name}"):
            model.generate(["hi"], {name: value}, thinking=False)


def test_few_batch_sizes_are_compiled():
    assert [rows_at_a_time(8, requests) for requests in (0, 1, 2, 3, 4, 5, 8, 9, 100)] == [1, 1, 2, 4, 4, 8, 8, 8, 8]
    assert [rows_at_a_time(6, requests) for requests in (3, 5, 6)] == [4, 6, 6] and rows_at_a_time(0, 3) == 0


def test_generate_samples_by_seed(model):
    def texts(**options):
        records = model.generate(["hi", "ho"], sampling={"temperature": 1.0}, max_answer_tokens=3, **options)
        return [record["text"] for record in records]

    assert texts() == texts() == texts(seed=0) == texts(batch_size=1)
    assert texts() != texts(seed=1)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"max_thinking_token": 3}, "budget: unknown field 'max_thinking_token'; did you mean 'max_thinking_tokens'"),
        ({"max_thinking_tokens": "3"}, "budget: max_thinking_tokens is '3'; it must be a whole number from 0"),
        ({"max_thinking_tokens": True}, "budget: max_thinking_tokens is True; it must be a whole number from 0"),
        ({"num_ignore": None}, "budget: num_ignore is None; it must be a whole number from 0"),
        ({"num_ignore": -1}, "budget: num_ignore is -1; it must be a whole number from 0"),
        (
            {"ignore_string": ["a", 1]},
            r"budget: ignore_string is \['a', 1\]; it must be a string or a tuple, each a string",
        ),
        ({"min_thinking_tokens": 5, "max_thinking_tokens": 4}, "budget: min_thinking_tokens 5 is above"),
        ({"ignore_string": "x" * 17}, "the longest allowed"),
    ],
)
def test_a_budget_that_is_wrong(model, budget, message):
    with pytest.raises(UserError, match=message):
        model.generate(["hi"], budget=budget)


def test_records_come_in_input_order(run, model, folder):
    rows = [{"prompt": "hi", "id": "a"}, {"prompt_token_ids": [5, 6], "id": 7}, {"prompt": "x" * 20}] * 3
    records = run(rows, "--budget.max-thinking-tokens", "6", "--batch-size", "2", "--seed", "3")
    assert [r["problem_id"] for r in records] == ["a", 7, None] * 3
    assert records[0]["prompt_token_ids"] == model.generate(["hi"], max_answer_tokens=4)[0]["prompt_token_ids"]
    assert all(set(FIELDS) <= set(r) and r["seed"] == 3 and r["max_thinking_tokens"] == 6 for r in records)
    assert all(r["task"] is r["gold"] is r["correct"] is r["extracted_answer"] is None for r in records)
    assert {r["model"] for r in records} == {str(folder)}
    assert records[3:6] == records[:3]


def test_a_rows_own_budget_wins(run):
    own = {"max_thinking_tokens": 2, "num_ignore": 1, "ignore_string": ["Hm", ""]}
    free = {"forcing": False, "max_thinking_tokens": None, "num_ignore": 0}
    rows = [{"prompt": "hi"}, {"prompt": "hi", "budget": own}, {"prompt": "hi", "budget": free}]
    flags = ("--budget.max-thinking-tokens", "4", "--budget.num-ignore", "2", "--budget.ignore-string", "Wait")
    shared, mine, without = run(rows, *flags)
    assert (shared["max_thinking_tokens"], shared["num_ignore"], shared["ignore_string"]) == (4, 2, "Wait")
    assert {name: mine[name] for name in own} == own
    assert mine["min_thinking_tokens"] == 1 and mine["num_thinking_tokens"] <= 2
    assert without["forcing"] is False and without["max_thinking_tokens"] is None


def test_records_can_be_input_again(run, tmp_path):
    (record,) = run([{"prompt": "hi"}], "--budget.max-thinking-tokens", "4")
    (tmp_path / "out.jsonl").unlink()
    (again,) = run([{"prompt_token_ids": record["prompt_token_ids"]}], "--budget.max-thinking-tokens", "4")
    assert again == record


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "hi"', "not JSON"),
        ("[1]", "a list where an object is needed"),
        ('{"prompt": "hi", "id": ' + "7" * 5000 + "}", "has 5,000 digits"),
        ('{"prompt": "hi", "id": ' + "[" * 100_000, "nested more than"),
        ('{"prompt": "hi", "prompt": "ho"}', "the key 'prompt' occurs twice"),
        ('{"prompt": "hi", "budget": {"end_bias": NaN}}', "NaN is no number"),
        ('{"prompt": "\\ud83d"}', "field 'prompt' must be a string of valid Unicode"),
        ('{"text": "hi"}', "needs a field 'prompt' or a field 'prompt_token_ids'"),
        ('{"prompt": "hi", "prompt_token_ids": [1]}', "and not both"),
        ('{"prompt": 3}', "field 'prompt' must be a string"),
        ('{"prompt_token_ids": [1, "2"]}', "field 'prompt_token_ids' must be a list of whole numbers"),
        ('{"prompt_token_ids": []}', "the prompt is empty"),
        ('{"prompt_token_ids": [999]}', "token id 999 lies outside"),
        ('{"prompt": "hi", "id": [1]}', "field 'id' must be"),
        ('{"prompt": "hi", "budget": 3}', "field 'budget' must be an object"),
        ('{"prompt": "hi", "budget": {"max_tokens": 3}}', "field 'budget': unknown field 'max_tokens'"),
        (
            '{"prompt": "hi", "budget": {"min_thinking_tokens": 9, "max_thinking_tokens": 2}}',
            "is above max_thinking_tokens",
        ),
        (json.dumps({"prompt": "x" * 200}), "pass max_model_len 128"),
    ],
)
def test_bad_rows_name_file_line_and_field(folder, tmp_path, line, message):
    (tmp_path / "in.jsonl").write_text('{"prompt": "fine"}\n\n' + line + "\n")
    with pytest.raises(UserError, match=r"in\.jsonl, line 3") as error:
        main(arguments(folder, tmp_path))
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out.jsonl").exists()


def test_blank_lines_and_line_separators_inside_text_are_no_rows(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({"prompt": "a\u2028b"}, ensure_ascii=False) + "\n\n", encoding="utf-8")
    assert [row for _, row in read_rows(path)] == [{"prompt": "a\u2028b"}]


ROWS = [{"prompt": f"number {i}"} for i in range(5)]


def test_a_killed_run_goes_on(run, tmp_path):
    whole = run(ROWS, "--batch-size", "2")
    lines = (tmp_path / "out.jsonl").read_bytes().splitlines(keepends=True)
    for kept, torn in ((0, 30), (2, 1), (2, 0), (3, len(lines[3]) - 1), (5, 0)):
        rest = lines[kept][:torn] if torn else b""
        (tmp_path / "out.jsonl").write_bytes(b"".join(lines[:kept]) + rest)
        assert run(ROWS, "--batch-size", "2") == whole
    assert run(ROWS, "--batch-size", "3") == whole


@pytest.mark.slow
def test_drafts_change_no_record(run, tmp_path):
    whole = run(ROWS)
    (tmp_path / "out.jsonl").unlink()
    assert run(ROWS, "--draft-tokens", "3") == whole


def test_an_output_of_another_command_is_not_touched(run, tmp_path):
    run(ROWS[:2])
    before = (tmp_path / "out.jsonl").read_bytes()
    for rows, flags, message in (
        (
            ROWS[:2],
            ("--budget.max-thinking-tokens", "3"),
            "line 1 was made by another command .its max_thinking_tokens",
        ),
        (ROWS[:2], ("--seed", "1"), "its seed differs"),
        (ROWS[:2], ("--sampling.temperature", "1"), "its temperature differs"),
        (ROWS[:2], ("--dtype", "bfloat16"), "its dtype differs"),
        (ROWS[1:3], (), "its prompt_token_ids differs"),
        (ROWS[:1], (), "holds 2 lines, more than the 1 prompts"),
    ):
        with pytest.raises(UserError, match=message):
            run(rows, *flags)
    assert (tmp_path / "out.jsonl").read_bytes() == before
    (tmp_path / "out.jsonl").write_text("my notes")
    with pytest.raises(UserError, match="not a record"):
        run(ROWS[:2])
    assert (tmp_path / "out.jsonl").read_text() == "my notes"


def test_no_thinking_from_file_to_file(run, model, tmp_path):
    records = run(ROWS[:3], "--no-thinking")
    asked = [row["prompt"] for row in ROWS[:3]]
    wanted = model.generate(asked, max_answer_tokens=4, thinking=False)
    assert [{name: record[name] for name in wanted[0]} for record in records] == wanted
    assert run(ROWS[:3], "--no-thinking") == records
    for rows, flags, message in (
        (ROWS[:3], (), "line 1 was made by another command .its thinking differs"),
        (
            ROWS[:3],
            ("--no-thinking", "--budget.max-thinking-tokens", "3"),
            "line 1: without thinking there is no budget",
        ),
        ([ROWS[0], ROWS[1] | {"budget": {"num_ignore": 1}}], ("--no-thinking",), "line 2: .*leave out num_ignore"),
    ):
        with pytest.raises(UserError, match=message):
            run(rows, *flags)
    (tmp_path / "out.jsonl").unlink()
    run(ROWS[:2])
    with pytest.raises(UserError, match="its thinking differs"):
        run(ROWS[:2], "--no-thinking")


def test_a_limit_without_forcing_is_part_of_what_made_a_file(run, tmp_path):
    free = [row | {"budget": {"forcing": False}} for row in ROWS[:2]]
    assert {record["max_new_tokens"] for record in run(free)} == {4}
    with pytest.raises(UserError, match="its max_answer_tokens differs"):
        run(free, "--max-answer-tokens", "32")  # the default of no limit
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    (tmp_path / "out.jsonl").write_text("".join(line.replace('"max_new_tokens": 4, ', "") + "\n" for line in lines))
    with pytest.raises(UserError, match="its max_new_tokens differs"):
        run(free)


def test_ctrl_c_leaves_what_is_done(folder, tmp_path):
    """The real process: SIGINT after the first records; the same command finishes the rest."""
    budget = {"min_thinking_tokens": 60, "max_thinking_tokens": 60}
    rows = [{"prompt": f"number {i}", "budget": budget} for i in range(2000)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "s1_jax.generate", *arguments(folder, tmp_path, "--batch-size", "1")]
    out = tmp_path / "out.jsonl"
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    deadline = time.monotonic() + PATIENCE
    while not (out.exists() and out.stat().st_size) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, stderr
    assert stderr.strip().splitlines()[-1].startswith("interrupted") and "Traceback" not in stderr
    done = output(tmp_path)
    assert 0 < len(done) < len(rows)
    assert [r["num_thinking_tokens"] for r in done] == [60] * len(done)


def test_a_prompt_streams_to_the_terminal(folder, model, capsys, monkeypatch):
    monkeypatch.setattr(generate, "load_model", loaded)
    flags = ["--model", str(folder), "--prompt", "hi", "--budget.max-thinking-tokens", "2", "--max-answer-tokens", "4"]
    (record,) = model.generate(["hi"], {"max_thinking_tokens": 2}, max_answer_tokens=4)
    main(flags)
    plain = capsys.readouterr()
    assert plain.out.rstrip("\n") == record["text"]
    assert "2 thinking tokens (end: forced" in plain.err
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    main(flags)
    coloured = capsys.readouterr().out
    assert coloured.replace(generate.FORCED_COLOUR, "").replace(generate.NO_COLOUR, "") == plain.out
    forced = [part.split(generate.NO_COLOUR)[0] for part in coloured.split(generate.FORCED_COLOUR)[1:]]
    assert "".join(forced) == "<|im_start|>think\n<|im_start|>answer\nFinal Answer:"


def test_a_prompt_without_thinking_streams_alone(folder, model, capsys, monkeypatch):
    monkeypatch.setattr(generate, "load_model", loaded)
    (record,) = model.generate(["hi"], max_answer_tokens=4, thinking=False)
    main(["--model", str(folder), "--prompt", "hi", "--no-thinking", "--max-answer-tokens", "4"])
    said = capsys.readouterr()
    assert said.out.rstrip("\n") == record["text"]
    counted = rf"^{record['num_answer_tokens']} answer tokens \(end: {record['answer_end']}\); [0-9.,]+ tokens/s$"
    assert re.search(counted, said.err, re.MULTILINE) and "thinking" not in said.err, said.err
    with pytest.raises(UserError, match="--prompt: without thinking there is no budget; leave out max_thinking_tokens"):
        main(["--model", str(folder), "--prompt", "hi", "--no-thinking", "--budget.max-thinking-tokens", "4"])


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
    flags = ["--model", str(folder), "--prompt", "hi", "--budget.max-tokens", "3"]
    command = [sys.executable, "-m", "s1_jax.generate", *flags]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "did you mean --budget.max-thinking-tokens" in done.stderr


def test_options_that_do_not_go_together(folder, tmp_path):
    for flags, message in (
        (["--model", str(tmp_path / "none"), "--prompt", "hi"], "no folder"),
        (["--model", str(folder)], "give --input and --output, or --prompt"),
        (["--model", str(folder), "--input", str(tmp_path)], "give --input and --output, or --prompt"),
        (["--model", str(folder), "--prompt", "hi", "--input", str(tmp_path)], "leave out --input"),
        (["--model", str(folder), "--prompt", "hi", "--max-model-len", "129"], "max_model_len 129 is not between"),
        (["--model", str(folder), "--prompt", "hi", "--format.answer-start", ""], "format.answer_start is empty"),
    ):
        with pytest.raises(UserError, match=message):
            main(flags)


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    for option in ("--budget.max-thinking-tokens", "--sampling.temperature", "--max-model-len", "--prompt"):
        assert option in said
