"""An endpoint that speaks OpenAI's protocol: what it says is told beforehand, what it is asked is kept."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class JudgeServer:
    """Within: a server at `url`.

    `says(prompt)` gives a reply, or a status, a body and perhaps headers; `asked` has every request.
    """

    def __init__(self) -> None:
        self.says: Any = lambda prompt: "yes"
        self.asked: list[tuple[dict[str, str], dict[str, Any]]] = []

    def __enter__(self) -> JudgeServer:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append((dict(self.headers), body))
                said = outer.says(body["messages"][0]["content"])
                message = {"choices": [{"message": {"content": said}}]}
                status, answer, *headers = (200, json.dumps(message)) if isinstance(said, str) else said
                self.send_response(status)
                for name, value in ({"Location": "/elsewhere"}, *headers)[-1].items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.encode())

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *args: Any) -> None:  # who asked did not wait
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
