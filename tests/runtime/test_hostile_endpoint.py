"""An endpoint that drips, lies or tells secrets: an error in one line by the deadline, and no key anywhere."""

import gzip
import json
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from s1_jax.config import EndpointConfig, JudgeConfig
from s1_jax.errors import UserError
from s1_jax.runtime import endpoint as endpoint_module
from s1_jax.runtime.completion import LONGEST_FINISH, SHORTEST_SECRET, complaint, parse, split_thinking
from s1_jax.runtime.endpoint import Endpoint, NoAnswer, asked_pause
from s1_jax.tasks.judge import decision
from tests.curation.stand_in_endpoint import StandInEndpoint, completion
from tests.runs import PATIENCE

KEY = "sk-not-to-be-seen"
OK = completion("yes").encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CLOSED = b"Connection: close\r\n\r\n"
DRIP = 0.02  # seconds between two bytes
DEADLINE = 0.4  # seconds of a request


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("THE_KEY", KEY)


@contextmanager
def raw_server(*said, drip=b"", read=True):
    """Answers each connection with the bytes of `said`, then a byte of `drip` at a time, over and over; its port."""
    over = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection):
        with connection:
            try:
                while read and b"\r\n\r\n" not in connection.recv(2**16):
                    pass
                for part in said:
                    connection.sendall(part)
                while drip and not over.is_set():
                    for i in range(len(drip)):
                        connection.sendall(drip[i : i + 1])
                        if over.wait(DRIP):
                            return
                connection.shutdown(socket.SHUT_WR)  # closed with something unread, it would be a reset
                while connection.recv(2**16):
                    pass
            except OSError:  # who asked did not wait
                pass

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        over.set()
        listener.close()


def model(port, scheme="http", clock=time.monotonic, **options):
    defaults = {"requests_per_minute": 10**6, "attempts": 2, "key_variable": "THE_KEY", "timeout_seconds": PATIENCE}
    config = JudgeConfig("some-model", f"{scheme}://127.0.0.1:{port}/v1", **defaults | options)
    return Endpoint(config, "the model", sleep=lambda seconds: None, clock=clock)


@pytest.fixture(scope="module")
def server():
    with StandInEndpoint() as server:
        yield server


def at(server, **options):
    return model(server.url.removesuffix("/v1").rpartition(":")[2], **options)


def reason(asked):
    with pytest.raises(NoAnswer) as error:
        asked.ask("why?", temperature=0, max_tokens=9)
    said = str(error.value)
    assert KEY not in said and "\n" not in said and said.isprintable()
    return error.value.reason


SLOW = {
    "a status line": ([], b"HTTP/1.1 200 OK" + b"K" * 10_000),
    "headers": ([HEAD], b"X-Slow: 1\r\n"),
    "one header": ([HEAD + b"X-Slow: "], b"a"),
    "interim responses": ([], b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a body": ([HEAD + b"Content-Length: 100000\r\n\r\n"], b" "),
    "chunks": ([HEAD + b"Transfer-Encoding: chunked\r\n\r\n"], b"1\r\n \r\n"),
    "trailers": ([HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"], b"X-Slow: 1\r\n"),
}


@pytest.mark.parametrize("what", SLOW)
def test_what_comes_a_byte_at_a_time_ends_with_the_deadline(what):
    said, drip = SLOW[what]
    with raw_server(*said, drip=drip) as port:
        assert reason(model(port, timeout_seconds=DEADLINE, attempts=1)) == "TimeoutError"


def test_a_tls_handshake_that_drips_ends_with_the_deadline():
    with raw_server(b"\x16\x03\x03\x40\x00", drip=b"\x02\x00\x3f", read=False) as port:
        assert reason(model(port, scheme="https", timeout_seconds=DEADLINE, attempts=1)) == "TimeoutError"


def test_a_request_that_nobody_reads_ends_with_the_deadline():
    listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        asked = model(listener.getsockname()[1], timeout_seconds=DEADLINE, attempts=1)
        with pytest.raises(NoAnswer, match="TimeoutError"):
            asked.ask("?" * 2**25, temperature=0, max_tokens=9)


def test_an_error_whose_body_comes_too_late_is_that_error(monkeypatch):
    now, read = [0.0], endpoint_module._read

    def late(response, most):
        now[0] = 2.0 * PATIENCE
        return read(response, most)

    monkeypatch.setattr(endpoint_module, "_read", late)
    with raw_server(b"HTTP/1.1 400 Bad\r\nContent-Length: 100000\r\n\r\n", drip=b"a") as port:
        assert reason(model(port, clock=lambda: now[0])) == "status 400"


def test_the_first_address_that_answers_is_taken(monkeypatch):
    with raw_server(HEAD + CLOSED + OK) as port:
        asked = model(port)
        closed = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))
        open_one = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: [closed, open_one])
        assert asked.ask("?", temperature=0, max_tokens=9).text == "yes"
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: [closed])
        assert reason(asked) == "ConnectionRefusedError"
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: [])
        assert reason(asked) == "OSError"


