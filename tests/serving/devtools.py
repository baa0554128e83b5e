"""A page in headless Chromium that a test clicks and types in, by the DevTools protocol over a pipe.

`tests/reporting/browser.py` shows a page in virtual time, in which a stream never comes; here time is real.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
from base64 import b64decode
from pathlib import Path
from typing import Any

from tests.reporting.browser import chromium

OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
    "--no-first-run",
)
PATIENCE_SECONDS = 30.0
LOOK_SECONDS = 0.02
CODES = {
    "Enter": 13,
    "Escape": 27,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
    "Home": 36,
    "End": 35,
    "Tab": 9,
}
SHIFT = 8


class Browser:
    """Within: a browser with one page. `errors` has what the page's console was told of errors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.errors: list[str] = []
        self._count = 0

    def __enter__(self) -> Browser:
        pipes = [*os.pipe(), *os.pipe()]
        # bash gives the browser its ends as 3 and 4, so neither may have one of these numbers before
        high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in pipes]
        for end in pipes:
            os.close(end)
        commands, self._commands, self._replies, replies = high
        shell = f'exec "$@" 3<&{commands} 4>&{replies}'
        command = ["bash", "-c", shell, "bash", chromium(), *OPTIONS, f"--user-data-dir={self.folder}", "about:blank"]
        self._process = subprocess.Popen(command, pass_fds=(commands, replies), stderr=subprocess.DEVNULL)
        os.close(commands)
        os.close(replies)
        self._rest = b""
        self._session: str | None = None
        (target,) = [one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        self._session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._commands)
        os.close(self._replies)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the protocol and give what it returns."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == self._count:
                assert "error" not in told, told["error"]
                return told["result"]
            self._note(told)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self._replies, 2**16)
            assert more, "the browser has ended"
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _note(self, told: dict[str, Any]) -> None:
        if told.get("method") == "Runtime.exceptionThrown":
            details = told["params"]["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        if told.get("method") == "Log.entryAdded" and told["params"]["entry"]["level"] == "error":
            self.errors.append(told["params"]["entry"]["text"])

    def open(self, url: str) -> None:
        """Load a page in place of the one before."""
        self.errors.clear()
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href.startsWith('http')")

    def does(self, script: str) -> Any:
        """Give the value of an expression in the page, which may be a promise."""
        told = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"].get("exception", told["exceptionDetails"])
        return told["result"].get("value")

    def wait(self, script: str) -> None:
        """Wait until an expression is true in the page."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not self.does(f"Boolean({script})"):
            assert time.monotonic() < end, f"{script} does not come true; errors: {self.errors}"
            time.sleep(LOOK_SECONDS)

    def text(self, selector: str) -> str:
        """Give the text of the first element that is meant."""
        return self.does(f"document.querySelector({json.dumps(selector)}).textContent")

    def click(self, selector: str) -> None:
        """Click the first element that is meant."""
        self.does(f"document.querySelector({json.dumps(selector)}).click()")

    def type(self, text: str) -> None:
        """Type a text where the focus is."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, modifiers: int = 0) -> None:
        """Press a key where the focus is."""
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        code = CODES.get(key, 0)
        event = {"key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        if len(key) > 1:
            event["code"] = key
        self.call("Input.dispatchKeyEvent", type="keyDown", **event, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def resize(self, width: int, height: int) -> None:
        """Give the page a size in pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def prefer(self, scheme: str) -> None:
        """Have the system prefer "light" or "dark"."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self, path: Path) -> None:
        """Save what the page looks like, as PNG."""
        path.write_bytes(b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
