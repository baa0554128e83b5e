"""The table lines up and says what the runs say."""

import re

from s1_jax.reporting.summary import methods, summarize
from s1_jax.reporting.table import align, format_report
from tests.reporting.made_up import record, sweep


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
