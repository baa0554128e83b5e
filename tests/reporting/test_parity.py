"""A run beside the paper: rows find their settings, and what has no counterpart says so."""

import json
import re

import pytest

from s1_jax import evaluate
from s1_jax.config import UserError
from s1_jax.reporting.paper import BENCHMARKS, METHODS, ROWS, Wanted
from s1_jax.reporting.parity import counterpart, matches
from s1_jax.reporting.summary import Setting, summarize
from tests.reporting.made_up import record

PROBLEMS = 30
CONFIG = {
    "model": {"path": "simplescaling/s1-32B", "dtype": "bfloat16"},
    "task": {"name": "aime24", "path": None},
    "stored": {"weights": "bfloat16", "cache": "float32"},
    "sweep": {"scaling": "across"},
    "max_model_len": 32768,
    "max_answer_tokens": 4096,
}


def run(right, tokens, **fields):
    return [record(i, i < right, tokens, task="aime24", **fields) for i in range(PROBLEMS)]


def aime_run():
    return [
        *run(15, 6200),
        *run(16, 7000, num_ignore=2),
        *run(17, 7300, num_ignore=4),
        *run(14, 6800, num_ignore=2, ignore_string="Hmm", max_thinking_tokens=31_000),
        *run(9, 2000, max_thinking_tokens=2000, end="forced"),
        *run(12, 6000, temperature=1.0),
    ]


@pytest.fixture
def printed(tmp_path, capsys):
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(one) + "\n" for one in aime_run()))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    evaluate.main(["--parity", str(tmp_path)])
    return capsys.readouterr().out


def test_undecided_answers_are_told(printed, tmp_path, capsys):
    assert "count as wrong" not in printed
    records = [one | {"graded_by": "undecided"} for one in run(15, 6200)[:18]]
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    evaluate.main(["--parity", str(tmp_path)])
    assert "undecided answers count as wrong, 3 here. Accuracy if all were right: natural end 100.0%" in (
        capsys.readouterr().out
    )


def line(printed, name):
    (found,) = [line for line in printed.splitlines() if line.startswith(name) or f": {name}" in line]
    return re.split(r"  +", found)


def test_rows_find_their_settings(printed):
    _, *accuracies, interval, theirs, ours, setting = line(printed, "no extrapolation")
    assert accuracies == ["50.0", "50.0", "+0.0"] and interval.startswith("-")
    assert (theirs, ours, setting) == ("6,109", "6,200", "natural end")
    assert line(printed, '2x "Wait"')[-1] == "2 x Wait"
    assert line(printed, '2x "Hmm"')[-1] == "max 31000, 2 x Hmm", "above what the paper's maximum was"
    assert line(printed, "Table 1: s1-32B")[1:4] == ["56.7", "56.7", "+0.0"], "the best with forcing"
    assert "No row of the paper: max 2000; T 1" in printed


def test_the_interval_of_a_difference_holds_what_thirty_problems_cannot_tell(printed):
    low, high = map(float, line(printed, '2x "Wait"')[4].split(" to "))
    assert low < -20 < 20 < high


def test_what_has_no_counterpart_says_so(printed):
    assert line(printed, "2x without string")[-1] == "not in this run"
    assert line(printed, "short prompt")[-1] == "s1_jax has no conditional prompts"
    assert line(printed, "rejection sampling")[2::2] == ["not in this run"] * 3
    assert line(printed, "budget forcing  ")[1:3] == ["100", "100.0"]


def test_what_differs_in_the_set_up_is_listed(printed):
    assert line(printed, "products") == ["products", "float32", "bfloat16"]
    assert line(printed, "weights kept in") == ["weights kept in", "float32", "bfloat16"]
    assert line(printed, "max_answer_tokens") == ["max_answer_tokens", "32768", "4096"]
    assert line(printed, "data set")[1:] == ["simplescaling/aime24_nofigures", "the default, revision not recorded"]
    assert "cache kept in" not in printed and "max_model_len" not in printed, "these agree"


def test_a_setting_is_wanted_with_no_limit_that_matters():
    wanted = Wanted(num_ignore=2, ignore_string="Wait")
    for fields, matching in [
        ({}, True),
        ({"max_thinking_tokens": 32_000}, True),
        ({"max_thinking_tokens": 16_000}, False),
        ({"min_thinking_tokens": 100}, False),
        ({"ignore_string": "Hmm"}, False),
        ({"num_ignore": 1}, False),
    ]:
        one = record(0, True, 5, **{"num_ignore": 2} | fields)
        assert matches(Setting.of(one), wanted) is matching, fields


def test_a_sampled_run_is_no_counterpart():
    runs = summarize(run(12, 6000, temperature=1.0))
    assert [counterpart(row, runs) for row in ROWS] == [None] * len(ROWS)


def test_the_papers_rows_agree_with_one_another():
    assert all(len(row.accuracy) == len(row.tokens) == len(BENCHMARKS) for row in ROWS)
    by_name = {row.name: row for row in ROWS}
    for row in METHODS:
        if row.method:
            assert row.performance == by_name["s1-32B"].accuracy[0]
    for benchmark, *accuracies in zip(BENCHMARKS, *(row.accuracy for row in ROWS), strict=True):
        for accuracy in accuracies:  # each is a share of so many problems
            assert abs(round(accuracy * benchmark.problems / 100) - accuracy * benchmark.problems / 100) < 0.15


def test_mistakes_are_one_line(tmp_path):
    (tmp_path / "records.jsonl").write_text(json.dumps(record(0, True, 5)) + "\n")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(UserError, match="task made up, which the paper does not have; it has AIME 2024"):
        evaluate.main(["--parity", str(tmp_path)])
    with pytest.raises(UserError, match="usage: .*--parity RUN_DIR"):
        evaluate.main(["--parity"])
