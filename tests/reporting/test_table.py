"""The table lines up and says what the runs say."""

import re

from s1_jax.reporting.summary import methods, summarize
from s1_jax.reporting.table import format_report
from s1_jax.runtime.tables import align
from tests.reporting.made_up import record, sweep, undecided


def test_columns_line_up():
    lines = align([("a", "b"), ("long name", "1.5"), ("x", "22.5")]).splitlines()
    assert lines == ["a             b", "---------------", "long name   1.5", "x          22.5"]


def test_every_run_has_a_line():
    runs = summarize(sweep())
    text = format_report(runs, methods(runs, "across"), "across")
    assert re.search(r"^max 32 +32\.0 +40\.0% +16\.8 to 68\.7 +10 +0/10/0 +0\.0 +0$", text, re.MULTILINE)
    assert re.search(r"^2 x Wait +80\.0 +90\.0%", text, re.MULTILINE)
    assert re.search(
        r"^T 0\.8, 4 samples +40\.0 +50\.0%.*\n  majority of 2 +80\.0 .*\n  majority of 4 +160\.0 ", text, re.MULTILINE
    )
    assert re.search(r"^  any right of 4 +160\.0 +100\.0%", text, re.MULTILINE)
    assert re.search(r"^Wait +6 +100% +\d+\.\d +90\.0%$", text, re.MULTILINE)


def test_several_seeds_have_a_column():
    drawn = [record(i, i < 4 + seed, 9, seed=seed, temperature=0.8) for i in range(10) for seed in range(3)]
    runs = summarize([record(0, True, 5), *drawn])
    text = format_report(runs, methods(runs, "across"), "across")
    assert re.search(r"^setting .*95% interval +between seeds +problems ", text)
    assert re.search(r"^T 0\.8, 3 seeds +9\.0 +50\.0% +\d.* to \d+\.\d +± 10\.0 +10 +30/0/0", text, re.MULTILINE)
    assert re.search(r"^natural end +5\.0 +100\.0% +20\.7 to 100\.0 +1 +1/0/0", text, re.MULTILINE)
    assert "\nBetween seeds: " in text
    assert "seeds" not in format_report(summarize(sweep()), [], "across")


def test_what_cannot_be_computed_is_a_dash():
    runs = summarize([record(0, True, 5)])
    assert re.search(
        r"^no end ignored +1 +100% +- +100\.0%$", format_report(runs, methods(runs, "within"), "within"), re.MULTILINE
    )


def test_undecided_answers_have_a_column_and_accuracy_says_what_they_could_change():
    runs = summarize(undecided(sweep(), 1, 4))
    text = format_report(runs, methods(runs, "across"), "across")
    header, *rows = text.splitlines()
    assert re.search(r"accuracy +up to +95% interval .* no answer +undecided$", header)
    line = {row.split("  ")[0]: row for row in rows}
    assert re.search(r"^max 8 +8\.0 +10\.0% +30\.0% +1\.8 to 40\.4 +10 .* 0 +2$", line["max 8"])
    assert re.search(r"^max 32 +32\.0 +40\.0% +50\.0% .* 1$", line["max 32"]), "problem 1 is right by then"
    assert re.search(r"^2 x Wait +80\.0 +90\.0% +59\.6 to 98\.2 .* 0$", line["2 x Wait"]), "nothing is open there"
    assert re.search(r"^  majority of 4 +160\.0 +50\.0% +60\.0% ", text, re.MULTILINE)
    assert re.search(r"^  any right of 2 +80\.0 +83\.3% +86\.7% ", text, re.MULTILINE)
    assert "\nUndecided: " in text
    assert re.search(r"^method .* Performance +up to$", text, re.MULTILINE)
    assert re.search(r"^no end ignored, T 0\.8 .* 50\.0% +60\.0%$", text, re.MULTILINE)
    assert re.search(r"^Wait .* 90\.0%$", text, re.MULTILINE)
    plain = summarize(sweep())
    assert not re.search("undecided|up to", format_report(plain, methods(plain, "across"), "across"), re.IGNORECASE)
