"""The tiny task: its split, its teacher, its corpora, and the base model that ships."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

import s1_jax
from s1_jax.data import synthetic
from s1_jax.data.chat import encode, encode_example, prompt_text, response_text

TINY_BASE = Path(s1_jax.__file__).parent / "assets" / "tiny_base"
LARGEST_BASE = 6 * 2**20  # bytes: what a package may carry


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(TINY_BASE)


def parse(question):
    """A problem read back from its wording, with its answer by plain arithmetic."""
    start, steps = question.removeprefix("Start: ").removesuffix(". Result mod 100?").split(". Steps: ")
    updates = [int(step[1:]) for step in steps.split()]
    return synthetic.Problem(int(start), tuple(updates)), f"{(int(start) + sum(updates)) % 100:02d}"


def test_answers_are_right_and_problems_in_range():
    rows = synthetic.generate_problems(seed=3, n=200)
    for row in rows:
        problem, answer = parse(row["problem"])
        assert problem.question == row["problem"]
        assert row["answer"] == answer == problem.answer
        assert 2 <= len(problem.updates) <= 12
        assert all(2 <= abs(update) <= 9 for update in problem.updates)
    assert len({len(parse(row["problem"])[0].updates) for row in rows}) == 11


def test_evaluation_problems_are_held_out_and_nothing_else_is(tokenizer):
    evaluation = synthetic.generate_problems(seed=0, n=300)
    fine_tuning = synthetic.generate_examples(seed=0, n=300)
    assert all(parse(row["problem"])[0].held_out for row in evaluation)
    assert not any(parse(row["question"])[0].held_out for row in fine_tuning)
    for corpus in (synthetic.plain_documents, synthetic.chat_documents):
        for document in islice(corpus(np.random.default_rng(0), tokenizer), 300):
            text = tokenizer.decode(document.token_ids)
            question = text[text.index("Start: ") : text.index("mod 100?") + len("mod 100?")]
            assert not parse(question)[0].held_out
    drills = tokenizer.decode(synthetic.drill(np.random.default_rng(0), tokenizer, 4000).token_ids)
    assert "Start" not in drills


def test_one_problem_in_ten_is_held_out():
    rng = np.random.default_rng(0)
    held_out = [
        synthetic.Problem(int(rng.integers(100)), tuple(int(u) for u in rng.integers(2, 10, 6))).held_out
        for _ in range(5000)
    ]
    assert 0.08 < np.mean(held_out) < 0.12


@pytest.mark.parametrize(
    ("generate", "key"), [(synthetic.generate_examples, "question"), (synthetic.generate_problems, "problem")]
)
def test_rows_are_seeded_and_distinct(generate, key):
    rows = generate(seed=1, n=1000)
    assert rows == generate(seed=1, n=1000)
    assert rows != generate(seed=2, n=1000)
    assert len({row[key] for row in rows}) == len({row["id"] for row in rows}) == 1000


def test_thinking_works_in_rounds():
    problem = synthetic.Problem(16, (-8, 9, -4, -3, 4))
    rounds = [
        "a 16-8=08\nb 08+9=17\nc 17-4=13\nd 13-3=10\nSo 10.",
        "Wait, more.\ne 10+4=14\nSo 14.",
        "Wait, all done.\nSo 14.",
    ]
    for waits in range(3):
        assert problem.thinking(waits) == "\n".join(rounds[: waits + 1])


def test_the_teacher_under_thinks():
    rows = synthetic.generate_examples(seed=0, n=1000)
    waits = [row["thinking"].count("Wait") for row in rows]
    assert max(waits) == synthetic.MAX_WAITS
    assert 0.5 < np.mean(np.equal(waits, 0)) < 0.7
    for row, count in zip(rows, waits, strict=True):
        problem, _ = parse(row["question"])
        done = min(synthetic.UPDATES_PER_ROUND * (count + 1), len(problem.updates))
        assert row["thinking"] == problem.thinking(count)
        assert row["answer"] == f"{problem.values[done]:02d}"


def test_chat_documents_have_the_products_form_and_the_value_worked_out_so_far(tokenizer):
    natural = cut = 0
    wait, end = encode(tokenizer, "Wait")[0], encode(tokenizer, "<|im_start|>")[0]
    for token_ids, loss_mask in islice(synthetic.chat_documents(np.random.default_rng(5), tokenizer), 400):
        text = tokenizer.decode(token_ids)
        question = text[text.index("Start: ") : text.index("mod 100?") + len("mod 100?")]
        problem, _ = parse(question)
        opening = prompt_text(tokenizer, question) + "<|im_start|>think"
        assert text.startswith(opening)
        thinking, answer = text.removeprefix(opening).split("<|im_start|>answer\n")
        done = sum(thinking.count(line) for line in problem.lines)
        value = f"{problem.values[done]:02d}"
        if answer.startswith("Final Answer:"):
            cut += 1
            assert answer == f"Final Answer: {value}<|im_end|>\n"
            assert thinking.endswith("\n")
        else:
            natural += 1
            assert text == prompt_text(tokenizer, question) + response_text(thinking, value)
            whole = encode_example(tokenizer, question, response_text(thinking, value))
            np.testing.assert_array_equal(token_ids, whole.token_ids)  # what fine-tuning and decoding see
        assert not loss_mask[: len(encode(tokenizer, opening))].any()
        assert not loss_mask[np.isin(token_ids, [wait, end])].any()  # whether to go on is left open
        assert loss_mask[-4:].all()  # the value and the end
    assert min(natural, cut) > 150


def test_drills_are_right_and_have_loss_on_results_alone(tokenizer):
    for length in (1, 7, 500):
        token_ids, loss_mask = synthetic.drill(np.random.default_rng(length), tokenizer, length)
        assert len(token_ids) == len(loss_mask) == length
    for line in tokenizer.decode(token_ids).splitlines()[:-1]:
        operation, result = line.split("=")
        sign = "+" if "+" in operation else "-"
        before, step = map(int, operation.split(sign))
        assert result == f"{(before + (step if sign == '+' else -step)) % 100:02d}"
    trained = tokenizer.decode(token_ids[loss_mask])
    assert trained == "".join(line.split("=")[1] for line in tokenizer.decode(token_ids).splitlines() if "=" in line)


def test_the_shipped_tokenizer_fits_the_format(tokenizer):
    for text in ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "Wait", "think", "answer", "\n", *"0123456789"):
        assert len(encode(tokenizer, text)) == 1, text
    assert sum(file.stat().st_size for file in TINY_BASE.iterdir()) <= LARGEST_BASE
    text = "Wait, 123 naïve\n\n  <|im_start|>answer"
    assert tokenizer.decode(encode(tokenizer, text)) == text
