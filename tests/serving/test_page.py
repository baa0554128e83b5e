"""The chat page: one document that loads nothing, and in a browser, against a server that speaks the wire."""

import json
import re
from base64 import b64encode
from hashlib import sha256

import pytest

from s1_jax.serving.page import page
from tests.serving.devtools import SHIFT, Browser
from tests.serving.stand_in_server import ANSWER, MODEL, PATIENCE_SECONDS, THINKING, StandInServer

HOSTILE = "<img src=x onerror=\"document.title='taken'\"></script><script>document.title='taken'</script> $\\text{<b>}$"
GROWING = "document.querySelector('.thinking').textContent.includes('First')"
BUTTONS = "[...document.querySelectorAll('.actions button')].map((one) => one.textContent)"


def test_the_page_is_one_document_that_loads_nothing():
    text = page().decode("ascii")
    assert page() is page()
    sources = re.findall(r"""(?:src|href|action|srcset)\s*=\s*["']?([^"'\s>]*)""", text.partition("<script>")[0])
    assert sources and all(source.startswith("data:") for source in sources)
    assert not re.search(r"@import|url\(|XMLHttpRequest|WebSocket|EventSource|innerHTML|eval\(|import\(", text)
    assert not re.search(r"""(["'`(])https?://(?!www\.w3\.org/)""", text)
    assert text.count("fetch(") == 1 and not re.search(r"""fetch\(["'`]""", text)
    assert re.findall(r"""ask\("([^"]*)""", text) == ["v1/models", "v1/chat/completions"]
    assert "{script" not in text and "{style" not in text


