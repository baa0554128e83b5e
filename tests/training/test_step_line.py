"""The lines a run prints: they line up, come when they should, and say what a step had of its own."""

from __future__ import annotations

from s1_jax.training.step_line import HEADER_EVERY, StepTable

ROW = {
    "step": 1,
    "loss": 12.3456,
    "grad_norm": 1.234,
    "lr": 1e-5,
    "real_tokens_per_s": 1_234_567.0,
    "mfu": 0.4512,
    "hbm_gib": 61.234,
    "hbm_peak_gib": 80.5,
    "hbm_limit_gib": 95.74,
    "input_wait_seconds": 0.0123,
    "real_share": 0.934,
    "seconds": 2.3456,
    "seconds_left": 3723.4,
    "shape": (1, 8, 12288),
}
CPU = ROW | dict.fromkeys(("mfu", "hbm_gib", "hbm_peak_gib", "hbm_limit_gib"))


def ends(line):
    """Where the words of a line end."""
    return [i for i, (this, following) in enumerate(zip(line, line[1:] + " ", strict=True)) if this > " " >= following]


def test_a_line_has_every_figure_under_its_title():
    header, line = StepTable(total_steps=315, every=1).lines(ROW)
    assert header.split() == "step loss grad lr tokens/s MFU HBM GiB peak limit wait ms real s/step to go".split()
    assert line.split() == [
        *("1/315", "12.3456", "1.23", "1.00e-05", "1,234,567", "45.1%", "61.23", "80.50", "95.74"),
        *("12.3", "93%", "2.346", "1:02:03"),
    ]
    titles = header.replace("HBM GiB", "HBM_GiB").replace("wait ms", "wait_ms").replace("to go", "to_go")
    assert ends(titles) == ends(line)


def test_what_the_first_step_does_not_know_has_no_column_and_the_line_fits_a_terminal():
    header, line = StepTable(total_steps=189, every=1).lines(CPU)
    assert "MFU" not in header and "HBM" not in header
    assert len(header) == len(line) <= 80


def test_lines_come_every_so_many_steps_and_for_what_is_new():
    table = StepTable(total_steps=23, every=5)
    news = {8: {"compile_seconds": 61.25}, 12: {"held_out_loss": 0.25}}
    lines = [line for n in range(1, 24) for line in table.lines(CPU | {"step": n} | news.get(n, {}))]
    assert [line.split()[0] for line in lines] == [
        *("step", "1/23", "5/23", "8/23", "10/23", "12/23", "15/23", "20/23", "23/23"),
    ]
    assert lines[3].endswith(" 1:02:03 compiled [1, 8, 12288] in 61.2 s")
    assert lines[5].endswith(" 1:02:03 held out 0.2500")


def test_the_header_comes_again_when_it_has_scrolled_away():
    table = StepTable(total_steps=1000, every=1)
    counts = [len(table.lines(CPU | {"step": n})) for n in range(1, 2 * HEADER_EVERY + 2)]
    assert [n for n, count in enumerate(counts) if count == 2] == [0, HEADER_EVERY, 2 * HEADER_EVERY]
