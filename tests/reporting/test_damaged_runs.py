"""Run folders that were edited by hand or are of an earlier version: every command says file, line and field."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest

from s1_jax import evaluate, grade
from s1_jax.config import S1
from s1_jax.errors import UserError
from s1_jax.records.results import read_results, read_run
from s1_jax.reporting import compare, parity
from s1_jax.reporting.traces import by_problem
from tests.reporting.made_up import searched, spoken, write_run

TEXT_OR = "it must be a string"
COUNT = "it must be a whole number of 0 or more"
NUMBER = "it must be a finite number"
REQUIRED = (
    *("task", "problem_id", "sample", "seed", "temperature", "top_k", "top_p", "min_p", "forcing"),
    *("min_thinking_tokens", "max_thinking_tokens", "num_ignore", "ignore_string", "num_thinking_tokens"),
    *("num_answer_tokens", "end", "answer_end", "ignores_used", "extracted_answer", "correct"),
)
DAMAGED = (  # field, value, what is said of it
    *((field, ..., f"line 3 lacks {field}") for field in REQUIRED),
    *((field, [1], f"{field} is [1]; it must be") for field in (*REQUIRED, "graded_by", "gold", "question", "reward")),
    *((field, {}, f"{field} is {{}}; it must be") for field in (*REQUIRED, "text", "instruction", "answer_class")),
    ("task", None, f"task is null; {TEXT_OR}"),
    ("problem_id", None, "problem_id is null; it must be a string or a whole number"),
    ("problem_id", True, "problem_id is true; it must be a string or a whole number"),
    ("problem_id", 1.5, "problem_id is 1.5; it must be a string or a whole number"),
    ("seed", "x", "seed is 'x'; it must be a whole number"),
    ("seed", 2**70, f"seed is {2**70}; it must be a whole number"),
    ("sample", None, f"sample is null; {COUNT}"),
    ("temperature", float("nan"), f"temperature is nan; {NUMBER}"),
    ("temperature", float("inf"), f"temperature is inf; {NUMBER}"),
    ("temperature", "0", f"temperature is '0'; {NUMBER}"),
    ("top_p", None, f"top_p is null; {NUMBER}"),
    ("num_thinking_tokens", 10**400, f"num_thinking_tokens is {str(10**400)[:60]}...; {COUNT}"),
    ("num_thinking_tokens", -5, f"num_thinking_tokens is -5; {COUNT}"),
    ("num_thinking_tokens", 2.5, f"num_thinking_tokens is 2.5; {COUNT}"),
    ("max_thinking_tokens", "8", f"max_thinking_tokens is '8'; {COUNT} or null"),
    ("ignore_string", ["Wait", 3], "ignore_string is ['Wait', 3]; it must be a string or a list of strings or null"),
    ("end", None, f"end is null; {TEXT_OR}"),
    ("correct", None, "correct is null; it must be true or false"),
    ("correct", 1, "correct is 1; it must be true or false"),
    ("extracted_answer", 7, "extracted_answer is 7; it must be a string or null"),
    ("text", 7, "text is 7; it must be a string"),
    ("ignored_ends", [[1]], "ignored_ends is [[1]]; it must be a list of pairs of whole numbers"),
    ("ignored_ends", [["a", "b"]], "ignored_ends is [['a', 'b']]; it must be a list of pairs of whole numbers"),
    ("ignored_ends", 3, "ignored_ends is 3; it must be a list of pairs of whole numbers"),
    ("thinking_token_ids", "abc", "thinking_token_ids is 'abc'; it must be a list or null"),
    ("answer_class", "a", f"answer_class is 'a'; {COUNT} or null"),
    ("max_tries", "many", f"max_tries is 'many'; {COUNT}"),
    ("tries", None, f"tries is null; {COUNT}"),
    ("tried_tokens", "3", f"tried_tokens is '3'; {COUNT}"),
    ("newline_grace", "0", f"newline_grace is '0'; {NUMBER}"),
    ("end_bias", None, f"end_bias is null; {NUMBER}"),
    ("instruction", "loud", "instruction is 'loud'; instruction 'loud' is none of"),
    ("instruction", "token 1" + 5000 * "0", "instruction is 'token 1000"),
    ("format", "s1", "format is 's1'; it must be an object"),
    ("format", {"think": "<think>"}, "format lacks think_start"),
    ("format", S1.__dict__ | {"end_markers": "x"}, "format: end_markers is 'x'; it must be a list of strings"),
    ("format", S1.__dict__ | {"end_markers": []}, "format.end_markers needs at least one marker"),
    ("format", S1.__dict__ | {"end_markers": ["x"], "more": 1}, "format: more is 1; there are only think_start,"),
    ("method", "rebase", "lacks leaves"),
    ("stop_tokens", 3, "stop_tokens is 3; it must be a list of strings"),
)
SEARCHED = (
    ("method", "guess", "method is 'guess'; it must be one of best_of_n, beam, dvts, rebase, mcts"),
    ("method", None, "method is null; it must be one of"),
    ("vote", "loud", "vote is 'loud'; it must be one of best, weighted, majority"),
    ("path_score", 3, "path_score is 3; it must be one of last, min, mean, product"),
    ("width", "16", f"width is '16'; {COUNT}"),
    ("width", 0, "method is 'rebase'; search.width is 0; it must be a whole number from 1"),
    ("score_temperature", None, f"score_temperature is null; {NUMBER}"),
    ("leaves", None, "leaves is null; it must be a list of pairs of an answer and a number"),
    ("leaves", [["7"]], "leaves is [['7']]; it must be a list of pairs"),
    ("generated_tokens", ..., "lacks generated_tokens"),
    ("decoding_seconds", "1", f"decoding_seconds is '1'; {NUMBER}"),
    ("cut_texts", None, f"cut_texts is null; {COUNT}"),
)
CONFIGS = (
    ("task", 5, "config.json: task is 5; it must be an object"),
    ("model", "a", "config.json: model is 'a'; it must be an object"),
    ("sweep", [1], "config.json: sweep is [1]; it must be an object"),
    ("sweep", {"scaling": "up"}, "config.json: sweep: scaling is 'up'; it must be one of within, across"),
    ("stored", "x", "config.json: stored is 'x'; it must be an object"),
    ("format", {"think_start": 1}, "config.json: format lacks answer_start"),
    ("task", {"name": 5}, "config.json: task: name is 5; it must be a string"),
    ("task", {"name": "jsonl", "path": 5}, "config.json: task: path is 5; it must be a string or null"),
    ("task", {"name": "gpqa_diamond", "no_letter_is_a": "no"}, "no_letter_is_a is 'no'; it must be true or false"),
)


def records_of(count=3):
    return [spoken(i, "some thinking", task="AIME24") for i in range(count)]


def damaged(records, field, value):
    last = {name: old for name, old in records[-1].items() if name != field}
    return [*records[:-1], last if value is ... else last | {field: value}]


def refusal(folder):
    with pytest.raises(UserError) as error:
        read_run(folder)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    return str(error.value)


def test_every_field_of_a_record(tmp_path):
    searches = [searched(i, True, 4, task="AIME24") for i in range(3)]
    for records, table in ((records_of(), DAMAGED), (searches, SEARCHED)):
        for field, value, said in table:
            folder = write_run(tmp_path / "run", damaged(records, field, value))
            line = refusal(folder)
            assert line.startswith(f"{folder / 'records.jsonl'}, line 3") and said in line, (field, value, line)
            assert line.endswith("; remove that line, it will be made again")
        read_run(write_run(tmp_path / "run", records))


def test_what_records_may_hold_besides(tmp_path):
    records = [searched(0, True, 4, leaves=[["7", float("nan")], [None, float("-inf")]], seed=-1, reward=None)]
    assert len(read_run(write_run(tmp_path / "run", records))[0]) == 1


def test_every_section_of_a_config(tmp_path):
    for section, value, said in CONFIGS:
        folder = write_run(tmp_path / "run", records_of(), **{section: value})
        assert said in refusal(folder), (section, value)
    for text in ("", "[]", '{"task":', "\x00"):
        (folder / "config.json").write_text(text)
        assert refusal(folder).startswith(f"{folder / 'config.json'}: ")


@pytest.mark.parametrize("what", ["record", "config", "cost"])
def test_every_command_says_so_and_changes_nothing(tmp_path, what):
    whole = write_run(tmp_path / "whole", records_of())
    folder = write_run(tmp_path / "run", records_of())
    if what == "record":
        write_run(folder, damaged(records_of(), "seed", "x"))
        said = "records.jsonl, line 3: seed is 'x'"
    elif what == "config":
        write_run(folder, records_of(), task=[])
        said = "config.json: task is []"
    else:
        (folder / "decoding.jsonl").write_text('{"records": 3}\n{"records": 1, "seconds": "x"}\n')
        said = "decoding.jsonl, line 2: seconds is 'x'; it must be a finite number of 0 or more"
    commands = [lambda: evaluate.main([str(folder)])]
    if what != "cost":  # which the report alone reads
        commands += [
            lambda: grade.main([str(folder)]),
            lambda: compare.command([str(folder), str(whole)]),
            lambda: compare.command([str(whole), str(folder)]),
            lambda: parity.command([str(folder)]),
        ]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for command in commands:
        with pytest.raises(UserError, match=re.escape(f"{folder}/{said}")):
            command()
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_grading_needs_a_text_and_an_answer(tmp_path):
    for field, value, said in [
        ("text", ..., "line 3 lacks text"),
        ("text", None, "text is null; it must be a string"),
        ("gold", None, "gold is null"),
    ]:
        folder = write_run(tmp_path / "run", damaged(records_of(), field, value))
        with pytest.raises(UserError, match=said):
            grade.main([str(folder)])


def test_a_record_that_is_there_twice_counts_once_and_is_told_once(tmp_path, capsys):
    """As two starts on one folder left it in earlier versions."""
    records = [spoken(i, "some thinking", correct=bool(i % 2), seed=seed) for seed in (0, 1) for i in range(4)]
    once = write_run(tmp_path / "once", records)
    twice = write_run(tmp_path / "twice", [*records[:5], *records])
    evaluate.main([str(once)])
    capsys.readouterr()
    evaluate.main([str(twice)])
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{twice / 'records.jsonl'}: 5 of 13 records repeat an earlier one" in said
    assert "(line 6 repeats line 1); only the first of each counts" in said
    of_once, of_twice = (json.loads((folder / "summary.json").read_text()) for folder in (once, twice))
    assert of_once["runs"] == of_twice["runs"] and of_twice["runs"][0]["samples"] == 1
    compare.command([str(once), str(twice), str(tmp_path / "compare.json")])
    assert json.loads((tmp_path / "compare.json").read_text())["best"]["difference"] == 0
    grade.main([str(twice)])
    assert "8 records graded again" in capsys.readouterr().out
    assert [record["seed"] for record in read_results(twice / "records.jsonl")] == [0] * 4 + [1] * 4


def test_samples_and_seeds_and_settings_are_no_doubles(tmp_path, capsys):
    records = [
        spoken(i, "x", sample=s, seed=seed, max_thinking_tokens=m)
        for i in "ab"
        for s in (0, 1)
        for seed in (0, 1)
        for m in (1, 2)
    ]
    write_run(tmp_path / "run", records)
    assert len(read_run(tmp_path / "run")[0]) == 16 and not capsys.readouterr().err


TEXTS = (
    *("$\\foo$", "a$b$c", "\\$", "$", "\\", "a\x00b", "\x1b[31m", "a\nb\tc", "\ud800", "\ufffe", "\u202e", "漢字"),
    *("x" * 3000, "\udcff", "%s{}<&>", "$$\\frac$$"),
)


@pytest.mark.filterwarnings("ignore:Glyph")
def test_any_text_is_drawn(tmp_path, capsys):
    """Where it is part of a title, a series or a note; as the SVG is XML, it is read again."""
    for text in TEXTS:
        records = [
            spoken(f"{text}{i}", "thinking " * (1 + n), num_ignore=n, ignore_string=text, task=text, correct=i < n)
            for i in range(3)
            for n in (0, 1, 2)
        ]
        folder = write_run(tmp_path / "run", records)
        evaluate.main([str(folder)])
        assert not capsys.readouterr().err, ascii(text)
        ElementTree.parse(folder / "scaling.svg")
        assert (folder / "report.html").stat().st_size > 10_000


def test_an_id_of_any_length_is_sorted_as_a_number(tmp_path):
    long = "9" * 5000
    names = ["a2", "a10", f"a{long}", "a010", "b", f"a1{long}", "a0"]
    wanted = ["a0", "a2", "a10", "a010", f"a{long}", f"a1{long}", "b"]
    assert [of[0]["problem_id"] for of in by_problem([spoken(name, "x") for name in names])] == wanted
    evaluate.main([str(write_run(tmp_path / "run", [spoken(name, "x") for name in names]))])
