"""Nothing is asked twice, nothing that was answered is lost, and whatever an endpoint does ends in a clear message."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time

import pytest

from s1_jax.config.curate import EndpointConfig
from s1_jax.curation import replies
from s1_jax.curation.answers import ENDS, REASONS_SHOWN, Answer, ask_all
from s1_jax.curation.replies import IN_A_ROW
from s1_jax.errors import RunError, UserError
from s1_jax.runtime.progress import progress_bar
from tests.curation.stand_in_endpoint import CUT, StandInEndpoint, completion
from tests.runs import PATIENCE

KEY = "sk-not-to-be-seen"
FAST = 10**6  # requests a minute
PROMPTS = ["one", "two", "three", "two", "vier und fünf"]
DIFFERENT = 4
REAL = 100  # traces
IMPATIENT = 2.0  # seconds


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("THE_KEY", KEY)
    with StandInEndpoint() as server:
        server.says = lambda prompt: (200, completion(f"{prompt}!", reasoning=f"{prompt}?", tokens=(10, 100)))
        yield server


def who(server, **options):
    defaults = {"requests_per_minute": FAST, "attempts": 1, "key_variable": "THE_KEY", "concurrent": 4}
    return EndpointConfig("org/some model", server.url, **defaults | options)


def ask(tmp_path, config, prompts=PROMPTS, stage="generate"):
    with progress_bar(shown=False) as bar:
        return ask_all(config, prompts, tmp_path / stage, bar, "teacher")


def lines(tmp_path):
    (path,) = (tmp_path / "answers").glob("*.jsonl")
    return path, path.read_bytes().splitlines()


def right(prompts=PROMPTS):
    return [Answer(f"{prompt}?", f"{prompt}!", None) for prompt in prompts]


def test_every_prompt_once_and_never_again(tmp_path, server, capsys):
    assert list(ask(tmp_path, who(server))) == right()
    assert sorted(server.prompts) == sorted(set(PROMPTS))
    assert "teacher: 4 different prompts, 4 of them sent now" in capsys.readouterr().out
    path, kept = lines(tmp_path)
    assert path.name == "org_some_model.jsonl" and len(kept) == DIFFERENT
    before = path.read_bytes()
    again = ask(tmp_path, who(server), [*PROMPTS, "six"], "another stage")
    assert list(again) == right([*PROMPTS, "six"]) and again[1:3] == right(PROMPTS[1:3])
    assert server.prompts[DIFFERENT:] == ["six"] and path.read_bytes().startswith(before)
    assert list(ask(tmp_path, who(server, concurrent=1, timeout_seconds=5))) == right()
    assert len(server.asked) == DIFFERENT + 1


def test_what_an_answer_depends_on_is_asked_anew(tmp_path, server):
    ask(tmp_path, who(server))
    ask(tmp_path, who(server, temperature=0.7))
    ask(tmp_path, EndpointConfig("another", server.url, requests_per_minute=FAST))
    assert len(server.asked) == 3 * DIFFERENT
    assert [body["temperature"] for _, body in server.asked[DIFFERENT : 2 * DIFFERENT]] == [0.7] * DIFFERENT
    assert len(list((tmp_path / "answers").iterdir())) == 2


def test_no_prompts_ask_nothing(tmp_path, server):
    assert list(ask(tmp_path, who(server), [])) == [] and not server.asked
    with pytest.raises(UserError, match="teacher: no model is set"):
        ask(tmp_path, EndpointConfig())


def test_an_answer_that_was_cut_off_counts_until_more_is_allowed(tmp_path, server):
    server.says = lambda prompt: (200, completion(prompt, "length" if prompt == "two" else "stop"))
    cut = Answer("", "two", ENDS["length"])
    assert ask(tmp_path, who(server, max_tokens=100))[1] == cut
    assert ask(tmp_path, who(server, max_tokens=50))[1] == cut
    assert len(server.asked) == DIFFERENT
    server.says = lambda prompt: f"{prompt} all of it"
    assert ask(tmp_path, who(server, max_tokens=200))[1] == Answer("", "two all of it", None)
    assert server.prompts[DIFFERENT:] == ["two"], "those that ended by themselves are the same"
    server.says = lambda prompt: (200, completion("I will", "content_filter"))
    assert ask(tmp_path, who(server), ["x"])[0].error == ENDS["content_filter"]


@pytest.mark.parametrize(
    "failure",
    [
        (429, "", {"Retry-After": "0.1"}),
        *((500, KEY), (200, completion("one!")[:20]), (200, "{}"), (200, "[]"), CUT, "", "slow"),
    ],
)
def test_each_failure_passes_or_becomes_the_rows_error(tmp_path, server, capsys, failure):
    """First it passes, then it stays: that row has an error, which is no answer, and is asked again."""
    came, over, options = set(), threading.Event(), {"timeout_seconds": IMPATIENT} if failure == "slow" else {}

    def says(prompt):
        if prompt != "two" or ("two" in came and passes):
            return f"{prompt}!"
        came.add(prompt)
        return (over.wait(PATIENCE) and "late") if failure == "slow" else failure

    server.says, passes = says, True
    config = who(server, attempts=2, **options)
    assert [answer.text for answer in ask(tmp_path / "a", config)] == [f"{prompt}!" for prompt in PROMPTS]
    passes = False
    said = ask(tmp_path / "b", who(server, **options))
    assert [answer.error is None for answer in said] == [prompt != "two" for prompt in PROMPTS]
    assert said[1] == said[3] == Answer("", "", said[1].error)
    assert "teacher: 1 have no answer" in capsys.readouterr().out
    assert len(lines(tmp_path / "b")[1]) == DIFFERENT - 1
    over.set()
    passes, asked = True, len(server.asked)
    assert ask(tmp_path / "b", config)[1].text == "two!"
    assert server.prompts[asked:] == ["two"]


def test_an_endpoint_that_answers_nothing_ends_the_run(tmp_path, server):
    server.says = lambda prompt: (500, KEY)
    with pytest.raises(RunError, match=r"teacher: org/some model answered none of 4 prompts \(status 500: 4\)"):
        ask(tmp_path, who(server))
    server.says = lambda prompt: (401, KEY)
    with pytest.raises(RunError, match="status 401") as error:
        ask(tmp_path, who(server), [str(i) for i in range(100)])
    assert KEY not in str(error.value) and len(server.asked) < DIFFERENT + 20


def test_a_key_that_an_endpoint_echoes_is_in_no_file(tmp_path, server, capsys):
    """In texts, thinking, a finish, an error's body and a header."""
    said = {
        "one": (200, completion(f"as {KEY} is", reasoning=f"{KEY}?")),
        "two": (200, completion("2", finish=KEY)),
        "three": (400, json.dumps({"error": {"message": f"bad key {KEY}"}}), {"X-Key": KEY}),
    }
    server.says = said.get
    answers = ask(tmp_path, who(server), list(said))
    assert [answer.text for answer in answers[:2]] == ["as *** is", "2"] and answers[0].thinking == "***?"
    assert "bad key ***" in answers[2].error
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files and all(KEY.encode() not in path.read_bytes() for path in files)
    server.says = lambda prompt: (302, "", {"Location": f"https://elsewhere.example/?key={KEY}"})
    with pytest.raises(RunError, match="status 302") as error:
        ask(tmp_path, who(server), ["four"])
    assert KEY not in str(list(answers)) + "".join(capsys.readouterr()) + str(error.value)


