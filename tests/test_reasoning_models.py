"""The commands on a reasoning model of another family.

Its tokenizer has R1's control tokens, its template opens the thinking, and it declares an end of its own.
"""

from __future__ import annotations

import copy
import json

import pytest
import torch

import s1_jax
from s1_jax import evaluate, generate, grade
from s1_jax.errors import UserError
from s1_jax.records.lines import read_records
from s1_jax.runtime.terminal import shown
from tests.records.json_schema import assert_records
from tests.templates import THINK, family_tokenizer

FORMAT = [
    *("--format.think-start", "<think>", "--format.answer-start", "</think>"),
    *("--format.final-answer", "\n\nFinal Answer:"),
]
README = [*FORMAT, "--format.end-markers", "</think>", "<|im_end|>", "<|endoftext|>"]
SIZES = ["--max-model-len", "160", "--max-answer-tokens", "8"]
QUESTION = "1+1?"
PROMPT = "<｜begin▁of▁sentence｜><｜User｜>1+1?<｜Assistant｜><think>\n"
DECLARED = 65  # "b", to the byte tokenizer
EOS = "<｜end▁of▁sentence｜>"


@pytest.fixture(scope="module")
def model(tiny_model, shared_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("r1") / "model"
    tokenizer = family_tokenizer(shared_data, "deepseek_r1_distill")
    reference = copy.deepcopy(tiny_model(1, vocab_size=264, max_position_embeddings=256).torch_model)
    ends = [*tokenizer.convert_tokens_to_ids([EOS, "</think>"]), DECLARED]
    with torch.no_grad():
        reference.lm_head.weight[ends] *= 1.7
    reference.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    declare(folder, [ends[0], DECLARED])
    return folder


def declare(folder, ids):
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))


def test_generate_from_file_to_file_and_again(model, tmp_path, capsys):
    rows = [{"prompt": QUESTION, "id": 1}, {"prompt": QUESTION, "id": 2, "budget": {"num_ignore": 2}}]
    loaded = s1_jax.load_model(model)
    rendered = loaded.tokenizer.encode(PROMPT, add_special_tokens=False)
    rows.append({"prompt_token_ids": rendered, "id": 3})
    rows.append({"prompt_token_ids": rendered[:-2], "id": 4})  # without the marker and its newline
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [
        *("--model.path", str(model), "--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl"))
    ]
    command += [*SIZES, "--budget.max-thinking-tokens", "20"]
    with pytest.raises(UserError, match=r"is not one token.*--format\.think-start"):
        generate.main(command)
    generate.main([*command, *FORMAT])
    records = read_records(tmp_path / "out.jsonl")
    assert_records(records)
    assert all(record["format"]["think_start"] == "<think>" for record in records)
    decode = loaded.tokenizer.decode
    for record in records[:3]:
        assert decode(record["prompt_token_ids"]) == PROMPT and record["text"].startswith("<think>\n")
        assert record["text"].count("<think>") == 1 and "</think>" in record["text"]
        assert not {DECLARED, 257} & {*record["thinking_token_ids"], *record["answer_token_ids"]}
        assert {"b", EOS} <= set(record["stop_tokens"])
    assert records[0]["thinking_token_ids"] == records[2]["thinking_token_ids"]
    assert records[1]["text"].startswith("<think>\n") and records[1]["ignores_used"] == 2
    assert records[3]["text"].startswith("<think>") and not records[3]["text"].startswith("<think>\n<think>")
    # the README's whole command names tokens that this tokenizer lacks; the first record is made again as it was
    generate.main([*command[:-6], *README, *command[-6:], "--output", str(tmp_path / "readme.jsonl")])
    again = read_records(tmp_path / "readme.jsonl")
    assert [record["text"] for record in again] == [record["text"] for record in records]
    # and with the markers that the tokenizer says
    generate.main([*command, "--format", "auto", "--output", str(tmp_path / "auto.jsonl")])
    assert "format: <think> ... </think>, because the chat template opens" in capsys.readouterr().err
    assert read_records(tmp_path / "auto.jsonl") == records
    # the same output under other ends is not gone on with
    declare(model, [257])
    try:
        with pytest.raises(UserError, match="its stop_tokens differs"):
            generate.main([*command, *FORMAT])
    finally:
        declare(model, [257, DECLARED])
    generate.main(
        ["--model.path", str(model), "--prompt", QUESTION, *SIZES, *FORMAT, "--budget.max-thinking-tokens", "20"]
    )
    assert capsys.readouterr().out.rstrip("\n") == shown(records[0]["text"]).rstrip("\n")


def test_without_thinking_no_format_is_needed(model):
    loaded = s1_jax.load_model(model)
    engine = loaded.engine(160, 1)
    from s1_jax.decoding.core.requests import Request

    (record,) = engine.run([Request(tuple(loaded.tokenizer.encode(PROMPT)), max_answer_tokens=20, thinking=False)])
    assert record["num_answer_tokens"] > 0 and record["num_thinking_tokens"] == 0


@pytest.mark.slow
def test_the_python_interface_takes_a_format(model):
    options = {"max_model_len": 160, "max_answer_tokens": 8}
    (record,) = s1_jax.load_model(model).generate([QUESTION], {"max_thinking_tokens": 20}, **options, format=THINK)
    assert record["text"].startswith("<think>\n")
    loaded = s1_jax.load_model(model, format="auto")
    assert loaded.format == THINK and loaded.generate([QUESTION], {"max_thinking_tokens": 20}, **options) == [record]
    with pytest.raises(UserError, match="format 'think' is neither 'auto' nor a FormatConfig"):
        s1_jax.load_model(model, format="think")


@pytest.mark.slow
def test_a_sweep_is_graded_without_its_stop_tokens_and_not_mixed_with_one_under_others(model, tmp_path):
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps({"id": i, "problem": f"{i}+1?", "answer": "2"}) + "\n" for i in range(3)))
    config = tmp_path / "config.py"
    config.write_text("from s1_jax.config import *\n\ndef get_config():\n    return EvaluateConfig(batch_size=8)\n")
    command = [
        *(str(config), "--model.path", str(model), "--run-dir", str(tmp_path / "run"), *SIZES, *FORMAT),
        *("--task.name", "jsonl", "--task.path", str(problems)),
        *("--sweep.max-thinking-tokens", "4", "20", "--sweep.num-ignore", "0", "1"),
    ]
    evaluate.main(command)
    records = read_records(tmp_path / "run" / "records.jsonl")
    assert len(records) == 12
    assert_records(records)
    ended = [record for record in records if record["answer_end"] == "stop"]
    assert ended and {record["text"][-1] for record in ended} <= {"b", EOS[-1]}
    for record in ended:
        answer = record["text"].rpartition("</think>")[2]
        stop = EOS if answer.endswith(EOS) else "b"
        assert (record["extracted_answer"] or "") in answer.removesuffix(stop)
        assert not (record["extracted_answer"] or "").endswith(EOS)
    grade.main([str(tmp_path / "run")])
    assert read_records(tmp_path / "run" / "records.jsonl") == records
    declare(model, [257])
    try:
        with pytest.raises(UserError, match=r"model\.stop_tokens was \[.*'b'.*\], is \['<"):
            evaluate.main([*command, "--sweep.max-thinking-tokens", "8"])
    finally:
        declare(model, [257, DECLARED])
    evaluate.main(command)