def status(code, headers=b"", body=b""):
    return b"HTTP/1.1 %s X\r\n%s%s%s" % (code, headers, CLOSED, body)


NOT_ONE = "not a completion in OpenAI's form"
ODD = [
    (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "BadStatusLine"),
    (b"HTTP/1.1 abc OK\r\n\r\n", "BadStatusLine"),
    (b"HTTP/9.9 200 OK\r\n\r\n", "UnknownProtocol"),
    (b"\r\n\r\n", "BadStatusLine"),
    (b"\xff\xfe\x00\x1b[2J\r\n\r\n", "BadStatusLine"),
    (b"H" * 10**5, "LineTooLong"),
    (b"", "RemoteDisconnected"),
    (HEAD + b"X: " + b"a" * 10**5 + b"\r\n" + CLOSED + OK, "LineTooLong"),
    (HEAD + b"X: a\r\n" * 1000 + CLOSED + OK, "HTTPException"),
    (HEAD + b"Content-Length: 9999999\r\n\r\n" + OK[:20], NOT_ONE),
    (HEAD + b"Content-Length: -5\r\n" + CLOSED + OK[:20], NOT_ONE),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n", "IncompleteRead"),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabc\r\n0\r\n\r\n", "IncompleteRead"),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\nabc", "IncompleteRead"),
    (HEAD + b"Content-Encoding: gzip\r\n" + CLOSED + gzip.compress(OK), NOT_ONE),
    (status(b"204"), NOT_ONE),
    (status(b"200"), NOT_ONE),
    (status(b"206", body=OK[:-1]), NOT_ONE),
    (status(b"103", b"Link: </style.css>\r\n", OK), "status 103"),
    (status(b"304"), "status 304"),
    (status(b"302", b"Location: http://[\r\n"), "status 302"),
    (status(b"308", b"Location: file:///etc/passwd\r\n"), "status 308"),
    (status(b"307", b"Location: https://elsewhere.example/?api_key=" + KEY.encode() + b"\r\n"), "status 307"),
    (status(b"999"), "status 999"),
    (
        status(b"401", b"WWW-Authenticate: Basic realm=" + KEY.encode() + b"\r\n", b"no " + KEY.encode()),
        "status 401: no ***",
    ),
    (status(b"200", b"Content-Type: text/html\r\n", b"<html>welcome</html>"), NOT_ONE),
]


@pytest.mark.parametrize(("said", "why"), ODD)
def test_odd_http_is_one_line(said, why):
    with raw_server(said) as port:
        assert reason(model(port)) == why


def test_a_reply_of_another_type_or_after_an_interim_one_is_read_all_the_same():
    interim = b"HTTP/1.1 100 Continue\r\nX: a\r\n\r\n"
    with raw_server(interim * 3 + b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n" + CLOSED + OK) as port:
        assert model(port).ask("?", temperature=0, max_tokens=9).text == "yes"


def test_a_body_that_never_ends_is_read_up_to_a_bound(monkeypatch):
    monkeypatch.setattr(endpoint_module, "LONGEST_REPLY", 2**20)
    with raw_server(HEAD + CLOSED, *[b" " * 2**16] * 64) as port:
        assert reason(model(port)) == NOT_ONE


def place(**fields):
    return {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]} | fields


