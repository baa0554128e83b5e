"""Records are grouped by setting, problems are the trials, and the metrics cover the runs they should."""

import json
import random

import pytest

from s1_jax.records.setting import Setting
from s1_jax.reporting.metrics import mean_interval, scaling, wilson_interval
from s1_jax.reporting.summary import methods, summarize, to_dict
from tests.reporting.made_up import record, sweep


def by_label(runs):
    return {run.setting.label: run for run in runs}


def test_one_run_per_setting_in_any_order():
    records = sweep()
    runs = summarize(records)
    assert set(by_label(runs)) == {
        *("max 8", "max 16", "max 32", "natural end", "1 x Wait", "2 x Wait", "1 x no string", "2 x no string"),
        *("T 0.8", "no forcing"),
    }
    random.Random(0).shuffle(records)
    assert summarize(records) == runs


def test_what_a_run_counts():
    run = by_label(summarize(sweep()))["max 32"]
    assert (run.problems, run.records, run.thinking_tokens, run.answer_tokens) == (10, 10, 32, 3)
    assert run.accuracy == pytest.approx(40)
    assert run.interval == pytest.approx([100 * end for end in wilson_interval(0.4, 10)])
    assert run.ends == {"forced": 10} and run.answer_ends == {"stop": 10}


def test_the_ignore_string_tells_settings_apart_only_where_an_end_is_ignored():
    assert Setting.of(record(0, True, 5, ignore_string="Hmm")) == Setting.of(record(0, True, 5, ignore_string="Wait"))
    ignored = [
        Setting.of(record(0, True, 5, num_ignore=1, ignore_string=s)) for s in ("Hmm", "Wait", "", ["Wait", "Hmm"])
    ]
    assert len(set(ignored)) == 4
    assert [setting.label for setting in ignored] == ["1 x Hmm", "1 x Wait", "1 x no string", "1 x Wait / Hmm"]


def test_samples_of_one_problem_are_one_trial():
    run = by_label(summarize(sweep()))["T 0.8"]
    assert (run.problems, run.records) == (10, 40)
    assert run.accuracy == pytest.approx(50)
    assert run.interval == pytest.approx([100 * end for end in wilson_interval(0.5, 40)]), "two of four everywhere"
    assert (run.samples, run.seeds, run.between_seeds, run.draws) == (4, 1, None, "4 samples")
    agreeing = [record(i, i < 4, 9, sample=s, temperature=0.8) for i in range(10) for s in range(4)]
    (run,) = summarize(agreeing)
    assert run.interval == pytest.approx([100 * end for end in wilson_interval(0.4, 10)])


def under_seeds(right, problems=10, seeds=(0, 1, 2), samples=1):
    """A drawn setting's records; `right(problem, seed, sample)`."""
    return [
        record(i, right(i, seed, s), 9, seed=seed, sample=s, temperature=0.8)
        for i in range(problems)
        for seed in seeds
        for s in range(samples)
    ]


def test_seeds_are_averaged_and_their_spread_is_told():
    (run,) = summarize(under_seeds(lambda i, seed, _: i < 4 + seed))
    assert (run.problems, run.records, run.samples, run.seeds) == (10, 30, 1, 3)
    assert run.accuracy == pytest.approx(50), "the mean of 40, 50 and 60"
    assert run.between_seeds == pytest.approx(10)
    shares = [1.0] * 4 + [2 / 3, 1 / 3] + [0.0] * 4
    assert run.interval == pytest.approx([100 * end for end in mean_interval(shares, 30)])
    assert run.majority == () == run.pass_at, "a seed has one sample"
    assert run.draws == "3 seeds"


def test_a_seed_that_lacks_problems_has_no_spread():
    whole = under_seeds(lambda i, seed, _: i < 4 + seed, seeds=(0, 1))
    (run,) = summarize([one for one in whole if one["seed"] == 0 or one["problem_id"] < 3])
    assert (run.seeds, run.between_seeds) == (2, None)
    assert run.accuracy == pytest.approx(40), "the first three are right under both"


def test_samples_of_all_seeds_estimate_what_k_of_them_would_do():
    records = under_seeds(lambda i, seed, s: (seed, s) in ((0, 0), (1, 0), (1, 1)), seeds=(0, 1), samples=3)
    (run,) = summarize(records)
    assert [one.k for one in run.majority] == [one.k for one in run.pass_at] == [1, 2]
    assert run.draws == "3 samples, 2 seeds"
    assert run.pass_at[-1].accuracy == pytest.approx(100 * (1 - 3 / 15)), "of 15 pairs three are all wrong"
    (fewer,) = summarize([one for one in records if one["seed"] == 0 or one["sample"] == 0])
    assert [one.k for one in fewer.pass_at] == [1, 2], "a second seed with fewer samples takes nothing away"


