"""scripts/plan_table.py, from saved plans to the tables of a page."""

from __future__ import annotations

import json
from runpy import run_path

from tests.planning.conftest import PROJECT
from tests.planning.test_decode_estimate import SERVED

SCRIPT = run_path(str(PROJECT / "scripts" / "plan_table.py"))
PAGE = (
    "\n".join(f"# {mark}\n\n<!-- {mark} -->\n| old {mark} |\n<!-- end -->" for mark in SCRIPT["MARKS"]) + "\nThe end.\n"
)


def written(tmp_path, monkeypatch, plans):
    page, saved = tmp_path / "page.md", tmp_path / "plans"
    page.write_text(PAGE)
    saved.mkdir()
    for name in plans:
        (saved / f"{name}.json").write_text(json.dumps(SERVED.to_dict()))
    arguments = ["plan_table.py", "--only", "none", "--kept", str(saved), "--write", str(page)]
    monkeypatch.setattr("sys.argv", arguments)
    SCRIPT["main"]()
    return page.read_text()


def test_a_table_is_written_once_all_of_its_rows_are_there(tmp_path, monkeypatch, capsys):
    names = [f"requests_{prompt}_{new}{'_int8' * bool(more)}" for prompt, new, _, more in SCRIPT["REQUESTS"]]
    text = written(tmp_path, monkeypatch, names)
    assert "old requests" not in text and text.endswith("\nThe end.\n")
    assert all(f"| old {mark} |" in text for mark in SCRIPT["MARKS"] if mark != "requests")
    header, _, *rows = text.partition("<!-- requests -->\n")[2].partition("<!-- end -->")[0].splitlines()
    assert len(rows) == len(names) and len({line.count("|") for line in (header, *rows)}) == 1
    rate = SERVED.request_rate
    assert rows[0] == (
        "| v6e-4 | bfloat16 | 1,024 | 8,192 | 64 | 3.73 | 12.00 | 0.00 | 40.00 "
        f"| {rate:.0f} | {rate / 4:.0f} |"
    )  # fmt: skip
    assert rows[1].startswith("| v6e-4 | int8 |")
    assert f"table answers: 0 of {len(SCRIPT['SWEEPS'])} plans; it stays as it is" in capsys.readouterr().err


def test_a_table_with_a_row_missing_stays_as_it_is(tmp_path, monkeypatch):
    assert written(tmp_path, monkeypatch, ["requests_1024_1024"]) == PAGE
