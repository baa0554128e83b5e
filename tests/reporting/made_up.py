"""Made-up records, with every field that reports read."""

from typing import Any


def record(problem_id: Any, correct: bool, tokens: int, **fields: Any) -> dict[str, Any]:
    return {
        "task": "made up",
        "problem_id": problem_id,
        "sample": 0,
        "temperature": 0.0,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "forcing": True,
        "min_thinking_tokens": 1,
        "max_thinking_tokens": None,
        "num_ignore": 0,
        "ignore_string": "Wait",
        "num_thinking_tokens": tokens,
        "num_answer_tokens": 3,
        "end": "natural",
        "answer_end": "stop",
        "ignores_used": 0,
        "extracted_answer": "7" if correct else "8",
        "correct": correct,
    } | fields


def sweep(problems: int = 10) -> list[dict[str, Any]]:
    """Maxima 8, 16, 32 and none; "Wait" and "" once and twice; 4 samples; no forcing. More thinking, more is right."""
    records = []
    for i in range(problems):
        for budget in (8, 16, 32):
            records.append(record(i, i < budget / 8, budget, max_thinking_tokens=budget, end="forced"))
        records.append(record(i, i < 5, 40))
        for string, gain in (("Wait", 2), ("", 1)):
            for count in (1, 2):
                right = i < 5 + gain * count
                records.append(record(i, right, 40 + 20 * count, num_ignore=count, ignore_string=string))
        records += [record(i, (i + s) % 2 == 0, 40, temperature=0.8, sample=s) for s in range(4)]
        records.append(record(i, i < 4, 44, forcing=False))
    return records