def test_majority_voting():
    run = by_label(summarize(sweep()))["T 0.8"]
    assert [(vote.k, vote.thinking_tokens) for vote in run.majority] == [(1, 40), (2, 80), (4, 160)]
    assert [vote.accuracy for vote in run.majority] == pytest.approx([50, 50, 50]), (
        "two of four samples are right: a tie"
    )


def test_pass_at_k():
    run = by_label(summarize(sweep()))["T 0.8"]
    assert [(one.k, one.thinking_tokens) for one in run.pass_at] == [(1, 40), (2, 80), (4, 160)]
    assert [one.accuracy for one in run.pass_at] == pytest.approx([50, 500 / 6, 100]), "of six pairs one is all wrong"
    assert by_label(summarize(sweep()))["natural end"].pass_at == ()


def test_majority_takes_right_answers_as_one_however_they_are_written():
    samples = [("7", True), ("07", True), ("8", False), (None, False), (None, False), (None, False)]
    records = [record(0, right, 9, sample=i, extracted_answer=answer) for i, (answer, right) in enumerate(samples)]
    (run,) = summarize(records)
    assert run.majority[-1].k == 4
    # of the 15 draws of four: both right ones in 6; one right and 8 in 6, a tie; one right alone in 2; 8 alone in 1
    assert run.majority[-1].accuracy == pytest.approx(100 * (6 + 6 / 2 + 2) / 15)
    assert run.without_answer == 3


def test_methods_across_all_ignore_counts():
    found = {method.name: method for method in methods(summarize(sweep()), "across")}
    assert set(found) == {"Wait", "no string", "no end ignored, T 0.8"}, "a run without forcing belongs to none"
    wait = found["Wait"]
    assert (wait.runs, wait.control, wait.performance) == (6, 100, 90)
    assert wait.scaling == pytest.approx(scaling([8, 16, 32, 40, 60, 80], [10, 20, 40, 50, 70, 90]))


def test_methods_within_one_ignore_count():
    found = {method.name: method for method in methods(summarize(sweep()), "within")}
    assert set(found) == {
        "no end ignored",
        "no end ignored, T 0.8",
        *(f"{n} x {s}" for n in (1, 2) for s in ("Wait", "no string")),
    }
    assert found["no end ignored"].scaling == pytest.approx(scaling([8, 16, 32, 40], [10, 20, 40, 50]))
    assert found["2 x Wait"].scaling is None


def test_control_counts_runs_within_their_own_limits():
    over = [record(0, True, 20, max_thinking_tokens=16), record(0, True, 20, max_thinking_tokens=32)]
    (method,) = methods(summarize(over), "across")
    assert method.control == 50


def test_summary_is_json():
    records = sweep()
    runs = summarize(records)
    summary = json.loads(json.dumps(to_dict(records, runs, methods(runs, "across"), "across"), allow_nan=False))
    assert summary["tasks"] == ["made up"] and summary["records"] == len(records)
    assert [run["label"] for run in summary["runs"]] == [run.setting.label for run in runs]


@pytest.mark.parametrize(
    "records, count, accuracy, upper",
    [
        ([record(i, i < 4, 9, graded_by="undecided" if i > 6 else "number") for i in range(10)], 3, 40, 70),
        ([record(i, False, 9, graded_by="unparsed") for i in range(4)], 4, 0, 100),
        ([record(i, i < 2, 9, graded_by="undecided") for i in range(4)], 2, 50, 100),  # a right answer is decided
        ([record(i, i < 2, 9, graded_by="judge") for i in range(4)], 0, 50, 50),
        ([record(i, i < 2, 9, graded_by="none", extracted_answer=None) for i in range(4)], 0, 50, 50),
        ([record(i, i < 2, 9) for i in range(4)], 0, 50, 50),  # of an early version
        ([record(0, s < 1, 9, sample=s, graded_by="undecided") for s in range(4)] + [record(1, False, 9)], 3, 12.5, 50),
    ],
)
def test_undecided_answers_are_counted_apart_and_bound_the_accuracy(records, count, accuracy, upper):
    (run,) = summarize(records)
    assert (run.undecided, run.accuracy, run.accuracy_if_undecided_right) == (count, accuracy, upper)
    (method,) = methods([run], "across")
    assert (method.performance, method.performance_if_undecided_right) == (accuracy, upper)
    (told,) = to_dict(records, [run], [method], "across")["runs"]
    assert (told["undecided"], told["accuracy_if_undecided_right"]) == (count, upper)