def test_an_endpoint_that_dies_ends_the_run_and_the_same_command_goes_on(tmp_path, server):
    prompts = [str(i) for i in range(200)]
    server.says = lambda prompt: "yes" if int(prompt) < 50 else (503, "")
    with pytest.raises(RunError, match=f"left {IN_A_ROW} prompts in a row unanswered, the last by status 503"):
        ask(tmp_path, who(server), prompts)
    assert len(server.asked) < 100
    _, kept = lines(tmp_path)
    assert len(kept) == 50
    server.says = lambda prompt: "yes"
    asked = len(server.asked)
    assert {answer.text for answer in ask(tmp_path, who(server), prompts)} == {"yes"}
    assert len(server.asked) == asked + 150


def test_a_torn_line_is_cut_and_a_broken_one_named(tmp_path, server):
    ask(tmp_path, who(server))
    path, kept = lines(tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    asked = len(server.asked)
    assert list(ask(tmp_path, who(server))) == right()
    assert len(server.asked) == asked + 1 and len(lines(tmp_path)[1]) == DIFFERENT
    line = json.loads(kept[0])
    wrong = [
        *({"key": ["k"]}, {"thinking": 1}, {"finish": None}, {"text": "\ud800"}, {"max_tokens": True}),
        *({"tokens_read": -1}, {"tokens_written": 10**400}, {"tokens_read": 1.5}),
    ]
    broken_lines = [b"{}", b"[]", b"half", b"[" * 100_000, *(json.dumps(line | fields).encode() for fields in wrong)]
    for broken in broken_lines:
        path.write_bytes(b"\n".join([kept[0], broken, kept[1]]) + b"\n")
        with pytest.raises(UserError, match=f"{path.name}, line 2: not an answer"):
            ask(tmp_path, who(server))
        assert path.read_bytes().count(b"\n") == 3, "nothing is thrown away"


def test_an_empty_answer_that_an_earlier_version_kept_is_asked_anew(tmp_path, server):
    ask(tmp_path, who(server))
    path, kept = lines(tmp_path)
    old = [json.loads(line) for line in kept]
    old[0] |= {"text": "", "thinking": "hm"}
    old[1] |= {"finish": "EOS"}
    path.write_text("".join(json.dumps(line) + "\n" for line in old))
    asked = len(server.asked)
    assert list(ask(tmp_path, who(server))) == right()
    assert server.prompts[asked:] == [old[0]["prompt"]]


def test_endpoints_with_other_words_for_each_prompt_do_not_fill_the_screen(tmp_path, server, capsys):
    server.says = lambda prompt: (
        "yes" if prompt == "0" else (400, json.dumps({"error": f"prompt {prompt} is too long"}))
    )
    ask(tmp_path, who(server, concurrent=1), [str(i) for i in range(12)])
    printed = capsys.readouterr().out
    assert printed.count("is too long") == REASONS_SHOWN and f"others: {11 - REASONS_SHOWN}" in printed


def test_without_a_temperature(tmp_path, server):
    ask(tmp_path, who(server, temperature=None))
    assert all("temperature" not in body for _, body in server.asked)
    ask(tmp_path, who(server, temperature=None))
    assert len(server.asked) == DIFFERENT
    ask(tmp_path, who(server, temperature=0.0))
    assert len(server.asked) == 2 * DIFFERENT, "another distribution"


def test_two_runs_that_share_their_answers_do_not_pay_for_the_same(tmp_path, server):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "answers").symlink_to(tmp_path / "answers")

    def says(prompt):
        with pytest.raises(UserError, match="other/answers/org_some_model.jsonl is being written by another run"):
            ask(tmp_path / "other", who(server))
        return "yes"

    server.says = says
    ask(tmp_path, who(server))
    assert len(lines(tmp_path)[1]) == len(server.asked) == DIFFERENT


