"""A run beside the paper: rows find their settings, and what has no counterpart says so."""

import dataclasses
import json
import re
from typing import get_args

import pytest

from s1_jax import evaluate
from s1_jax.data.conditional import STEPS
from s1_jax.errors import UserError
from s1_jax.reporting.paper import ACCURACIES, BENCHMARKS, METHODS, Kind
from s1_jax.reporting.parity import counterpart, method_of
from s1_jax.reporting.summary import summarize
from tests.reporting.made_up import record
from tests.reporting.test_summary import paper_records

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
    assert "Settings without a row in the paper: max 2000; T 1" in printed


def test_the_interval_of_a_difference_holds_what_thirty_problems_cannot_tell(printed):
    low, high = map(float, line(printed, '2x "Wait"')[4].split(" to "))
    assert low < -20 < 20 < high


def test_what_has_no_counterpart_says_so(printed):
    assert line(printed, "2x without string")[-1] == "not in this run"
    assert line(printed, "short prompt")[-1] == line(printed, "long prompt")[-1] == "not in this run"
    assert line(printed, "rejection sampling")[2::2] == ["not in this run"] * 3
    assert line(printed, "budget forcing  ")[1:3] == ["100", "100.0"]


def test_what_differs_in_the_set_up_is_listed(printed):
    assert line(printed, "products") == ["products", "float32", "bfloat16"]
    assert line(printed, "weights kept in") == ["weights kept in", "float32", "bfloat16"]
    assert line(printed, "max_answer_tokens") == ["max_answer_tokens", "32768", "4096"]
    assert line(printed, "data set")[1:] == ["simplescaling/aime24_nofigures", "the default, revision not recorded"]
    assert "cache kept in" not in printed and "max_model_len" not in printed, "these agree"


def rows_of(*runs):
    """The names of the paper's rows that runs of 30 problems, each given by its fields, are of."""
    records = [one for fields in runs for one in run(fields.pop("right", 12), 6000, **fields)]
    summary = summarize(records)
    return {row.name: found.setting.label for row in ACCURACIES if (found := counterpart(row, summary))}


SETTINGS = {  # of every row, the settings that it is; the same ones spelled in another way
    "s1 without budget forcing": [{"forcing": False}, {"forcing": False, "max_thinking_tokens": 32_000}],
    "no extrapolation": [
        *({}, {"max_thinking_tokens": 30_000}, {"max_thinking_tokens": 32_768, "min_thinking_tokens": 0}),
        *({"ignore_string": "Hmm"}, {"top_p": 0.95, "top_k": 20, "min_p": 0.1}, {"newline_grace": 0.1}),
    ],
    "2x without string": [{"num_ignore": 2, "ignore_string": ""}],
    '2x "Alternatively"': [{"num_ignore": 2, "ignore_string": "Alternatively"}],
    '2x "Hmm"': [{"num_ignore": 2, "ignore_string": "Hmm"}, {"num_ignore": 2, "ignore_string": ["Hmm", "Hmm"]}],
    '2x "Wait"': [{"num_ignore": 2}, {"num_ignore": 2, "ignore_string": ["Wait"]}],
    "s1-32B": [{"num_ignore": count} for count in (2, 4, 6)],
    "short prompt": [{"instruction": "short"}, {"instruction": "short", "max_thinking_tokens": 31_000}],
    "long prompt": [{"instruction": "long"}],
}


def test_every_row_finds_the_setting_it_stands_for():
    assert SETTINGS.keys() == {row.name for row in ACCURACIES}
    for name, settings in SETTINGS.items():
        for fields in settings:
            both = fields.get("num_ignore") == 2 and fields.get("ignore_string") in (None, ["Wait"])
            assert rows_of(dict(fields)).keys() == ({"s1-32B", '2x "Wait"'} if both else {name}), fields


NEAR = [  # one thing more than a row has
    *({"max_thinking_tokens": 29_999}, {"max_thinking_tokens": 2_000}, {"min_thinking_tokens": 2}),
    *({"temperature": 1.0}, {"temperature": 0.01}, {"max_tries": 2}, {"temperature": 1.0, "max_tries": 20}),
    *({"end_bias": 2.0, "max_thinking_tokens": 32_000}, {"newline_grace": 0.05, "max_thinking_tokens": 32_000}),
    *(
        {"method": "best_of_n", "width": 1},
        {"method": "rebase", "width": 16, "reward": "process"},
        {"reward": "outcome"},
    ),
    *({"instruction": "token 32768"}, {"instruction": "step 256"}),
]


