"""An endpoint that speaks OpenAI's protocol: what it says is told beforehand, what it is asked is kept."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CUT = (0, "")  # the connection ends without a word


def completion(text: Any, finish: str | None = "stop", tokens: tuple[int, int] | None = None, **message: Any) -> str:
    """A completion's body; `message` holds further fields of the message, such as reasoning_content."""
    body: dict[str, Any] = {"choices": [{"message": {"content": text} | message, "finish_reason": finish}]}
    if tokens:
        body["usage"] = dict(zip(("prompt_tokens", "completion_tokens"), tokens, strict=True))
    return json.dumps(body)


class StandInEndpoint:
    """Within: a server at `url`.

    `says(prompt)` gives a text, or a status, a body and perhaps headers, or CUT; `asked` has every request, and
    `most_at_once` how many were under way together.
    """

    def __init__(self) -> None:
        self.says: Any = lambda prompt: "yes"
        self.asked: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.most_at_once = 0

    @property
    def prompts(self) -> list[str]:
        """What was asked."""
        return [body["messages"][0]["content"] for _, body in self.asked]

    def __enter__(self) -> StandInEndpoint:
        outer, lock, under_way = self, threading.Lock(), 0

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                nonlocal under_way
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    outer.asked.append((dict(self.headers), body))
                    under_way += 1
                    outer.most_at_once = max(outer.most_at_once, under_way)
                try:
                    said = outer.says(body["messages"][0]["content"])
                finally:
                    with lock:
                        under_way -= 1
                if said == CUT:
                    return
                status, answer, *headers = (200, completion(said)) if isinstance(said, str) else said
                self.send_response(status)
                for name, value in ({"Location": "/elsewhere"}, *headers)[-1].items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.encode())

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 64

            def handle_error(self, *args: Any) -> None:  # who asked did not wait
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