def test_real_traces_come_back_as_they_were_written(tmp_path, server, shared_data):
    paths = sorted((shared_data / "long_cot_traces").rglob("*.jsonl"))
    rows = [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    rows = [row for row in rows if row["thinking"].strip() and row["attempt"].strip()][:REAL]
    assert len(rows) == REAL
    said = {str(i): f"<think>\n{row['thinking']}\n</think>\n\n{row['attempt']}" for i, row in enumerate(rows)}
    server.says = said.get
    answers = ask(tmp_path, who(server), list(said))
    for row, answer in zip(rows, answers, strict=True):
        assert answer == Answer(row["thinking"].strip(), row["attempt"].strip(), None)


def test_a_full_disk(tmp_path, server):
    """The kernel refuses to let any file grow past a limit, as a full disk does in the middle of a line."""
    server.says = lambda prompt: prompt * 20_000
    prompts = ["a", "b", "c", "d"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(RunError, match=r"org_some_model.jsonl cannot be written \(File too large\)"):
            ask(tmp_path, who(server, concurrent=1), prompts)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    path, kept = lines(tmp_path)
    assert len(kept) == 2 and path.read_bytes().endswith(b"\n"), "whole lines alone"
    asked = len(server.asked)
    assert [a.text[:2] for a in ask(tmp_path, who(server, concurrent=1), prompts)] == ["aa", "bb", "cc", "dd"]
    assert set(server.prompts[asked:]) == {"c", "d"}


def test_before_the_disk_is_full_no_more_is_asked_and_what_is_under_way_is_kept(tmp_path, server, monkeypatch):
    told, first = threading.Event(), iter(["0"])
    server.says = lambda prompt: "yes" if next(first, None) or told.wait(PATIENCE) else "late"
    prompts = [str(i) for i in range(50)]

    class Noticing(replies.Endpoint):
        def __init__(self, *args):
            super().__init__(*args)
            self.enough = told

    with monkeypatch.context() as patched:
        patched.setattr(replies, "ROOM", 2**80)
        patched.setattr(replies, "Endpoint", Noticing)
        with pytest.raises(RunError, match="org_some_model.jsonl is nearly full"):
            ask(tmp_path, who(server), prompts)
    most = 4 + 1  # at a time, and the one that took the place of the first
    assert len(lines(tmp_path)[1]) == len(server.asked) <= most
    ask(tmp_path, who(server), prompts)
    assert sorted(server.prompts) == sorted(prompts)


def test_an_answer_is_on_its_way_to_the_disk_before_the_next_is_asked_for(tmp_path, server):
    seen = []

    def says(prompt):
        time.sleep(0.05)
        seen.append(len(lines(tmp_path)[1]))
        return "yes"

    server.says = says
    ask(tmp_path, who(server, concurrent=1))
    assert seen == [0, 1, 2, 3]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGKILL, -9)])