def test_only_its_own_script_and_style_may_run():
    text = page().decode("ascii")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    for name in ("script", "style"):
        (inside,) = re.findall(rf"<{name}>(.*?)</{name}>", text, re.DOTALL)
        digest = b64encode(sha256(inside.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';") and "connect-src 'self';" in policy


@pytest.fixture(scope="module")
def server():
    with StandInServer() as server:
        yield server


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def chat(server, browser):
    """The page, just opened. It may raise no error, and its policy may forbid it nothing."""
    server.reset()
    browser.resize(1400, 900)
    browser.prefer("light")
    browser.open(server.url)
    browser.does("localStorage.clear()")
    browser.wait("server.model")
    yield browser
    assert not [error for error in browser.errors if "status of 4" not in error and "status of 5" not in error]


def send(chat, text):
    chat.does("byId('message').focus()")
    chat.type(text)
    chat.press("Enter")


def ask(chat, text="What is 7 + 6?"):
    send(chat, text)
    chat.wait("running || lastTurn()?.shown")
    chat.wait("!running")


def point_after(chat, word):
    """The point of the screen at which a word of the thinking ends."""
    return chat.does(f"""(() => {{
        const walker = document.createTreeWalker(document.querySelector(".thinking"), NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) {{
            const at = walker.currentNode.data.indexOf({json.dumps(word)});
            if (at < 0) continue;
            const range = new Range();
            range.setStart(walker.currentNode, at);
            range.setEnd(walker.currentNode, at + {len(word)});
            const box = range.getBoundingClientRect();
            return [box.right - 1, (box.top + box.bottom) / 2];
        }}
    }})()""")


def choose(chat, name):
    """Press the button of this name below the thinking, and wait for the answer."""
    chat.does(f"[...document.querySelectorAll('.actions button')].find((one) => one.textContent === '{name}').click()")
    chat.wait("!running")


def test_thinking_is_shown_as_it_comes_and_then_the_answer(chat, server):
    server.holds_at = 6
    assert chat.text("#model") == "a model"
    send(chat, "What is 7 + 6?")
    chat.wait(GROWING)
    assert chat.does("running && document.querySelector('.answer').textContent === ''")
    assert chat.text("#status") == "Thinking"
    server.go.set()
    chat.wait("!running")
    assert chat.text(".question") == "You: What is 7 + 6?"
    assert chat.text(".thinking") == THINKING
    assert chat.text(".answer") == "The answer is 262=13."  # a fraction, drawn
    assert chat.does("document.querySelectorAll('.answer mfrac').length") == 1
    shown = chat.does("[...document.querySelectorAll('.numbers li')].map((one) => one.textContent)")
    assert shown[:2] == ["14 thinking tokens", "6 answer tokens"]
    assert re.fullmatch(r"[\d.,]+ tokens/s", shown[2]) and shown[3:5] == ["ended by itself", "0 cached"]
    assert re.fullmatch(r"[\d.]+ s to first token", shown[5])
    assert chat.text("#status") == "Done: 14 thinking tokens, 6 answer tokens."
    (body,) = server.asked
    assert isinstance(body.pop("seed"), int)
    assert body == {
        "model": "a model",
        "messages": [{"role": "user", "content": "What is 7 + 6?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "thinking": {"min_tokens": 1, "num_ignore": 0, "ignore_string": "Wait"},
    }


def test_controls_are_what_is_sent(chat, server):
    values = {"maximum": 6, "minimum": 3, "waits": 2, "string": "Hmm | Wait", "temperature": 1.5, "seed": 7}
    for name, value in (values | {"completion": 99, "system": "Be brief."}).items():
        chat.does(f"byId('{name}').value = '{value}'")
        chat.does(f"byId('{name}').dispatchEvent(new Event('{'input' if name == 'string' else 'change'}'))")
    assert chat.text("#sentence") == (
        "It thinks for at least 3 tokens, and is cut at 6 tokens. The first 2 times it would stop, \u201cHmm\u201d or "
        "\u201cWait\u201d is put there instead."
    )
    ask(chat)
    body = server.asked[-1]
    assert body["thinking"] == {"max_tokens": 6, "min_tokens": 3, "num_ignore": 2, "ignore_string": ["Hmm", "Wait"]}
    assert (body["temperature"], body["seed"], body["max_completion_tokens"]) == (1.5, 7, 99)
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert "cut at the maximum" in chat.text(".numbers") and chat.text(".thinking") == "First I add 7 and 6."
    chat.click("#thinking")
    ask(chat)
    assert server.asked[-1]["enable_thinking"] is False and "thinking" not in server.asked[-1]
    assert chat.does("[...document.querySelectorAll('.thoughts')].map((one) => one.hidden)") == [False, True]


def test_sliders_go_from_one_token_to_no_maximum(chat, server):
    assert chat.does("byId('maximum-slider').getAttribute('aria-valuetext')") == "no maximum"
    chat.does("byId('maximum-slider').focus()")
    chat.press("ArrowLeft")
    assert chat.does("settings.maximum") == 512  # the model's length
    chat.does("byId('minimum-slider').focus()")
    chat.press("End")
    assert chat.does("[settings.minimum, settings.maximum]") == [512, 512]
    chat.does("byId('maximum-slider').focus()")
    chat.press("Home")
    assert chat.does("[settings.minimum, settings.maximum]") == [1, 1]
    chat.press("End")
    assert chat.does("[settings.maximum, byId('maximum').value]") == [None, ""]


def test_limits_and_defaults_are_the_servers(chat, server):
    budget = {"max_tokens": None, "min_tokens": 2, "num_ignore": 1, "ignore_string": ["Wait", "Hmm"]}
    offers = MODEL["s1_jax"] | {"max_thinking_tokens": 100, "max_num_ignore": 3, "budget": budget, "example": None}
    server.model = MODEL | {"s1_jax": offers}
    chat.open(server.url)
    chat.wait("server.model")
    assert chat.does("[settings.maximum, settings.minimum, settings.waits]") == [100, 2, 1]
    assert chat.does("[byId('waits-slider').max, byId('example').hidden]") == ["3", True]
    ask(chat)
    sent = {"max_tokens": 100, "min_tokens": 2, "num_ignore": 1, "ignore_string": ["Wait", "Hmm"]}
    assert server.asked[-1]["thinking"] == sent
    server.model = MODEL | {"s1_jax": {"budget": {"max_tokens": 8, "min_tokens": 4}}}
    chat.open(server.url)
    chat.wait("server.model")
    chat.does("change({ maximum: null })")
    ask(chat)
    assert server.asked[-1]["thinking"]["max_tokens"] == -1  # none, rather than the server's
    chat.does("document.querySelector('.thinking').focus()")
    chat.press("ArrowLeft")
    choose(chat, "Answer from here")
    assert server.asked[-1]["thinking"] == {"max_tokens": 1, "min_tokens": 1}
    server.model = {"id": "bare"}  # a server that tells nothing else
    chat.open(server.url)
    chat.wait("server.model")
    ask(chat)
    assert chat.text(".thinking") == THINKING


def test_a_click_cuts_the_thinking_and_the_answer_comes_from_there(chat, server):
    ask(chat)
    assert chat.does(BUTTONS) == ["Think on from the end"]
    x, y = point_after(chat, "That is")
    for kind in ("mousePressed", "mouseReleased"):
        chat.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    assert chat.text(".dropped") == " 13.\nSo the result is 13."
    assert chat.text("#status") == "cut after \u201c\u2026I add 7 and 6. That is\u201d"
    server.answer = "13?"
    choose(chat, "Answer from here")
    body = server.asked[-1]
    given = {"role": "assistant", "reasoning_content": "First I add 7 and 6.\nThat is"}
    assert body["messages"] == [{"role": "user", "content": "What is 7 + 6?"}, given]
    assert body["continue_final_message"] is True and body["thinking"] == {"max_tokens": 1}
    assert chat.text(".thinking") == given["reasoning_content"] and chat.text(".answer") == "13?"
    assert chat.text(".numbers").startswith("8 thinking tokens1 answer token") and "cut where you chose" in chat.text(
        ".numbers"
    )
    tabs = chat.does("[...document.querySelectorAll('.tabs .how')].map((one) => one.textContent)")
    assert tabs == ["1 asked", "2 from 1: answers after \u201c\u2026I add 7 and 6. That is\u201d"]
    chat.click(".tabs button")
    assert chat.text(".thinking") == THINKING and chat.text(".answer").startswith("The answer")


def test_by_keys_the_thinking_goes_on_with_the_ignore_string(chat, server):
    ask(chat)
    chat.does("document.activeElement.blur()")
    chat.press("t")
    for key in ("ArrowUp", "ArrowUp", "ArrowLeft", "ArrowRight", "ArrowDown"):
        chat.press(key)
    assert chat.text(".dropped") == "\nSo the result is 13."
    chat.press("Enter")
    assert chat.does("document.activeElement.textContent") == "Answer from here"
    server.thinking = "First I add 7 and 6.\nThat is 13. Wait once more."
    choose(chat, "Think on from here")
    body = server.asked[-1]
    assert body["messages"][-1]["reasoning_content"] == "First I add 7 and 6.\nThat is 13. Wait"
    assert body["thinking"] == {"min_tokens": 1, "num_ignore": 0, "ignore_string": "Wait"}
    assert chat.text(".thinking .given") == "First I add 7 and 6.\nThat is 13. "
    assert chat.text(".thinking mark") == "Wait" and chat.text(".thinking .new") == " once more."
    chat.does("document.querySelector('.thinking').focus()")
    chat.press("ArrowLeft")
    chat.press("Escape")
    assert not chat.does("document.querySelector('.marker')")
    chat.click(".actions input")
    choose(chat, "Think on from the end")
    assert server.asked[-1]["messages"][-1]["reasoning_content"] == server.thinking
    assert chat.does("lastTurn().variants.length") == 3


def test_later_turns_belong_to_the_variant_they_follow(chat, server):
    ask(chat)
    chat.does("[...document.querySelectorAll('.below button')][0].click()")
    chat.wait("!running && lastTurn().variants.length === 2")
    ask(chat, "Sure?")
    answered = [{"role": "user", "content": "What is 7 + 6?"}, {"role": "assistant", "content": ANSWER}]
    assert server.asked[-1]["messages"] == [*answered, {"role": "user", "content": "Sure?"}]
    chat.click(".tabs button")
    assert chat.does("[...document.querySelectorAll('.question')].map((one) => one.textContent)") == [
        "You: What is 7 + 6?"
    ]
    chat.click(".tabs button:last-child")
    assert chat.does("document.querySelectorAll('.question').length") == 2
    chat.click("#new")
    assert chat.does("[document.querySelectorAll('.turn, .question').length, byId('welcome').hidden]") == [0, False]


def test_escape_stops_and_what_came_stays(chat, server):
    server.holds_at = 6
    send(chat, "What is 7 + 6?")
    chat.wait(GROWING)
    chat.press("Escape")
    chat.wait("!running")
    assert THINKING.startswith(chat.text(".thinking")) and chat.text(".numbers").startswith("stopped")
    server.go.set()
    assert server.hung_up.wait(PATIENCE_SECONDS)
    ask(chat, "Go on")  # a question without an answer is joined to the next
    assert server.asked[-1]["messages"] == [{"role": "user", "content": "What is 7 + 6?\n\nGo on"}]


@pytest.mark.parametrize(
    ("refusal", "breaks", "said"),
    [
        ((400, '{"error": {"message": "thinking.max_tokens is too large"}}'), "", "thinking.max_tokens is too large"),
        ((503, "busy"), "", "The server answers with status 503."),
        (None, '{"error": {"message": "the engine failed"}}', "the engine failed"),
        (None, '{"choices": []}', "The connection ended before the answer did."),
        (None, "{", "The server sent what is no JSON."),
    ],
)
def test_errors_are_shown_and_another_try_is_possible(chat, server, refusal, breaks, said):
    server.refusal, server.breaks = refusal, breaks
    ask(chat)
    assert chat.text(".error") == said
    assert chat.text(".thinking") == ("" if refusal else THINKING)
    server.refusal, server.breaks = None, ""
    chat.click(".below button")
    chat.wait("!running && lastTurn().variants.length === 2")
    assert "13" in chat.text(".answer") and not chat.does("document.querySelector('.error')")


def test_a_key_is_asked_for_and_only_kept_in_memory(chat, server):
    server.key = "secret"
    chat.open(server.url)
    chat.wait("byId('connection').open")
    assert chat.text("#problem") == "this server needs a key" and chat.does("document.activeElement.id") == "key"
    chat.type("secret")
    chat.press("Enter")
    chat.wait("server.model")
    ask(chat)
    assert server.keys[-1] == "Bearer secret" and chat.text(".thinking") == THINKING
    assert "secret" not in chat.does("JSON.stringify({ ...localStorage, ...sessionStorage }) + document.cookie")


def test_hostile_texts_are_text(chat, server):
    server.thinking, server.answer = f"a {HOSTILE}", f"b {HOSTILE} `<i>` **<u>**"
    ask(chat, HOSTILE)
    assert chat.text(".question") == f"You: {HOSTILE}" and chat.text(".thinking") == server.thinking
    assert chat.text(".answer").startswith("b <img src=x onerror=")
    assert not chat.does("document.querySelector('#turns :is(img, script, i:not(.bar i), u)')")
    assert chat.does("document.title") == "a model \u00b7 s1_jax"


def test_dark_mode_follows_the_system_until_it_is_chosen(chat, server):
    ground = "getComputedStyle(document.body).backgroundColor"
    assert chat.does(ground) == "rgb(255, 255, 255)"
    chat.prefer("dark")
    assert chat.does(ground) == "rgb(20, 23, 26)"
    chat.click("#theme")
    assert chat.does(ground) == "rgb(255, 255, 255)"
    chat.open(server.url)
    assert chat.does(ground) == "rgb(255, 255, 255)"
    refuse = "Object.defineProperty(window, 'localStorage', { get() { throw new Error('denied'); } })"
    script = chat.call("Page.addScriptToEvaluateOnNewDocument", source=refuse)["identifier"]
    chat.open(server.url)
    assert chat.does(ground) == "rgb(20, 23, 26)"
    chat.click("#theme")
    assert chat.does(ground) == "rgb(255, 255, 255)"
    chat.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)
    chat.open(server.url)


def test_everything_has_a_name_and_keys_lead_there(chat, server):
    ask(chat)
    chat.press("t")  # typed into the message
    assert chat.does("byId('message').value") == "t"
    chat.press("Enter", SHIFT)
    assert len(server.asked) == 1
    chat.does("document.activeElement.blur()")
    chat.press("?")
    assert chat.does("byId('keys').open")
    chat.press("Escape")
    assert not chat.does("byId('keys').open")
    chat.press("/")
    assert chat.does("document.activeElement.id") == "message"
    roles = {"button", "textbox", "slider", "spinbutton", "switch", "checkbox"}
    nodes = chat.call("Accessibility.getFullAXTree")["nodes"]
    named = [node.get("name", {}).get("value", "") for node in nodes if node.get("role", {}).get("value") in roles]
    assert len(named) > 15 and all(named)


def test_a_narrow_screen_shows_all_of_it(chat):
    chat.resize(360, 700)
    ask(chat)
    assert chat.does("document.documentElement.scrollWidth") == 360
    assert chat.does("byId('settings').offsetHeight") == 0
    chat.click("#open-settings")
    assert chat.does("byId('settings').offsetWidth") == 360
    chat.press("Escape")
    assert chat.does("[byId('settings').offsetHeight, document.activeElement.id]") == [0, "open-settings"]


def test_a_long_stream_arrives_whole(chat, server):
    server.delay, server.holds_at = 0.0, 3000
    server.thinking = "\n".join(f"and {i} plus {i} is {2 * i}" for i in range(1000))
    send(chat, "Count")
    chat.wait("document.querySelectorAll('.thinking .block').length > 1")
    at_end = "(({ scrollHeight, scrollTop, clientHeight }) => scrollHeight - scrollTop - clientHeight < 40)"
    assert chat.does(f"{at_end}(document.querySelector('.thinking'))")
    chat.does("document.querySelector('.thinking').scrollTop = 0")  # a reader who goes back stays there
    server.go.set()
    chat.wait("!running")
    assert chat.does("document.querySelector('.thinking').scrollTop") == 0
    assert chat.text(".thinking") == server.thinking
