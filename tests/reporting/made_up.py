"""Made-up records, with every field that reports read."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from s1_jax.config import EvaluateConfig, SearchConfig, TaskConfig
from s1_jax.data.chat import ANSWER_START, FINAL_ANSWER, THINK_START
from s1_jax.records.lines import record_line
from s1_jax.records.options import search_fields
from s1_jax.runtime.cli import to_json


def record(problem_id: Any, correct: bool, tokens: int, **fields: Any) -> dict[str, Any]:
    return {
        "task": "made up",
        "problem_id": problem_id,
        "sample": 0,
        "seed": 0,
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


def spoken(problem_id: Any, thinking: str, answer: str = "7", correct: bool = True, **fields: Any) -> dict[str, Any]:
    """A record with tokens and text; a token is a character. A thinking that is cut gets its newline and suffix."""
    cut = fields.get("end", "natural") != "natural"
    newline, put_in = "\n" if cut and not thinking.endswith("\n") else "", FINAL_ANSWER if cut else ""
    text = f"{THINK_START}{thinking}{newline}{ANSWER_START}{put_in} {answer}<|im_end|>"
    known = {"gold": "7", "question": f"What is {problem_id}?", "extracted_answer": answer, "text": text}
    made = record(problem_id, correct, len(thinking), thinking_token_ids=[*map(ord, thinking)], **known)
    return made | fields


def spoken_sweep(problem_id: Any = 0) -> list[dict[str, Any]]:
    """One problem under maxima 4 and 20, no maximum, "Wait" once and twice, "Hmm" once; no place of an end is told."""
    start = "\none two three four five six seven eight nine ten eleven twelve\n"
    once = start + "Wait, thirteen\n"
    return [
        spoken(problem_id, start[:4], "1", False, max_thinking_tokens=4, end="forced"),
        spoken(problem_id, start[:20], "5", False, max_thinking_tokens=20, end="forced"),
        spoken(problem_id, start, "12", False),
        spoken(problem_id, once, "13", False, num_ignore=1, ignores_used=1),
        spoken(problem_id, once + "Wait, it is 7\n", "7", num_ignore=2, ignores_used=2),
        spoken(problem_id, start + "Hmm, no\n", "8", False, num_ignore=1, ignore_string="Hmm", ignores_used=1),
    ]


def undecided(records: list[dict[str, Any]], *problem_ids: Any) -> list[dict[str, Any]]:
    """The records, with the wrong answers to these problems undecided: no rule could say that they are wrong."""
    open_to = {"graded_by": "undecided"}
    return [one | open_to if one["problem_id"] in problem_ids and not one["correct"] else one for one in records]


def searched(problem_id: Any, correct: bool, width: int, seconds: float = 1.0, **fields: Any) -> dict[str, Any]:
    """A record of a search, with the options that its method reads."""
    options: dict[str, Any] = {name: fields.pop(name) for name in list(fields) if hasattr(SearchConfig, name)}
    search = SearchConfig(**{"method": "rebase", "width": width, **options})
    used = {
        "reward": "process",
        "leaves": [["7", 0.5]],
        "steps": 5 * width,
        "generated_tokens": 50 * width,
        "longest_path_tokens": 60 + width,
        "reward_tokens": 40 * width,
        "cut_texts": 0,
        "decoding_seconds": 0.75 * seconds,
        "reward_seconds": 0.25 * seconds,
    }
    return record(problem_id, correct, 40, temperature=1.0) | search_fields(search) | used | fields


def write_run(folder: Path, records: Iterable[dict[str, Any]], **config: Any) -> Path:
    """A run folder with these records and the config of a sweep over a file of problems."""
    folder.mkdir(exist_ok=True)
    written = json.loads(to_json(EvaluateConfig(task=TaskConfig("jsonl", "problems.jsonl")))) | config
    (folder / "config.json").write_text(json.dumps(written))
    (folder / "records.jsonl").write_text("".join(map(record_line, records)))
    return folder
