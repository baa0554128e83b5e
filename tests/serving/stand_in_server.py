"""A server that speaks the wire of s1_jax's own to the page: its model's words are tokens, told beforehand."""

from __future__ import annotations

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from s1_jax.serving.page import page

THINKING = "First I add 7 and 6.\nThat is 13.\nSo the result is 13."
ANSWER = "\nThe answer is $\\frac{26}{2} = 13$."
PATIENCE_SECONDS = 30.0
NO_MAXIMUM = -1  # on the wire
MODEL = {
    "id": "a model",
    "max_model_len": 512,
    "s1_jax": {
        "max_thinking_tokens": None,
        "max_num_ignore": 64,
        "budget": {"max_tokens": None, "min_tokens": 1, "num_ignore": 0, "ignore_string": "Wait"},
        "sampling": {"temperature": 0.5},
        "thinking": True,
        "example": "What is 7 + 6?",
    },
}


def words(text: str) -> list[str]:
    """The words of a text, each with the white space before it."""
    return re.findall(r"\s*\S+", text)


class StandInServer:
    """Within: a server at `url`. `asked` has the bodies of requests, `keys` their Authorization headers."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.hung_up = threading.Event()
        self.reset()

    def reset(self) -> None:
        """Forget what was asked, and say again what is said at first."""
        self.thinking, self.answer, self.model = THINKING, ANSWER, MODEL
        self.key: str | None = None  # that requests must bring
        self.refusal: tuple[int, str] | None = None  # status and body of the next replies
        self.breaks = ""  # a frame that is sent in place of the answer
        self.holds_at: int | None = None  # number of frames after which a stream waits for `go`
        self.go = threading.Event()
        self.delay = 0.001  # seconds after each frame
        self.asked.clear()
        self.keys.clear()
        self.hung_up.clear()

    def __enter__(self) -> StandInServer:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/":
                    self._reply(200, page(), "text/html")
                elif self.path == "/v1/models" and self._is_let_in():
                    self._reply(200, json.dumps({"object": "list", "data": [outer.model]}).encode())
                elif self.path != "/v1/models":
                    self._reply(404, b"{}")

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append(body)
                if not self._is_let_in():
                    return
                if outer.refusal:
                    self._reply(outer.refusal[0], outer.refusal[1].encode())
                    return
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                try:
                    for i, frame in enumerate(outer.frames(body)):
                        if i == outer.holds_at:
                            outer.go.wait(PATIENCE_SECONDS)
                        self.wfile.write(f"data: {frame}\n\n".encode())
                        self.wfile.flush()
                        time.sleep(outer.delay)
                except OSError:
                    outer.hung_up.set()

            def _is_let_in(self) -> bool:
                outer.keys.append(self.headers["Authorization"])
                if outer.key is None or self.headers["Authorization"] == f"Bearer {outer.key}":
                    return True
                self._reply(401, json.dumps({"error": {"message": "this server needs a key"}}).encode())
                return False

            def _reply(self, status: int, body: bytes, kind: str = "application/json") -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def frames(self, body: dict[str, Any]) -> Any:
        """The frames of an answer, as JSON."""
        budget = body.get("thinking", {})
        last = body["messages"][-1]
        given = words(last["reasoning_content"]) if body.get("continue_final_message") else []
        thought = [] if body.get("enable_thinking") is False else words(self.thinking)[len(given) :]
        most = budget.get("max_tokens", NO_MAXIMUM)
        most = 10**6 if most == NO_MAXIMUM else most
        kept = thought[: max(0, most - len(given))]
        waits = budget.get("num_ignore", 0) if len(kept) == len(thought) else 0
        for _ in range(waits):
            kept += [f"\n{budget['ignore_string']}", " again."]
        yield chunk({"role": "assistant"})
        for word in kept:
            yield chunk({"reasoning_content": word})
        if self.breaks:
            yield self.breaks
            return
        answer = words(self.answer)
        for word in answer:
            yield chunk({"content": word})
        ended = "natural" if len(given) + len(kept) < most else "forced"
        end = None if body.get("enable_thinking") is False else ended
        yield chunk({}, finish_reason="stop", thinking_end=end, ignores_used=waits)
        prompt, completion = 40 + len(given), len(kept) + len(answer)
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": 32 if given else 0},
            "completion_tokens_details": {"reasoning_tokens": len(kept)},
        }
        yield json.dumps({"choices": [], "usage": usage})
        yield "[DONE]"


def chunk(delta: dict[str, Any], **more: Any) -> str:
    """A frame with a part of the answer."""
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": None} | more]})
