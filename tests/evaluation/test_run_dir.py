"""A run folder: stopped and resumed, of an earlier version, of another sweep, damaged."""

import json
import shutil

import pytest

from s1_jax import evaluate
from s1_jax.errors import UserError
from s1_jax.evaluation import decode
from tests.sweeps import GRID, PROBLEMS, evaluated, records_in


@pytest.mark.usefixtures("no_weights")
def test_records_that_do_not_say_how_they_were_graded_are_records(sweep_folder, sweep_copy):
    old = [{key: value for key, value in record.items() if key != "graded_by"} for record in records_in(sweep_copy)]
    (sweep_copy / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in old))
    assert evaluated(sweep_folder, sweep_copy, *GRID) == old


def test_interrupted_anywhere_it_goes_on_to_the_same_bytes(sweep_folder, sweep_copy, monkeypatch):
    path = sweep_copy / "records.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])  # torn in the middle of a line
    before = path.read_bytes().count(b"\n")
    graded, calls = decode.graded, iter(range(PROBLEMS))

    def interrupted(*args):
        if next(calls) == 3:
            raise KeyboardInterrupt
        return graded(*args)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(decode, "graded", interrupted)
        evaluated(sweep_folder, sweep_copy, *GRID)
    assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[: before + 3])
    evaluated(sweep_folder, sweep_copy, *GRID)
    assert path.read_bytes() == whole


def test_a_later_sweep_adds_what_is_new(sweep_folder, sweep_copy, capsys):
    before = records_in(sweep_copy)
    after = evaluated(
        sweep_folder, sweep_copy, "--sweep.max-thinking-tokens", "4", "6", "--task.limit", "2", "--batch-size", "3"
    )
    assert after[: len(before)] == before
    assert f"{len(after)}/{len(after)}" in capsys.readouterr().err
    assert [(r["problem_id"], r["max_thinking_tokens"]) for r in after[len(before) :]] == [(0, 6), (1, 6)]


def test_records_of_an_earlier_version_go_on_and_report(sweep_folder, sweep_copy):
    path = sweep_copy / "records.jsonl"
    later = ("ignored_ends", "question", "format", "end_bias")
    earlier = [{k: v for k, v in one.items() if k not in later} for one in records_in(sweep_copy)]
    config = json.loads((sweep_copy / "config.json").read_text())
    del config["format"]
    (sweep_copy / "config.json").write_text(json.dumps(config))
    path.write_text("".join(json.dumps(one) + "\n" for one in earlier[::2]))
    summary, records = (sweep_copy / "summary.json").read_bytes(), evaluated(sweep_folder, sweep_copy, *GRID)
    assert records[: len(earlier[::2])] == earlier[::2] and len(records) == len(earlier)
    before, after = (json.loads(one) for one in (summary, (sweep_copy / "summary.json").read_bytes()))
    assert before["runs"] == after["runs"]


@pytest.mark.usefixtures("no_weights")
def test_other_records_are_not_mixed_in(sweep_folder, sweep_copy, tmp_path):
    shutil.copy(sweep_folder / "problems.jsonl", tmp_path)
    for overrides, word in [
        (["--max-answer-tokens", "5"], "max_answer_tokens was 6, is 5"),
        (["--stored.cache", "int8"], "stored.cache was 'float32', is 'int8'"),
        (["--model.path", str(sweep_folder / "other_model")], "model.sha256 was"),
        (["--task.path", str(tmp_path / "problems.jsonl")], "task.path was"),
    ]:
        with pytest.raises(UserError, match=f"{word}.*choose another --run-dir"):
            evaluated(sweep_folder, sweep_copy, *GRID, *overrides)


@pytest.mark.usefixtures("no_weights")
def test_runs_of_a_version_with_one_seed_go_on_and_report(sweep_folder, sweep_copy):
    config = json.loads((sweep_copy / "config.json").read_text())
    del config["seeds"]
    (sweep_copy / "config.json").write_text(json.dumps(config | {"seed": 3}))
    records = [record | {"seed": 3} for record in records_in(sweep_copy)]
    drawn = [record | {"temperature": 0.5} for record in records]
    (sweep_copy / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in (*records, *drawn)))
    evaluate.main([str(sweep_copy)])
    again = evaluated(sweep_folder, sweep_copy, *GRID)
    assert again == [*records, *drawn], "at temperature 0 no seed tells records apart"
    again = evaluated(sweep_folder, sweep_copy, *GRID, "--sampling.temperature", "0.5", "--seeds", "3")
    assert again == [*records, *drawn]


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(("field", "other"), [("gold", "99"), ("prompt_token_ids", [1, 2])])
def test_a_changed_problem_is_noticed(sweep_folder, sweep_copy, field, other):
    records = records_in(sweep_copy)
    records[7][field] = other
    (sweep_copy / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(UserError, match=f"problem {records[7]['problem_id']} .*{field}"):
        evaluated(sweep_folder, sweep_copy, *GRID)


@pytest.mark.usefixtures("no_weights")
def test_a_config_that_is_cut_off_is_told_where_records_go_by_it_and_else_written_anew(sweep_folder, sweep_copy):
    path = sweep_copy / "config.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(UserError, match=f"{path}: not JSON .*remove it: the same command then writes it again"):
        evaluated(sweep_folder, sweep_copy, *GRID)
    path.write_text('{"task": [], "model": 3}')
    with pytest.raises(UserError, match=f"{path}: model is 3; it must be an object"):
        evaluated(sweep_folder, sweep_copy, *GRID)
    path.unlink()
    before = records_in(sweep_copy)
    assert evaluated(sweep_folder, sweep_copy, *GRID) == before
    assert json.loads(path.read_text())["task"]["name"] == "jsonl"


@pytest.mark.usefixtures("no_weights")
def test_what_lies_beside_the_records_stays_and_what_is_there_twice_is_done(sweep_folder, sweep_copy, capsys):
    """A copy with a date was taken for another process's records, merged and deleted."""
    records = (sweep_copy / "records.jsonl").read_bytes()
    for name in ("records-2025-01-01.jsonl", "records-1.jsonl", "records-old.jsonl", "decoding-1.jsonl"):
        (sweep_copy / name).write_bytes(b"not a record\n" if "old" in name else records)
    (sweep_copy / "records.jsonl").write_bytes(records + records[: records.index(b"\n") + 1])
    before = {path.name: path.read_bytes() for path in sweep_copy.glob("*-*.jsonl")}
    evaluated(sweep_folder, sweep_copy, *GRID)
    assert {path.name: path.read_bytes() for path in sweep_copy.glob("*-*.jsonl")} == before and len(before) == 4
    assert capsys.readouterr().err.count("only the first of each counts") == 1
    assert json.loads((sweep_copy / "summary.json").read_text())["records"] == records.count(b"\n")


def test_a_start_that_failed_binds_to_nothing(sweep_folder, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="max_model_len 192"):
        evaluated(sweep_folder, tmp_path, "--max-answer-tokens", "500")
    monkeypatch.setattr(evaluate, "decode", lambda *_: None)
    with pytest.raises(UserError, match="contains no records"):  # what is left to say once nothing is decoded
        evaluated(sweep_folder, tmp_path, "--max-answer-tokens", "5")