@pytest.mark.parametrize("more", NEAR, ids=str)
def test_what_is_nearly_a_row_is_none(more):
    for settings in SETTINGS.values():
        for fields in settings:
            if not (fields.keys() & more.keys()):
                assert rows_of(fields | more) == {}, fields
    for fields in (
        {"num_ignore": 1},
        {"num_ignore": 3},
        {"num_ignore": 8},
        {"num_ignore": 2, "ignore_string": "Wait,"},
    ):
        assert rows_of(dict(fields)) == rows_of(fields | more) == {}
    assert rows_of({"num_ignore": 2, "ignore_string": ["Wait", "Hmm"]}) == {}
    assert rows_of({"num_ignore": 2, "ignore_string": "wait"}) == rows_of({"num_ignore": 4, "ignore_string": ""}) == {}
    assert rows_of({"num_ignore": 2, "forcing": False}) == rows_of({"instruction": "long", "forcing": False}) == {}
    assert rows_of({"num_ignore": 2, "instruction": "short"}) == {}


def test_a_folder_of_prompts_alone_is_not_taken_for_a_plain_run(tmp_path, capsys):
    print_parity(tmp_path, [*run(9, 8000, instruction="short"), *run(11, 9600, instruction="long")])
    printed = capsys.readouterr().out
    assert line(printed, "no extrapolation")[-1] == line(printed, "Table 1: s1-32B")[-1] == "not in this run"
    assert line(printed, "short prompt")[1:3] == ["30.0", "30.0"] and line(printed, "short prompt")[-1] == "short"
    assert line(printed, "long prompt")[1:3] == ["36.7", "36.7"]
    assert "Settings without a row in the paper" not in printed
    assert line(printed, "class-conditional")[1:] == ["50", "-", "25", "25.3", "36.7", "36.7"]
    assert line(printed, "budget forcing")[2::2] == ["not in this run"] * 3


def test_of_several_settings_the_best_is_the_papers_best_and_of_the_same_one_the_open_ended():
    waits = [{"num_ignore": count, "right": right} for count, right in ((1, 20), (2, 14), (4, 17), (6, 16), (8, 19))]
    assert rows_of(*waits)["s1-32B"] == "4 x Wait"
    assert rows_of({"max_thinking_tokens": 31_000}, {}) == {"no extrapolation": "natural end"}


