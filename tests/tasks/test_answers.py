"""Extraction follows the reference's order of rules."""

import pytest

from s1_jax.tasks.answers import extract_answer, last_boxed, without_stop, written
from s1_jax.tasks.equivalence import Verdict, grade_plain

THINK = "<|im_start|>think\nSo Answer: 5 or \\boxed{6}.\n<|im_start|>answer"


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("\nAnswer: 21<|im_end|>", "21"),
        ("\nFinal Answer: 21<|im_end|>", "21"),
        ("\n21<|im_end|>", "21"),
        ("\nIt is \\boxed{7}, no, $\\boxed{\\frac{1}{2}}$. Answer: 3<|im_end|>", "\\frac{1}{2}"),
        ("\nIt is $\\boxed 7$ or 8<|endoftext|>", "7"),
        ("\nIt is \\fbox{9}<|im_end|>", "9"),
        ("\nthe answer :\n\n 10\nor so<|im_end|>", "10\nor so"),
        ("\nAnswer: \\boxed{10", "\\boxed{10"),
        ("\n", None),
        ("\nAnswer: <|im_end|>", None),
        (" 21\n22<|im_end|>", "22"),
        (" 21<|im_end|>", "answer 21"),
        ("\nwrong\n<|im_start|>answer\nAnswer: 8<|im_end|>", "8"),
        ("\nAnswer: 8<|im_end|>\nAnswer: 9", "8"),
    ],
)
def test_what_stands_after_the_answer_marker(written, found):
    assert extract_answer(THINK + written) == found


def test_without_an_answer_marker():
    assert extract_answer("<|im_start|>think\nSo it is 5.") == "So it is 5."
    assert extract_answer("Answer: 5") == "5"


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("\\boxed{a{b}c}d}", "a{b}c"),
        ("\\boxed{}", ""),
        ("\\boxed{a", None),
        ("\\boxed", None),
        ("\\boxed3", None),
        ("3", None),
    ],
)
def test_boxes(text, inside):
    assert last_boxed(text) == inside


@pytest.mark.parametrize(
    ("text", "stops", "left"),
    [
        ("42<|eot|>", ["<|eot|>", "<|im_end|>"], "42"),
        ("42<|im_end|>", ["<|eot|>", "<|im_end|>"], "42"),
        ("42<|x|><|eot|>", ["|>", "<|eot|>"], "42<|x|>"),
        ("a\nb\n", ["\n"], "a\nb"),
        ("42", ["<|eot|>"], "42"),
        ("", ["<|eot|>"], ""),
        ("42<|eot|>", [], "42<|eot|>"),
    ],
)
def test_the_stop_token_that_ended_a_text_is_no_part_of_the_answer(text, stops, left):
    assert without_stop(text, stops) == left
    assert written({"text": text, "answer_end": "stop", "stop_tokens": stops}) == left
    assert written({"text": text, "answer_end": "length", "stop_tokens": stops}) == text


def test_records_of_earlier_versions_ended_in_one_of_two_tokens():
    assert written({"text": "42<|endoftext|>", "answer_end": "stop"}) == "42"
    assert written({"text": "42<|eot|>", "answer_end": "stop"}) == "42<|eot|>"


def test_every_real_gold_answer_is_found_again(shared_data):
    import json

    for line in (shared_data / "aime24" / "aime24_nofigures.jsonl").read_text().splitlines():
        gold = json.loads(line)["answer"]
        for response in (
            f"\n\\boxed{{{int(gold)}}}<|im_end|>",
            f"\nAnswer: {gold}<|im_end|>",
            f"\nFinal Answer: {int(gold)}",
        ):
            assert grade_plain(extract_answer(f"{THINK}\n{response}"), gold) == Verdict(True, "number")
