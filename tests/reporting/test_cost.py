"""What a sweep cost, from the lines that its starts leave."""

from __future__ import annotations

import pytest

from s1_jax.records.setting import Setting
from s1_jax.reporting.cost import add_cost, cost_of, format_cost

SETTING = {
    "forcing": True,
    "min_thinking_tokens": 1,
    "num_ignore": 0,
    "ignore_string": "Wait",
    "temperature": 0.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
}
RECORDS = [
    SETTING | {"max_thinking_tokens": maximum, "num_thinking_tokens": thinking, "num_answer_tokens": 2}
    for maximum, thinking in ((4, 4), (4, 3), (None, 9), (None, 3))
]


def start(records, decoded_tokens, seconds):
    steps = {"slot_steps": 40 * records, "slot_tokens": 30 * records, "programs": 4 + records}
    return {"records": records, "decoded_tokens": decoded_tokens, "seconds": seconds} | steps


def test_starts_add_up_and_settings_are_told_apart(tmp_path):
    assert len({Setting.of(record) for record in RECORDS}) == 2
    add_cost(tmp_path, **start(1, 11, 1.5))
    with (tmp_path / "decoding.jsonl").open("a") as file:
        file.write('{"records": 9')  # a start that was killed while it wrote
    add_cost(tmp_path, **start(3, 9, 60.0))
    cost = cost_of(tmp_path, RECORDS)
    assert cost == {
        "decoded_tokens": 20,
        "seconds": pytest.approx(61.5),
        "slot_use": 0.75,
        "tokens_per_step": 1.0,
        "programs": 7,
        "tokens_of_all_settings": 4 + 3 + 9 + 3 + 4 * 2,
        "tokens_of_longest_setting": 9 + 3 + 2 * 2,
    }
    assert "20 decoded in 0:01:02" in format_cost(cost)
    assert "75% of slot-steps produced a token; 7 programs compiled" in format_cost(cost)


def test_tokens_of_drafts_are_no_use_of_slots(tmp_path):
    add_cost(tmp_path, **start(4, 20, 1.5) | {"accepted_tokens": 40})
    cost = cost_of(tmp_path, RECORDS)
    assert (cost["slot_use"], cost["tokens_per_step"]) == (0.5, 1.5)
    assert "50% of slot-steps produced a token, 1.50 on average; 8 programs compiled" in format_cost(cost)


def test_starts_of_an_earlier_version_are_told_without_what_they_did_not_count(tmp_path):
    add_cost(tmp_path, records=4, decoded_tokens=20, seconds=1.5)
    cost = cost_of(tmp_path, RECORDS)
    assert cost["decoded_tokens"] == 20 and "20 decoded in 0:00:02" in format_cost(cost)
    assert "programs" not in format_cost(cost) and "slot-steps" not in format_cost(cost)


def test_no_cost_is_told_where_a_start_left_none(tmp_path):
    add_cost(tmp_path, **start(3, 11, 1.5))
    cost = cost_of(tmp_path, RECORDS)
    assert cost["decoded_tokens"] is None and cost["seconds"] is None
    assert "decoded in" not in format_cost(cost) and "27 with each setting decoded by itself" in format_cost(cost)
