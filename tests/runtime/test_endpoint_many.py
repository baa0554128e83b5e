"""Many requests to an endpoint at a time: one limit, one pause, failures by prompt, and a way to stop."""

import signal
import threading
import time

from s1_jax.config import JudgeConfig
from s1_jax.runtime.endpoint import EMPTY_TRIES, LONGEST_ASKED, POLL, Endpoint, Reply
from tests.curation.stand_in_endpoint import completion
from tests.runs import PATIENCE
from tests.runtime.asking import FAST, ask_many, endpoint


def test_many_at_a_time(server):
    together = threading.Barrier(8)  # no request is answered before eight are under way

    def says(prompt):
        together.wait(PATIENCE)
        return f"{prompt}!"

    server.says = says
    prompts = [str(i) for i in range(40)]
    replies = ask_many(endpoint(server)[0], prompts, concurrent=8)
    assert {place: reply.text for place, reply in replies.items()} == {i: f"{i}!" for i in range(40)}
    assert sorted(server.prompts) == sorted(prompts)
    assert server.most_at_once == 8


def test_many_share_one_limit(server):
    config = JudgeConfig("some-model", server.url, requests_per_minute=60 * 20)
    began = time.monotonic()
    ask_many(Endpoint(config, "the model"), ["?"] * 9, concurrent=9)
    assert time.monotonic() - began >= 8 / 20


def test_a_pause_one_is_told_of_is_one_for_all(server):
    model, came, held = Endpoint(JudgeConfig("some-model", server.url, requests_per_minute=FAST), "the model"), [], []
    hold, told, asked = model._hold, threading.Event(), iter(range(99))

    def heard(seconds):
        hold(seconds)
        held.append(time.monotonic())
        told.set()

    def says(prompt):
        if next(asked) == 0:
            return 429, "", {"Retry-After": "0.5"}
        came.append(time.monotonic())
        told.wait(PATIENCE)  # the other thread's own request
        return "yes"

    model._hold, server.says = heard, says
    ask_many(model, ["?"] * 6, concurrent=2)
    assert len(came) == 6 and len(held) == 1
    assert sum(moment < held[0] + 0.4 for moment in came) <= 1, "a request that was under way by then"


def test_failures_stay_with_their_prompts(server):
    server.says = lambda prompt: {"b": (400, ""), "c": (200, "garbage"), "d": ""}.get(prompt, "yes")
    replies = ask_many(endpoint(server)[0], list("abcde"))
    assert [replies[i].text for i in (0, 4)] == ["yes", "yes"]
    assert [replies[i].reason for i in (1, 2, 3)] == [
        "status 400",
        "not a completion in OpenAI's form",
        "an empty answer",
    ]
    assert [replies[i].of_prompt for i in (1, 2, 3)] == [True, False, True]
    assert server.prompts.count("d") == EMPTY_TRIES


def test_thinking_without_an_answer_is_empty(server):
    said = iter([completion("<think>hm"), completion("", reasoning="hm"), completion("yes", reasoning="hm")])
    server.says = lambda prompt: (200, next(said))
    assert ask_many(endpoint(server)[0], ["?"], concurrent=1)[0] == Reply("hm", "yes", "stop", 0, 0)
    server.says = lambda prompt: (200, completion("<think>hm", "length"))
    assert ask_many(endpoint(server)[0], ["?"])[0].finish == "length" and len(server.asked) == EMPTY_TRIES + 1


def test_it_ends_at_once_when_asked_to(server):
    server.says = lambda prompt: "yes" if prompt == "0" else (429, "", {"Retry-After": str(LONGEST_ASKED)})
    stop = []
    config = JudgeConfig("some-model", server.url, requests_per_minute=FAST)
    began, came = time.monotonic(), []
    for place, _ in Endpoint(config, "the model").ask_many(
        [str(i) for i in range(99)], temperature=0, max_tokens=9, concurrent=3, asked_to_stop=lambda: bool(stop)
    ):
        came.append(place)
        stop.append(True)
    assert came == [0]
    for thread in [thread for thread in threading.enumerate() if "work" in thread.name]:
        thread.join(PATIENCE)
    assert time.monotonic() - began < LONGEST_ASKED, "nobody waits for a pause of minutes"


def test_a_signal_that_is_handled_slowly_ends_it_too(server):
    ended, stop = threading.Event(), []
    server.says = lambda prompt: ended.wait(PATIENCE) and "late"
    main = threading.get_ident()

    def slowly(number, frame):
        time.sleep(2 * POLL)
        stop.append(True)

    before = signal.signal(signal.SIGUSR1, slowly)
    try:
        model = Endpoint(JudgeConfig("some-model", server.url, requests_per_minute=FAST), "the model")
        threading.Timer(POLL, signal.pthread_kill, (main, signal.SIGUSR1)).start()
        assert ask_many(model, ["?"], asked_to_stop=lambda: bool(stop)) == {}
    finally:
        signal.signal(signal.SIGUSR1, before)
        ended.set()


def test_once_there_is_enough_what_is_under_way_still_comes(server):
    """But nothing is asked again, and nobody waits for a pause to end."""
    config = JudgeConfig("some-model", server.url, requests_per_minute=FAST)
    model, came, began = Endpoint(config, "the model"), [], time.monotonic()
    together = threading.Barrier(4)

    def says(prompt):
        if int(prompt) < 4:
            together.wait(PATIENCE)
        if prompt == "3":
            return 429, "", {"Retry-After": str(LONGEST_ASKED)}
        if prompt != "0":
            model.enough.wait(PATIENCE)
        return "yes"

    server.says = says
    for place, _ in model.ask_many([str(i) for i in range(50)], temperature=0, max_tokens=9, concurrent=4):
        came.append(place)
        model.enough.set()
    assert time.monotonic() - began < LONGEST_ASKED
    taken = len(server.asked) - 4  # in the moment before it was enough
    assert sorted(came) == [0, 1, 2, 4][: 3 + taken] and taken <= 1