def print_parity(folder, records, **config):
    (folder / "records.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    evaluate.main(["--parity", str(folder)])


NAMES = {
    "TCC": "token-conditional ",
    "TCC+BF": "token-conditional, forced",
    "SCC": "step-conditional ",
    "SCC+BF": "step-conditional, forced",
    "CCC": "class-conditional",
}


@pytest.mark.parametrize("method", NAMES)
def test_the_papers_own_runs_give_the_papers_own_metrics(method, shared_data, tmp_path, capsys):
    cases = json.loads((shared_data / "s1_metrics" / "scaling_metric_cases.json").read_text())["cases"]
    (case,) = [case for case in cases if case["method"] == method]
    print_parity(tmp_path, [one | {"task": "aime24"} for one in paper_records(case)])
    printed = capsys.readouterr().out
    _, *cells = line(printed, NAMES[method])
    assert [round(float(cell)) for cell in cells[:4]] == [round(float(cells[i])) for i in (0, 0, 2, 2)]
    assert cells[4] == cells[5]
    for other in ("budget forcing", "rejection sampling", *(NAMES[name] for name in NAMES if name != method)):
        assert line(printed, other)[2::2] == ["not in this run"] * 3, other


def test_steps_that_end_where_none_is_left_are_forced(tmp_path, capsys):
    records = [one for count in (16, 32) for one in run(7, 90 * count, instruction=f"step {count}")]
    print_parity(tmp_path, records, format=dataclasses.asdict(STEPS))
    printed = capsys.readouterr().out
    assert line(printed, "step-conditional, forced")[2] == "100.0"
    assert line(printed, "step-conditional ")[2] == "not in this run"
    assert line(printed, "marks of thinking and answer")[1:] == ["s1's", "<|im_start|> ... <|im_start|>answer"]


def test_rejection_sampling(tmp_path, capsys):
    settings = [{"temperature": 1.0, "max_tries": 700, "max_thinking_tokens": maximum} for maximum in (3500, 16_000)]
    kept = [run(12 - 2 * i, fields["max_thinking_tokens"] // 2, **fields) for i, fields in enumerate(settings)]
    print_parity(tmp_path, [one for records in kept for one in records])
    assert line(capsys.readouterr().out, "rejection sampling")[1:] == ["100", "100.0", "-35", "-3.0", "40.0", "40.0"]


NOT_OF_ITS_METHOD = {  # a run that is nearly of a row of Table 3, and the row
    "another temperature": ("rejection", {"temperature": 0.7, "max_tries": 9, "max_thinking_tokens": 4000}),
    "from the likeliest alone": (
        "rejection",
        {"temperature": 1.0, "top_p": 0.9, "max_tries": 9, "max_thinking_tokens": 4000},
    ),
    "nothing to reject": ("rejection", {"temperature": 1.0, "max_tries": 9}),
    "one try": ("rejection", {"temperature": 1.0, "max_thinking_tokens": 4000}),
    "rejection with Wait": (
        "rejection",
        {"temperature": 1.0, "max_tries": 9, "max_thinking_tokens": 4000, "num_ignore": 1},
    ),
    "another maximum": ("token, forced", {"instruction": "token 2048", "max_thinking_tokens": 1024}),
    "a maximum that matters": ("token", {"instruction": "token 2048", "max_thinking_tokens": 2048}),
    "none": ("token, forced", {"instruction": "token 2048"}),
    "steps with Wait": ("step", {"instruction": "step 16", "num_ignore": 2}),
    "steps, 99 tokens each": ("step, forced", {"instruction": "step 16", "max_thinking_tokens": 1584}),
    "a class with a maximum": ("class", {"instruction": "short", "max_thinking_tokens": 4000}),
    "a class without forcing": ("class", {"instruction": "short", "forcing": False}),
    "another string": ("forcing", {"num_ignore": 2, "ignore_string": "Hmm"}),
    "a grace": ("forcing", {"max_thinking_tokens": 4000, "newline_grace": 0.1, "num_ignore": 1}),
    "a bias": ("forcing", {"max_thinking_tokens": 4000, "end_bias": 1.0, "num_ignore": 1}),
    "a minimum": ("forcing", {"min_thinking_tokens": 100, "num_ignore": 1}),
    "samples": ("forcing", {"temperature": 1.0, "num_ignore": 1}),
    "a prompt": ("forcing", {"instruction": "long", "num_ignore": 1}),
    "a search": ("forcing", {"num_ignore": 1, "method": "rebase", "width": 4, "reward": "process"}),
}


@pytest.mark.parametrize("name", NOT_OF_ITS_METHOD)
def test_what_is_nearly_a_method_is_none(name):
    kind, fields = NOT_OF_ITS_METHOD[name]
    right = {
        "rejection": {"temperature": 1.0, "max_tries": 9, "max_thinking_tokens": 8000},
        "token": {"instruction": "token 1024"},
        "token, forced": {"instruction": "token 1024", "max_thinking_tokens": 1024},
        "step": {"instruction": "step 32"},
        "step, forced": {"instruction": "step 32", "max_thinking_tokens": 3200},
        "class": {"instruction": "long"},
        "forcing": {"num_ignore": 4},
    }[kind]
    alone = method_of(kind, summarize(run(12, 500, **right)), False)
    assert alone is not None and alone.runs == 1
    assert method_of(kind, summarize(run(12, 500, **right) + run(3, 700, **fields)), False) == alone
    assert method_of(kind, summarize(run(3, 700, **fields)), False) is None


def test_a_sampled_run_is_no_counterpart():
    runs = summarize(run(12, 6000, temperature=1.0))
    assert [counterpart(row, runs) for row in ACCURACIES] == [None] * len(ACCURACIES)
    assert rows_of() == {}


def test_the_papers_rows_agree_with_one_another():
    assert all(len(row.accuracy) == len(row.tokens) == len(BENCHMARKS) for row in ACCURACIES)
    by_name = {row.name: row for row in ACCURACIES}
    kinds = {row.kind: row for row in METHODS}
    assert kinds.keys() == set(get_args(Kind)) and kinds["forcing"].performance == by_name["s1-32B"].accuracy[0]
    assert kinds["class"].performance == by_name["long prompt"].accuracy[0]
    for benchmark, *accuracies in zip(BENCHMARKS, *(row.accuracy for row in ACCURACIES), strict=True):
        for accuracy in accuracies:  # each is a share of so many problems
            assert abs(round(accuracy * benchmark.problems / 100) - accuracy * benchmark.problems / 100) < 0.15


def test_mistakes_are_one_line(tmp_path):
    (tmp_path / "records.jsonl").write_text(json.dumps(record(0, True, 5)) + "\n")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(UserError, match="task made up, which the paper does not have; it has AIME 2024"):
        evaluate.main(["--parity", str(tmp_path)])
    with pytest.raises(UserError, match="usage: .*--parity RUN_DIR"):
        evaluate.main(["--parity"])