def test_votes_and_pass_at_k_say_what_undecided_answers_could_change():
    answers = [("7", True, "number"), ("3", False, "number"), ("3", False, "number"), ("7 apples", False, "undecided")]
    answers = [{"extracted_answer": a, "correct": right, "graded_by": by} for a, right, by in answers]
    (run,) = summarize(record(0, **fields, tokens=9, sample=i, temperature=1.0) for i, fields in enumerate(answers))
    one, two, four = run.majority
    assert (one.accuracy, one.accuracy_if_undecided_right) == (25, 50)
    # of six pairs one is of two equal wrong ones; with the open one right, one is of two right ones, four are ties
    assert two.accuracy_if_undecided_right == pytest.approx(100 * (1 + 4 / 2) / 6)
    assert (four.accuracy, four.accuracy_if_undecided_right) == (0, 0), "a verdict makes no answers equal: two to one"
    assert [one.accuracy_if_undecided_right for one in run.pass_at] == pytest.approx([50, 100 * 5 / 6, 100])
    assert [one.accuracy for one in run.pass_at] == pytest.approx([25, 50, 100])


def test_an_undecided_answer_never_lowers_a_bound():
    rng = random.Random(0)
    for _ in range(20):
        records = [
            record(i, rng.random() < 0.4, 9, sample=s, extracted_answer=rng.choice("12"), graded_by=rng.choice(RULES))
            for i in range(3)
            for s in range(6)
        ]
        (run,) = summarize(records)
        for one in (run, *run.majority, *run.pass_at):
            assert one.accuracy <= one.accuracy_if_undecided_right <= 100


RULES = ("number", "math", "undecided", "unparsed")
PAPER = {"TCC": ("token {}", None), "TCC+BF": ("token {}", 1), "SCC": ("step {}", None), "SCC+BF": ("step {}", 100)}
PAPER_NAMES = {
    "TCC": "token-conditional control",
    "TCC+BF": "token-conditional control + budget forcing",
    "SCC": "step-conditional control",
    "SCC+BF": "step-conditional control + budget forcing",
    "CCC": "class-conditional control",
}


def paper_records(case):
    """Records of 30 problems whose means and right answers are those of a table of the paper."""
    if case["method"] == "CCC":
        settings = [{"instruction": "short"}, {"instruction": "long"}, {"instruction": None}]
        means, right = [*case["thinking_tokens"], case["reference"]], [*case["correct"], 15]
    else:
        words, forced = PAPER[case["method"]]
        unit = 100 if words.startswith("step") else 1
        settings = [
            {"instruction": words.format(limit // unit), "max_thinking_tokens": limit if forced else None}
            for limit in case["limits"]
        ]
        means, right = case["thinking_tokens"], case["correct"]
    runs = zip(settings, means, right, strict=True)
    return [record(i, i < count, mean, **setting) for setting, mean, count in runs for i in range(30)]


@pytest.mark.parametrize("method", PAPER_NAMES)
def test_conditional_control_gives_the_papers_metrics(method, shared_data):
    cases = json.loads((shared_data / "s1_metrics" / "scaling_metric_cases.json").read_text())["cases"]
    (case,) = [case for case in cases if case["method"] == method]
    found = {one.name: one for one in methods(summarize(paper_records(case)), "across")}
    of_method = found[PAPER_NAMES[method]]
    assert of_method.runs == len(case["thinking_tokens"])
    assert of_method.control == case["control"]
    assert round(of_method.scaling) == case["scaling"]
    assert round(of_method.performance, 1) == case["performance"]


def test_a_class_without_the_run_it_is_measured_by_has_no_control():
    records = [record(0, True, tokens, instruction=words) for words, tokens in (("short", 10), ("long", 30))]
    (found,) = methods(summarize(records), "across")
    assert (found.name, found.control) == ("class-conditional control", None)


def test_instructions_tell_settings_apart_and_stand_first():
    settings = [
        {"instruction": "token 64"},
        {"instruction": "token 64", "max_thinking_tokens": 64},
        {"instruction": "long", "forcing": False},
        {"forcing": False, "max_thinking_tokens": 9},
        {"forcing": False, "max_new_tokens": 16},
        {},
    ]
    runs = summarize(record(0, True, 5, **setting) for setting in settings)
    free = {"long, no forcing", "no forcing, max 9", "no forcing, max 16 in all"}
    assert {run.setting.label for run in runs} == {"token 64", "token 64, max 64", "natural end", *free}
    old = record(0, True, 5)
    assert "instruction" not in old and Setting.of(old).instruction is None
