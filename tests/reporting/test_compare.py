"""Two runs are compared over the problems both have, samples and seeds of a problem together."""

import json

import pytest

from s1_jax import evaluate
from s1_jax.errors import UserError
from s1_jax.reporting.compare import compare, compare_best, format_comparison
from tests.reporting.made_up import record


def run(problems, right, **fields):
    """Problem i is right where `right(i)`."""
    return [record(i, right(i), 9, gold="7", **fields) for i in problems]


def written(folder, records):
    folder.mkdir()
    (folder / "records.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    (folder / "config.json").write_text(json.dumps({"sweep": {"scaling": "across"}}))
    return str(folder)


def test_a_difference_is_over_shared_problems_alone():
    first = run(range(60), lambda i: i < 10) + run(range(60), lambda i: True, num_ignore=1)
    second = run(range(20, 80), lambda i: i < 40)
    (found,) = compare(first, second)
    assert (found.label, found.problems) == ("natural end", 40)
    assert (found.first, found.second, found.difference) == (0, 50, 50)
    assert 0 < found.interval[0] < 50 < found.interval[1] <= 100 and not found.within_noise


@pytest.mark.parametrize(("problems", "most"), [(30, 11.57), (500, 0.735), (1, 97.5)])
def test_the_same_run_differs_by_nothing_that_so_many_problems_could_tell(problems, most):
    (found,) = compare(*[run(range(problems), lambda i: i % 3 == 0)] * 2)
    assert (found.difference, found.better, found.worse) == (0, 0, 0)
    assert found.interval == pytest.approx((-most, most), abs=0.01) and found.within_noise and found.few_differ
    assert found.note == "within noise, no problem differs"
    said = format_comparison([found])
    assert f"-{most:.1f} to +{most:.1f}" in said and f"{problems} such problems cannot rule out" in said
    assert f"of up to {most:.1f} points" in said and "0/0" in said


def test_few_problems_that_differ_are_not_for_a_bootstrap():
    """5 gained and none lost of 500: resamples say +0.2 to +2.0, a coin falls so in one of 16 throws of five."""
    first = run(range(500), lambda i: i >= 5)
    (found,) = compare(first, run(range(500), lambda i: True))
    assert found.within_noise and found.few_differ and (found.better, found.worse) == (5, 0)
    assert found.note == "within noise, few problems differ" and found.interval[0] < 0 < 1 < found.interval[1]
    assert "fewer than 10, too few for a bootstrap" in format_comparison([found])
    (found,) = compare(run(range(500), lambda i: i >= 6), run(range(500), lambda i: True))
    assert not found.within_noise and found.note == "few problems differ"
    (found,) = compare(run(range(500), lambda i: i >= 10), run(range(500), lambda i: True))
    assert not found.within_noise and not found.few_differ and found.note == ""
    assert "bootstrap cannot tell" not in format_comparison([found])


def test_a_run_that_is_right_everywhere_is_not_certain_to_be():
    (found,) = compare(run(range(30), lambda i: False), run(range(30), lambda i: True))
    assert (found.difference, found.better, found.worse) == (100, 30, 0) and found.few_differ
    assert found.interval == pytest.approx((76.86, 100), abs=0.01) and found.note == "few problems differ"


def test_pairing_tells_what_two_intervals_do_not():
    first, second = run(range(200), lambda i: i % 2 == 0), run(range(200), lambda i: i % 2 == 0 or i % 20 == 1)
    (found,) = compare(first, second)
    assert found.difference == pytest.approx(5) and not found.within_noise, "ten gained, none lost"
    (found,) = compare(first, run(range(200), lambda i: i % 2 == (i < 100)))
    assert found.within_noise, "half gained, half lost"


def test_seeds_and_samples_are_averaged_for_each_problem():
    first = run(range(10), lambda i: True)
    second = [one for seed in range(4) for one in run(range(10), lambda i, seed=seed: seed == 0, seed=seed)]
    (found,) = compare(first, second)
    assert (found.problems, found.second) == (10, 25)
    assert found.interval == pytest.approx((-82.7, -21.0), abs=0.1), "every problem is right under one seed of four"


def test_the_best_of_each_may_be_other_settings():
    first = run(range(9), lambda i: i < 3) + run(range(9), lambda i: i < 6, num_ignore=1)
    second = run(range(9), lambda i: i < 9) + run(range(9), lambda i: i < 2, num_ignore=2)
    best = compare_best(first, second)
    assert best.label == "best of each: 1 x Wait | natural end"
    assert best.difference == pytest.approx(100 / 3)


def test_the_command_prints_and_writes(tmp_path, capsys):
    a = written(tmp_path / "a", run(range(40), lambda i: i < 10))
    b = written(tmp_path / "b", run(range(40), lambda i: i < 30))
    evaluate.main(["--compare", a, b, str(tmp_path / "compare.json")])
    printed = capsys.readouterr().out
    assert "natural end" in printed and "25.0%  75.0%  +50.0" in printed and "within noise" not in printed
    found = json.loads((tmp_path / "compare.json").read_text())
    assert found["runs"] == [a, b] and found["settings"][0]["difference"] == 50
    assert found["best"]["interval"] == found["settings"][0]["interval"]
    told = {"problems": 40, "better": 20, "worse": 0, "few_differ": False, "within_noise": False}
    assert found["settings"][0].items() >= told.items()
    evaluate.main(["--compare", a, a])
    printed = capsys.readouterr().out
    assert "within noise" in printed and "ndecided" not in printed


def test_undecided_answers_are_told(tmp_path, capsys):
    records = [one | {"graded_by": "undecided"} for one in run(range(40), lambda i: i < 10)[:12]]
    a = written(tmp_path / "a", run(range(12), lambda i: i < 3))
    b = written(tmp_path / "b", [*records, *run(range(12), lambda i: True, num_ignore=1)])
    evaluate.main(["--compare", a, b])
    *_, note = capsys.readouterr().out.splitlines()
    assert note == "B: undecided answers count as wrong, 2 here. Accuracy if all were right: natural end 100.0%"


def test_mistakes_are_one_line(tmp_path):
    a = written(tmp_path / "a", run(range(9), lambda i: True))
    for name, records, word in [
        ("other_task", run(range(9), lambda i: True, task="another"), "task made up, .* of another"),
        ("other_problems", run(range(9, 12), lambda i: True), "no problem in common"),
        ("other_golds", [one | {"gold": "9"} for one in run(range(9), lambda i: True)], "problem 0 is another"),
        ("other_settings", run(range(9), lambda i: True, num_ignore=3), "no setting in both.*natural end.*3 x Wait"),
        ("empty", [], "contains no records"),
    ]:
        with pytest.raises(UserError, match=word):
            evaluate.main(["--compare", a, written(tmp_path / name, records)])
    with pytest.raises(UserError, match="usage: .*--compare RUN_A RUN_B"):
        evaluate.main(["--compare", a])
