"""Records are graded again from their texts, by rules and by a judge; what was there is there until all is done."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from s1_jax import grade
from s1_jax.config import EvaluateConfig, JudgeConfig, TaskConfig
from s1_jax.errors import RunError, UserError
from s1_jax.records.lines import read_records, record_line
from s1_jax.runtime.cli import to_json
from s1_jax.runtime.endpoint import Endpoint, Reply
from s1_jax.tasks.judge import decision
from tests.curation.stand_in_endpoint import StandInEndpoint, completion
from tests.reporting.made_up import record
from tests.runs import PATIENCE

KEY = "sk-not-to-be-seen"
FAST = ("--judge.requests-per-minute", "1000000", "--judge.attempts", "2", "--judge.key-variable", "THE_KEY")
WRITTEN = (  # gold, what is written; correct and by what, once graded
    ("7", "07", (True, "number")),
    ("8", "9", (False, "number")),
    ("\\frac{1}{2}", "0.5", (True, "math")),
    ("3 eggs", "three eggs", (False, "undecided")),
    ("x", "???", (False, "undecided")),
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
    assert [run["undecided"] for run in summary["runs"]] == [2, 2]
    assert (
        f"4 answers could not be decided by rules; a judge can decide them: python -m s1_jax.grade {run_dir}" in printed
    )
    first = contents(run_dir)
    grade.main([str(run_dir)])
    assert contents(run_dir) == first
    assert "0 verdicts changed" in capsys.readouterr().out


def test_equal_answers_of_several_samples_have_one_class(run_dir, capsys):
    path = run_dir / "records.jsonl"
    for wrong in (None, 5):  # never there, and out of date
        known = {} if wrong is None else {"answer_class": wrong}
        answers = ["7", "08", "8", "x=8", "", "9"]
        fields = {"gold": "8", "temperature": 1.0} | known
        path.write_text(
            "".join(
                record_line(record(1, False, 8, sample=i, text=text(answer), **fields))
                for i, answer in reversed([*enumerate(answers)])
            )
        )
        grade.main([str(run_dir)])
        found = {r["sample"]: (r["answer_class"], r["correct"]) for r in read_records(path)}
        assert [found[i] for i in range(6)] == [
            *((0, False), (1, True), (1, True), (1, True), (None, False), (2, False))
        ]
        assert "Majority:" not in capsys.readouterr().out
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["runs"][0]["majority"][-1]["k"] == 4


def test_the_judge_sees_what_is_open_once(run_dir, server, capsys):
    by_server(run_dir, server)
    prompts = sorted(server.prompts, key=lambda prompt: "Question 3?" not in prompt)  # they come in any order
    assert len(prompts) == OPEN and "Question 3?" in prompts[0] and "3 eggs" in prompts[0]
    expected = [verdict for *_, verdict in WRITTEN]
    expected[3] = (True, "judge")
    assert verdicts(run_dir) == 2 * expected
    assert "2 different answers to decide, 2 of them asked now" in capsys.readouterr().out
    first = contents(run_dir)
    by_server(run_dir, server)
    assert contents(run_dir) == first and len(server.asked) == OPEN
    by_server(run_dir, server, "--judge.model", "another")
    assert len(server.asked) == 2 * OPEN, "what one model said is no other's word"


def test_the_judge_gives_up_and_goes_on(run_dir, server):
    before = (run_dir / "records.jsonl").read_bytes()
    server.says = lambda prompt: "yes" if "three eggs" in prompt else (500, json.dumps({"error": f"busy {KEY}"}))
    with pytest.raises(RunError, match="status 500: busy [*]+") as error:
        by_server(run_dir, server)
    assert KEY not in str(error.value)
    assert (run_dir / "records.jsonl").read_bytes() == before
    assert len(read_records(run_dir / "judge.jsonl")) == 1, "what came is kept"
    with (run_dir / "judge.jsonl").open("a") as file:
        file.write('{"key": "torn')
    server.says, asked = (lambda prompt: "no"), len(server.asked)
    by_server(run_dir, server)
    assert verdicts(run_dir)[3:5] == [(True, "judge"), (False, "judge")]
    assert len(read_records(run_dir / "judge.jsonl")) == OPEN and len(server.asked) == asked + 1


def test_a_reply_is_kept_as_it_comes(run_dir, server):
    came = threading.Event()

    def says(prompt):
        if "three eggs" in prompt:
            return "yes"
        until = time.monotonic() + PATIENCE
        while not read_records(run_dir / "judge.jsonl") and time.monotonic() < until:
            time.sleep(0.02)
        came.set()
        return "no"

    server.says = says
    by_server(run_dir, server)
    assert came.is_set() and len(read_records(run_dir / "judge.jsonl")) == OPEN


WHOLE = {  # replies of judges that think
    "apart": completion("yes", reasoning_content="They are the same. No, yes."),
    "under its other name": completion("Yes.", reasoning="hm"),
    "in marks": completion("<think>\nIs it? No. Or\nyes\n</think>\n\nyes"),
    "opened by the template": completion("Is it?\nno\n</think>\nyes"),
    "as s1": completion("<|im_start|>think\nno\n<|im_start|>answer\nFinal Answer: yes<|im_end|>"),
    "as s1, special tokens left out": completion("think\nno\nanswer\nyes"),
    "in parts": completion([{"type": "thinking", "thinking": "no"}, {"type": "text", "text": "yes"}]),
    "aloud": completion("Three eggs are 3 eggs.\n\n**Yes**"),
}
NOT_WHOLE = {
    "cut while it thinks": completion(None, "length", reasoning_content="They are"),
    "cut in marks": completion("<think>yes\nyes", "length"),
    "cut at its yes": completion("yes", "length"),
    "cut, hidden thinking": completion("", "length"),
    "cut, and said to have stopped": completion("<think>yes"),
    "cut, by another word": completion("yes", "max_tokens"),
    "empty": completion(""),
    "white space": completion(" \n"),
    "thinking alone": completion("", reasoning="yes"),
    "filtered": completion("yes", "content_filter"),
    "refused": completion(None, refusal="yes"),
    "ended by something else": completion("yes", "tool_calls"),
}


def ask(tmp_path, server, *prompts):
    """As `python -m s1_jax.grade` does, without a run."""
    options = {"requests_per_minute": 10**6, "attempts": 2, "key_variable": "THE_KEY"}
    return grade.asked(JudgeConfig("some-model", server.url, **options), prompts, tmp_path / "judge.jsonl")


@pytest.mark.parametrize("kind", WHOLE)
def test_a_judge_that_reasons_decides(tmp_path, server, kind):
    server.says = lambda prompt: (200, WHOLE[kind])
    assert decision(ask(tmp_path, server, "right?")["right?"]) is True
    assert server.asked[0][1]["max_tokens"] >= 4096
    assert decision(ask(tmp_path, server, "right?")["right?"]) is True and len(server.asked) == 1


@pytest.mark.parametrize("kind", NOT_WHOLE)
def test_what_is_no_whole_reply_decides_nothing_and_is_not_kept(tmp_path, server, kind, capsys):
    server.says = lambda prompt: (200, NOT_WHOLE[kind]) if prompt == "a" else "no"
    assert ask(tmp_path, server, "a", "b") == {"b": "no"}
    assert "judge: 1 have no complete reply and stay undecided" in capsys.readouterr().out
    assert len(read_records(tmp_path / "judge.jsonl")) == 1
    server.says, asked = (lambda prompt: "yes"), len(server.asked)
    assert ask(tmp_path, server, "a", "b") == {"a": "yes", "b": "no"} and len(server.asked) == asked + 1


def test_without_a_whole_reply_an_answer_stays_undecided(run_dir, server):
    server.says = lambda prompt: (200, WHOLE["apart"] if "three eggs" in prompt else NOT_WHOLE["cut at its yes"])
    by_server(run_dir, server)
    assert verdicts(run_dir)[3:5] == [(True, "judge"), (False, "undecided")]


def test_a_judge_that_is_always_cut_is_told_what_to_do(run_dir, server):
    before = (run_dir / "records.jsonl").read_bytes()
    server.says = lambda prompt: (200, completion("<think>hm", "length"))
    with pytest.raises(RunError, match="answers none of 2 prompts .*--judge.max-tokens allows more: 2"):
        by_server(run_dir, server, "--judge.max-tokens", "100")
    assert all(body["max_tokens"] == 100 for _, body in server.asked)
    assert (run_dir / "records.jsonl").read_bytes() == before and read_records(run_dir / "judge.jsonl") == []


@pytest.mark.parametrize(
    ("reply", "asked"),
    [("yes", 0), ("No.", 0), ("", 1), ("The student", 1), ("<think>\nThe", 1), ("hm, no", 1), (None, 1)],
)
def test_what_earlier_versions_kept_counts_where_it_decides(tmp_path, server, reply, asked):
    ask(tmp_path, server, "right?")
    (line,) = read_records(tmp_path / "judge.jsonl")
    del line["finish"]
    (tmp_path / "judge.jsonl").write_text(
        record_line(line | {"reply": reply}) + record_line({"other": 1}) + record_line(line | {"key": ["k"]})
    )
    server.asked.clear()
    server.says = lambda prompt: "hm, no"
    ask(tmp_path, server, "right?")
    ask(tmp_path, server, "right?")
    assert len(server.asked) == asked, "a whole reply that decides nothing is kept"


def test_options_of_the_request(run_dir, server):
    by_server(run_dir, server, "--judge.temperature", "None", "--judge.max-tokens-field", "max_completion_tokens")
    body = server.asked[0][1]
    assert "temperature" not in body and "max_tokens" not in body and body["max_completion_tokens"] >= 4096


def test_an_endpoint_that_refuses_says_why(run_dir, server):
    sentence = "Unsupported value: 'temperature' does not support 0."
    server.says = lambda prompt: (400, json.dumps({"error": {"message": sentence}}))
    with pytest.raises(RunError) as error:
        by_server(run_dir, server)
    assert sentence in str(error.value) and "temperature None leaves it out" in str(error.value)
    assert server.url in str(error.value) and "\n" not in str(error.value)
    server.says = lambda prompt: (400, "too long") if "three eggs" in prompt else "yes"
    by_server(run_dir, server)
    assert verdicts(run_dir)[3:5] == [(False, "undecided"), (True, "judge")], "one prompt it refuses stops no other"


def test_what_it_costs(run_dir, server, capsys):
    server.says = lambda prompt: (200, completion("yes", tokens=(10, 100)))
    by_server(run_dir, server, "--judge.dollars-per-million-tokens", "1e5", "1e4")
    assert "2 of them asked now, $4.00" in capsys.readouterr().out


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

    for where, name in ((Endpoint, "ask"), (os, "fsync")):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(where, name, interrupted)
            by_server(run_dir, server)
        assert (run_dir / "records.jsonl").read_bytes() == before
    by_server(run_dir, server)
    assert verdicts(run_dir)[0] == (True, "number")
    assert not (run_dir / "records.jsonl.new").exists()


def test_a_judge_of_this_project(run_dir, tiny_model, monkeypatch, capsys):
    """Its replies go the same way: thinking off, whole ones alone kept."""
    import jax

    from s1_jax.curation import decode_here
    from s1_jax.decoding import loaded_model
    from tests.tokenizer import byte_tokenizer

    folder = run_dir.parent / "model"
    made = tiny_model(vocab_size=len(byte_tokenizer()), tie_word_embeddings=True, max_position_embeddings=2048)
    made.torch_model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    monkeypatch.setattr(loaded_model, "devices_for", lambda mesh: jax.devices()[:1])
    options = [str(run_dir), "--judge.model", str(folder), "--judge.max-tokens", "16", "--judge.concurrent", "2"]
    with pytest.raises(RunError, match="the judge answers none of 2 prompts .*--judge.max-tokens allows more"):
        grade.main(options)
    assert read_records(run_dir / "judge.jsonl") == []

    def said(who, source, prompts, show):
        assert who.max_tokens == 16 and len(prompts) == OPEN
        yield 0, Reply("no", "Yes.", "stop", 100, 10)
        yield 1, "prompt of 3,000 tokens: max_model_len is 2048"

    monkeypatch.setattr(decode_here, "decode_here", said)
    grade.main(options)
    assert len(read_records(run_dir / "judge.jsonl")) == 1 and "max_model_len is 2048" in capsys.readouterr().out
    assert sorted(by for _, by in verdicts(run_dir)[3:5]) == ["judge", "undecided"]


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
