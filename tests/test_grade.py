"""Records are graded again from their texts, by rules and by a judge; what was there is there until all is done."""

import json
import os
import subprocess
import sys

import pytest

from s1_jax import grade
from s1_jax.cli import to_json
from s1_jax.config import EvaluateConfig, RunError, TaskConfig, UserError
from s1_jax.reporting.records import read_records, record_line
from s1_jax.tasks import judge
from tests.curation.stand_in_endpoint import StandInEndpoint
from tests.reporting.made_up import record

KEY = "sk-not-to-be-seen"
FAST = ("--judge.requests-per-minute", "1000000", "--judge.attempts", "2", "--judge.key-variable", "THE_KEY")
WRITTEN = (  # gold, what is written; correct and by what, once graded
    ("7", "07", (True, "number")),
    ("8", "9", (False, "number")),
    ("\\frac{1}{2}", "0.5", (True, "math")),
    ("3 eggs", "three eggs", (False, "math")),
    ("x", "{" * 300, (False, "undecided")),
    ("5", "", (False, "none")),
)
OPEN = 2


def text(answer):
    return f"<|im_start|>think\nhm\n<|im_start|>answer\nAnswer: {answer}<|im_end|>"


@pytest.fixture
def run_dir(tmp_path):
    """A run of an earlier version, which knew strings alone and did not say how it graded."""
    rows = [{"id": i, "problem": f"Question {i}?", "answer": gold} for i, (gold, *_) in enumerate(WRITTEN)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    config = json.loads(to_json(EvaluateConfig(task=TaskConfig("jsonl", str(tmp_path / "problems.jsonl")))))
    del config["task"]["no_letter_is_a"]
    (run_dir / "config.json").write_text(json.dumps(config))
    lines = []
    for budget in (8, 16):
        for i, (gold, answer, _) in enumerate(WRITTEN):
            fields = {"gold": gold, "text": text(answer), "max_thinking_tokens": budget}
            lines.append(record_line(record(i, False, budget, **fields)))
    (run_dir / "records.jsonl").write_text("".join(lines))
    return run_dir


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("THE_KEY", KEY)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with StandInEndpoint() as server:
        server.says = lambda prompt: "Yes." if "three eggs" in prompt else "hm, no"
        yield server


def verdicts(run_dir):
    return [(r["correct"], r["graded_by"]) for r in read_records(run_dir / "records.jsonl")]


def contents(run_dir):
    return {path.name: path.read_bytes() for path in run_dir.iterdir() if path.name != "scaling.png"}


def by_server(run_dir, server, *options):
    grade.main([str(run_dir), "--judge.base-url", server.url, "--judge.model", "some-model", *FAST, *options])


def test_by_the_rules_and_again(run_dir, capsys):
    before = read_records(run_dir / "records.jsonl")
    grade.main([str(run_dir)])
    assert verdicts(run_dir) == 2 * [verdict for *_, verdict in WRITTEN]
    after = read_records(run_dir / "records.jsonl")
    for old, new in zip(before, after, strict=True):
        graded = {"extracted_answer", "correct", "graded_by"}
        assert {k: v for k, v in old.items() if k not in graded} == {k: v for k, v in new.items() if k not in graded}
    printed = capsys.readouterr().out
    assert "12 records graded again, 4 verdicts changed" in printed
    assert "wrong, by an earlier version" in printed and "right, by math" in printed and "Control" in printed
    summary = json.loads((run_dir / "summary.json").read_text())
    assert [run["undecided"] for run in summary["runs"]] == [1, 1]
    assert f"2 answers no rule could read; a judge may: python -m s1_jax.grade {run_dir}" in printed
    first = contents(run_dir)
    grade.main([str(run_dir)])
    assert contents(run_dir) == first
    assert "0 verdicts changed" in capsys.readouterr().out


def test_the_judge_sees_what_is_open_once(run_dir, server, capsys):
    by_server(run_dir, server)
    prompts = [body["messages"][0]["content"] for _, body in server.asked]
    assert len(prompts) == OPEN and "Question 3?" in prompts[0] and "3 eggs" in prompts[0]
    expected = [verdict for *_, verdict in WRITTEN]
    expected[3] = (True, "judge")
    assert verdicts(run_dir) == 2 * expected
    assert "2 different answers were open, 2 of them asked now" in capsys.readouterr().out
    first = contents(run_dir)
    by_server(run_dir, server)
    assert contents(run_dir) == first and len(server.asked) == OPEN
    by_server(run_dir, server, "--judge.model", "another")
    assert len(server.asked) == 2 * OPEN, "what one model said is no other's word"


def test_the_judge_gives_up_and_goes_on(run_dir, server):
    before = (run_dir / "records.jsonl").read_bytes()
    said, kept = iter(["yes"]), []

    def says(prompt):
        kept.append(len(read_records(run_dir / "judge.jsonl")))
        return next(said, (500, KEY))

    server.says = says
    with pytest.raises(RunError, match="status 500"):
        by_server(run_dir, server)
    assert kept == [0, 1, 1], "a reply is on its way to the disk before the next is asked for"
    assert (run_dir / "records.jsonl").read_bytes() == before
    assert len(read_records(run_dir / "judge.jsonl")) == 1
    with (run_dir / "judge.jsonl").open("a") as file:
        file.write('{"key": "torn')
    server.says = lambda prompt: "no"
    by_server(run_dir, server)
    assert verdicts(run_dir)[3:5] == [(True, "judge"), (False, "judge")]
    assert len(read_records(run_dir / "judge.jsonl")) == OPEN


def test_the_key_is_in_no_file_and_on_no_screen(run_dir, server):
    server.says = lambda prompt: (500, KEY)
    command = [sys.executable, "-m", "s1_jax.grade", str(run_dir), "--judge.base-url", server.url]
    command += ["--judge.model", "some-model", *FAST]
    ended = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert ended.returncode == 1 and ended.stderr.splitlines()[-1].startswith("error: the judge at")
    assert server.asked[0][0]["Authorization"].endswith(KEY)
    assert KEY not in ended.stdout + ended.stderr
    assert all(KEY.encode() not in content for content in contents(run_dir).values())


def test_interrupted_anywhere_the_old_records_stand(run_dir, server, monkeypatch):
    before = (run_dir / "records.jsonl").read_bytes()

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    for where, name in ((judge.Endpoint, "ask"), (os, "fsync")):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(where, name, interrupted)
            by_server(run_dir, server)
        assert (run_dir / "records.jsonl").read_bytes() == before
    by_server(run_dir, server)
    assert verdicts(run_dir)[0] == (True, "number")
    assert not (run_dir / "records.jsonl.new").exists()


def test_a_judge_of_this_project(run_dir, tiny_model, monkeypatch):
    from tests.tokenizer import byte_tokenizer

    folder = run_dir.parent / "model"
    made = tiny_model(vocab_size=len(byte_tokenizer()), tie_word_embeddings=True, max_position_embeddings=2048)
    made.torch_model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    monkeypatch.setattr(judge, "MAX_THINKING", 4)
    grade.main([str(run_dir), "--judge.model", str(folder)])
    replies = read_records(run_dir / "judge.jsonl")
    assert len(replies) == OPEN and all(isinstance(reply["reply"], str) for reply in replies)
    assert {by for _, by in verdicts(run_dir)} <= {"number", "math", "undecided", "none", "judge"}


def test_mistakes_are_named(run_dir, tmp_path):
    for argv, word in [
        ([], "usage"),
        (["--judge.model", "m"], "usage"),
        ([str(tmp_path / "nowhere")], "no records"),
        ([str(run_dir), "--judge.modell", "m"], "did you mean --judge.model"),
        ([str(run_dir), "--judge.base-url", "http://x/v1"], "judge.model"),
    ]:
        with pytest.raises(UserError, match=word):
            grade.main(argv)


def test_help(capsys):
    with pytest.raises(SystemExit) as ended:
        grade.main(["--help"])
    assert ended.value.code == 0 and "--judge.base-url" in capsys.readouterr().out
