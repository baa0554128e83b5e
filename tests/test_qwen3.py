"""A small random Qwen3, with Qwen3's chat template and tags, through every command under `--format auto`."""

from __future__ import annotations

import json

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

import s1_jax
from s1_jax import convert, evaluate, generate, grade, train
from s1_jax.checkpoints import hf
from s1_jax.records.lines import read_records
from tests.records.json_schema import assert_records
from tests.templates import family_tokenizer

FOUND = "format: <think> ... </think>, because the chat template has enable_thinking"
PROMPT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
SIZES = ["--max-model-len", "160", "--max-answer-tokens", "8"]
AUTO = ["--format", "auto"]


@pytest.fixture(scope="module")
def folder(tiny_model, shared_data, tmp_path_factory):
    """A folder with the model and three problems, whose rows serve as examples too."""
    folder = tmp_path_factory.mktemp("qwen3")
    made = tiny_model(1, model_type="qwen3", head_dim=24, vocab_size=264, tie_word_embeddings=True)
    made.torch_model.save_pretrained(folder / "model")
    family_tokenizer(shared_data, "qwen3").save_pretrained(folder / "model")
    rows = [
        {"id": i, "problem": f"{i}+1?", "question": f"{i}+1?", "thinking": "Count on.", "answer": f"{i + 1}"}
        for i in range(4)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    """The folder of a fine-tuned model."""
    run = folder / "sft"
    options = ["--model.path", str(folder / "model"), "--run-dir", str(run), "--data.path", str(folder / "rows.jsonl")]
    options += ["--data.max-length", "128", "--data.batch-examples", "2", "--data.micro-batch-rows", "2"]
    options += ["--train.epochs", "1", "--mesh.fsdp", "2", "--mesh.tensor", "2", "--mesh.context", "2", *AUTO]
    train.main(options)
    train.main(options)  # finished: the same command says so
    return run


def test_fine_tuning(folder, trained, capsys):
    saved = json.loads((trained / "config.json").read_text())
    assert (saved["format"]["think_start"], saved["format"]["answer_start"]) == ("<think>", "</think>")
    config, params = hf.load_params(trained / "hf")
    assert config == hf.load_config(folder / "model") and config.model_type == "qwen3"
    before = hf.load_params(folder / "model")[1]["layers"]["self_attn"]["q_norm"]["weight"]
    assert not np.array_equal(before, params["layers"]["self_attn"]["q_norm"]["weight"])
    assert type(AutoModelForCausalLM.from_pretrained(trained / "hf")).__name__ == "Qwen3ForCausalLM"


def test_generating(trained, tmp_path, capsys):
    command = ["--model.path", str(trained / "hf"), *SIZES, *AUTO]
    (tmp_path / "in.jsonl").write_text(json.dumps({"prompt": "1+1?", "budget": {"num_ignore": 1}}) + "\n")
    files = ["--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    generate.main([*command, *files, "--budget.max-thinking-tokens", "20"])
    assert FOUND in capsys.readouterr().err
    (record,) = read_records(tmp_path / "out.jsonl")
    assert_records([record])
    tokenizer = hf.load_tokenizer(trained / "hf")
    assert tokenizer.decode(record["prompt_token_ids"]) == PROMPT.format("1+1?")
    assert record["text"].startswith("<think>") and "</think>" in record["text"]
    generate.main([*command, "--prompt", "1+1?", "--no-thinking"])
    assert capsys.readouterr().err.count("thinking tokens") == 0
    loaded = s1_jax.load_model(trained / "hf", format="auto")
    plain = loaded.prompt_token_ids("1+1?", thinking=False)
    assert tokenizer.decode(plain) == PROMPT.format("1+1?") + "<think>\n\n</think>\n\n"


def test_a_sweep_its_report_and_its_grades(folder, trained, capsys):
    run = folder / "run"
    command = ["--model.path", str(trained / "hf"), "--run-dir", str(run), *SIZES, *AUTO, "--batch-size", "8"]
    command += ["--task.name", "jsonl", "--task.path", str(folder / "rows.jsonl"), "--mesh.tensor", "2"]
    command += ["--sweep.max-thinking-tokens", "4", "20", "--sweep.num-ignore", "0", "1"]
    evaluate.main(command)
    assert FOUND in capsys.readouterr().out
    records = read_records(run / "records.jsonl")
    assert len(records) == 16 and (run / "report.html").exists()
    assert_records(records)
    assert all(record["format"]["answer_start"] == "</think>" for record in records)
    evaluate.main([*command, "--sweep.max-thinking-tokens", "4", "20", "40"])  # more settings, in the same folder
    more = read_records(run / "records.jsonl")
    assert len(more) == 24 and more[: len(records)] == records
    grade.main([str(run)])
    evaluate.main([str(run)])
    assert read_records(run / "records.jsonl") == more


def test_converting_there_and_back(folder, trained):
    convert.main(["--source", str(trained / "hf"), "--target", str(folder / "orbax")])
    convert.main(["--source", str(folder / "orbax"), "--target", str(folder / "back")])
    for name in ("model.safetensors", "config.json"):
        assert (folder / "back" / name).read_bytes() == (trained / "hf" / name).read_bytes()


def test_lm_evaluation_harness(trained):
    pytest.importorskip("lm_eval", reason="needs lm_eval: pip install 's1_jax[lm-eval]'")
    from s1_jax.harness import model as harness
    from tests.harness.asking import requests

    lm = harness.S1JaxLM.create_from_arg_string(f"pretrained={trained / 'hf'},max_length=128,batch_size=4")
    prompt = lm.apply_chat_template([{"role": "user", "content": "1+1?"}])
    assert prompt == PROMPT.format("1+1?")
    asked = {"until": [], "max_gen_toks": 40, "max_tokens_thinking": 8, "thinking_start": "auto"}
    (text,) = lm.generate_until(requests("generate_until", (prompt, asked)))
    assert text.startswith("<think>") and "</think>\n\nFinal Answer:" in text
    rules = {"notices": ["(half)"], "notice_fractions": [0.5], "banned_words": ["a"], "max_repetitions": 9}
    asked |= rules | {"early_stopping_text": " Stop.", "max_tokens_thinking": 40, "min_tokens_thinking": 40}
    (text,) = lm.generate_until(requests("generate_until", (prompt, asked)))
    thinking = text.partition("</think>")[0]
    assert "(half)" in thinking and thinking.endswith(" Stop.")
    assert "a" not in thinking.replace("(half)", "").lower()