def choice(**fields):
    return {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"} | fields]}


def message(**fields):
    return {"choices": [{"message": {"content": "yes"} | fields, "finish_reason": "stop"}]}


DIGITS = "9" * 5000
BODIES = [
    *("", "null", "7", '"yes"', "[]", "{}", "[" * 100_000, '{"a":' * 100_000, "[" * 150 + "]" * 150, DIGITS),
    *('{"choices": ' + DIGITS + "}", '{"choices": [], "choices": []}', '{"a": NaN}', '{"a": 1e999}', "\ufeff{}"),
    completion("yes")[:-1] + f', "usage": {{"prompt_tokens": {DIGITS}}}}}',
    completion("yes")[:-1] + ', "id": 1, "id": 2}',
    *(json.dumps(place(choices=value)) for value in (None, 7, "yes", {}, {"0": 1}, [], [None], [7], ["yes"], [[]])),
    *(json.dumps(place(usage=value)) for value in (7, "many", [1], True)),
    *(
        json.dumps(place(usage={"completion_tokens": value}))
        for value in ("7", [7], {}, True, -1, 1.5, 10**13, "9" * 30)
    ),
    *(json.dumps(choice(finish_reason=value)) for value in (7, True, ["stop"], {"a": 1}, "x" * (LONGEST_FINISH + 1))),
    *(json.dumps(choice(finish_reason=value)) for value in ("\ud800", "\x1b[2J", "a\nb")),
    *(json.dumps(choice(message=value)) for value in (None, 7, "yes", [], ["yes"], {})),
    *(json.dumps(message(content=value)) for value in (None, 7, True, {}, ["yes"], [None], [[]], [{"text": 7}])),
    *(json.dumps(message(content=[{"text": value}])) for value in (None, ["a"], {"text": "a"})),
    *(json.dumps(message(content=None, refusal=value)) for value in (7, True, [1], {"a": 1})),
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_what_is_no_completion_is_asked_again_within_bounds(server, body):
    server.says, server.asked = lambda prompt: (200, body), []
    assert reason(at(server, attempts=3)).startswith(NOT_ONE)
    assert len(server.asked) == 3


def test_many_keys_are_read_in_time_that_grows_with_them(server):
    body = "{" + ",".join(f'"k{i}": {i}' for i in range(200_000)) + ', "k0": 1}'
    server.says = lambda prompt: (200, body)
    assert reason(at(server, attempts=1)) == NOT_ONE


def test_a_long_word_in_an_error_is_read_at_once():
    assert complaint("a" * 2**22 + "***", KEY).endswith(" ...")
    assert complaint(json.dumps({"error": "x" * 2**20}), "x" * 100) == ""


@pytest.mark.parametrize(
    "date", ["Mon, 99 Xyz 0001 00:00:00 +9999", "Mon, 01 Jan 0001 00:00:00 +2359", "\x00", "1 2 3"]
)
def test_a_date_that_is_none_asks_for_no_pause(date):
    assert asked_pause({"Retry-After": date, "Date": date}) == 0


@pytest.mark.parametrize(
    ("text", "given", "thinking", "answer"),
    [
        ("<think></think>" * 10**5 + "4", "", "", "4"),
        ("\n" * 10**6 + "4", "hm", "hm", "\n" * 10**6 + "4"),
        ("<think>hm</think>4" + " " * 10**6 + "x", "", "hm", "4" + " " * 10**6 + "x"),
        ("<think>hm</think>4" + "<|im_end|> " * 10**5, "", "hm", "4"),
        ("<think>" * 10**5, "", None, ""),
    ],
)
def test_long_texts_take_time_in_proportion(text, given, thinking, answer):
    assert split_thinking(text, given) in [(thinking, answer), (text.removeprefix("<think>"), answer)]


@pytest.mark.parametrize("line", ["yes" + "*" * 10**6 + "x", "*" * 10**6, "answer" + " " * 10**6])
def test_a_long_line_of_a_judge_decides_nothing(line):
    assert decision(line) is None


# Keys


@pytest.mark.parametrize("text", [f"my key is {KEY}!", KEY.upper(), f"{KEY}{KEY}"])
def test_a_key_that_the_model_writes_is_in_no_reply(server, text):
    server.says = lambda prompt: (200, completion(text, finish=KEY, reasoning=f"<{text}>"))
    reply = at(server).ask("?", temperature=0, max_tokens=9)
    assert KEY not in str(reply).lower() and "***" in reply.text and "***" in reply.thinking and reply.finish == "***"


def test_what_is_no_secret_stays_in_replies(server, monkeypatch):
    monkeypatch.setenv("THE_KEY", "EMPTY")
    assert len("EMPTY") < SHORTEST_SECRET
    server.says = lambda prompt: "the EMPTY set, ***bold***"
    assert at(server).ask("?", temperature=0, max_tokens=9).text == "the EMPTY set, ***bold***"


@pytest.mark.parametrize("key", ["sk-two words", "sk-two\nlines", "sk-\u00fcmlaut", "sk-\u2028-x", "sk-\x1b"])
def test_a_key_that_no_header_takes_is_refused_and_not_shown(monkeypatch, key):
    monkeypatch.setenv("THE_KEY", key)
    with pytest.raises(UserError, match="^the key in THE_KEY contains characters that no key has") as error:
        model(1)
    assert key not in str(error.value)


SECRET = "pa55word"
NO_SECRETS = "base_url must contain no user, password, query or fragment"
URLS = [
    (f"https://me:{SECRET}@example.org/v1", NO_SECRETS),
    (f"https://{SECRET}@example.org/v1", NO_SECRETS),
    (f"http://127.0.0.1@{SECRET}.example.org/v1", NO_SECRETS),
    (f"https://example.org/v1?api_key={SECRET}", NO_SECRETS),
    (f"https://example.org/v1#{SECRET}", NO_SECRETS),
    ("https://example.org/v1?", NO_SECRETS),
    (f"{SECRET}.example.org/v1", "base_url must begin with http:// or https://"),
    (f"file:///{SECRET}", "base_url must begin with http:// or https://"),
    (f"ftp://example.org/{SECRET}", "base_url must begin with http:// or https://"),
    ("", "base_url must begin with http"),
    (f"https:///{SECRET}", "base_url names no host"),
    (f"https://{SECRET}..org/v1", "base_url names no host"),
    (f"https://{'a' * 64}.org/{SECRET}", "base_url names no host"),
    (f"https://[::1/{SECRET}", "base_url is not a URL"),
    (f"https://[zz]/{SECRET}", "base_url"),
    (f"https://example.org:99999/{SECRET}", "base_url is not a URL"),
    (f"https://example.org:x/{SECRET}", "base_url is not a URL"),
    (f"https://example.org/{SECRET} /v1", "base_url contains characters"),
    (f"https://ex\u00e4mple.org/{SECRET}", "base_url contains characters"),
    (f"http://127.0.0.1\\@example.org/{SECRET}", "base_url contains characters"),
    (f"https://example.org/{SECRET}\r\nX: y", "base_url contains characters"),
]


@pytest.mark.parametrize(("url", "line"), URLS)
def test_urls_that_are_refused_and_not_shown(url, line):
    for made, option in ((EndpointConfig, ""), (JudgeConfig, "judge.")):
        with pytest.raises(UserError) as error:
            made("m", url)
        assert str(error.value).startswith(option + line) and SECRET not in str(error.value)


@pytest.mark.parametrize(
    "host",
    [
        *("example.org", "10.0.0.7", "0.0.0.0", "128.0.0.1", "localhost.example.org", "127.0.0.1.example.org"),
        *("[2001:db8::1]", "[::]", "127.1", "169.254.169.254"),
    ],
)
def test_plain_http_to_another_machine_has_to_be_asked_for(host):
    with pytest.raises(UserError, match=r"judge\.base_url is http:// to another machine: .*judge\.plain_http true"):
        JudgeConfig("m", f"http://{host}:8000/v1")
    JudgeConfig("m", f"http://{host}:8000/v1", plain_http=True)
    JudgeConfig("m", f"https://{host}:8000/v1")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.1", "[::1]"])
def test_plain_http_to_this_machine_is_taken(host):
    EndpointConfig("m", f"http://{host}:8000/v1")


def test_what_is_for_this_machine_goes_to_no_proxy(monkeypatch):
    with raw_server(status(b"200", body=completion("from the proxy").encode())) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy}")
        monkeypatch.delenv("no_proxy", raising=False)
        with raw_server(HEAD + CLOSED + OK) as port:
            assert model(port).ask("?", temperature=0, max_tokens=9).text == "yes"
        far = JudgeConfig("m", "http://far.example/v1", plain_http=True, attempts=1, key_variable="THE_KEY")
        assert Endpoint(far, "it").ask("?", temperature=0, max_tokens=9).text == "from the proxy"


@pytest.mark.parametrize("name", [KEY, "", "A B", "A=B", "1A", "\u00c4"])
def test_a_key_in_place_of_its_variables_name_is_refused_and_not_shown(name):
    with pytest.raises(UserError, match="^judge.key_variable must be the name of an environment variable") as error:
        JudgeConfig("m", key_variable=name)
    assert not name or name not in str(error.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("attempts", 10**6), ("attempts", 101), ("concurrent", 10**6), ("requests_per_minute", 10**400)),
        *(("timeout_seconds", float("inf")), ("timeout_seconds", 1e300), ("max_tokens", 10**30)),
    ],
)
def test_options_beyond_what_a_machine_can_do(option, value):
    with pytest.raises(UserError, match=f"^judge.{option} is .*; it must be a (whole )?number"):
        JudgeConfig("m", **{option: value})


def test_a_parsed_reply_keeps_half_a_pair_out_of_files():
    assert parse(json.loads(completion("\ud83d x", reasoning="\udc00"))).thinking == "?"