def test_stopped_anywhere_what_was_answered_is_kept(tmp_path, server, number, code):
    prompts = [str(i) for i in range(40)]
    ended = threading.Event()

    def says(prompt):
        if int(prompt) < 20:
            return "yes"
        ended.wait(PATIENCE)

    server.says = says
    program = (
        "from pathlib import Path\n"
        "from s1_jax.runtime.cli import resumable, run_main; from s1_jax.runtime.progress import progress_bar\n"
        "from s1_jax.curation.answers import ask_all; from s1_jax.config.curate import EndpointConfig\n"
        f"who = EndpointConfig('m', {server.url!r}, requests_per_minute={FAST}, concurrent=4)\n"
        f"main = lambda: ask_all(who, list(map(str, range(40))), Path({str(tmp_path / 'g')!r}), progress_bar(), 'x')\n"
        "run_main(resumable()(main))"
    )
    run = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    until = time.monotonic() + PATIENCE
    while not (tmp_path / "answers").exists() or len(lines(tmp_path)[1]) < 20:
        assert time.monotonic() < until and run.poll() is None
        time.sleep(0.02)
    run.send_signal(number)
    _, said = run.communicate(timeout=PATIENCE / 2)  # what is under way would take twice as long
    ended.set()
    assert run.returncode == code, said
    assert len(lines(tmp_path)[1]) == 20
    if code > 0:
        assert "Run the same command to resume." in said.splitlines()[-1]
    server.says, asked = (lambda prompt: "yes"), len(server.asked)
    config = EndpointConfig("m", server.url, requests_per_minute=FAST)
    assert len(ask(tmp_path, config, prompts)) == 40
    assert len(server.asked) == asked + 20


def test_time_and_dollars_are_shown(tmp_path, server, capsys):
    notes = []

    with progress_bar(shown=False) as bar:
        update = bar.update

        def noted(task, **fields):
            notes.append(fields["note"])
            update(task, **fields)

        bar.update = noted
        config = who(server, dollars_per_million_tokens=(1e5, 1e4), concurrent=1)
        ask_all(config, PROMPTS, tmp_path / "generate", bar, "teacher")
        (task,) = bar.tasks
        assert (task.description, task.completed, task.total) == ("teacher", DIFFERENT, DIFFERENT)
    assert notes == ["$2.00 of about $8.00", "$4.00 of about $8.00", "$6.00 of about $8.00", "$8.00 of about $8.00"]
    assert "4 of them sent now, $8.00" in capsys.readouterr().out
    ask(tmp_path, config)
    assert "0 of them sent now, $8.00" in capsys.readouterr().out, "what all of it cost"
    server.says = lambda prompt: "a" * 400
    ask(tmp_path, config, ["b" * 40])
    assert "1 of them sent now, $2.00" in capsys.readouterr().out, "estimated where the endpoint does not count"


def test_the_key_is_in_no_file(tmp_path, server, capsys):
    server.says = lambda prompt: "yes" if prompt == "one" else (500, KEY)
    ask(tmp_path, who(server))
    assert server.asked[0][0]["Authorization"].endswith(KEY)
    path, kept = lines(tmp_path)
    assert KEY.encode() not in path.read_bytes() and KEY not in "".join(capsys.readouterr())
    assert json.loads(kept[0])["prompt"] == "one"


@pytest.mark.parametrize(
    ("options", "word"),
    [
        *(({"concurrent": 0}, "concurrent"), ({"max_tokens": -1}, "max_tokens"), ({"attempts": 0}, "attempts")),
        *(({"temperature": -0.1}, "temperature"), ({"temperature": float("nan")}, "temperature")),
        *(({"base_url": "example.org/v1"}, "http"), ({"base_url": "https://example.org/v1"}, "needs model")),
    ],
)
def test_mistakes_in_options(options, word):
    with pytest.raises(UserError, match=word):
        EndpointConfig(**options)
