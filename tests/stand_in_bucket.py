"""Google Cloud Storage as its clients see it, in this process's memory.

It answers the part of the JSON API that gcsfs and tensorstore call: https://cloud.google.com/storage/docs/json_api.
Every object has a generation, a new one each time it is written; a request may demand one and is refused where it is
another, and 0 stands for no object. An upload in parts appears when its last part has come, not before.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

OBJECT = re.compile(r"(?:/download)?/storage/v1/b/([^/]+)/o/(.+)")
LISTING = re.compile(r"/storage/v1/b/([^/]+)/o")
UPLOAD = re.compile(r"/upload/storage/v1/b/([^/]+)/o")
COPY = re.compile(r"/storage/v1/b/([^/]+)/o/(.+)/(?:rewriteTo|copyTo)/b/([^/]+)/o/(.+)")
MOVE = re.compile(r"/storage/v1/b/([^/]+)/o/(.+)/moveTo/o/(.+)")
PAGE = 50  # objects of a listing before the next must be asked for


class Object(NamedTuple):
    """What lies under a name."""

    data: bytes
    generation: int
    updated: str


class Bucket:
    """One bucket, `name`, behind `http://127.0.0.1:PORT`; within its `with` it answers.

    `objects` may be read and changed. `fault(method, path)` may give the status code a request fails with.
    """

    def __init__(self, name: str):
        self.name, self.objects = name, dict[str, Object]()
        self._uploads = dict[str, tuple[str, bytearray]]()
        self.empty()
        self._generations, self._lock = count(1), threading.RLock()
        handler = type("Handler", (_Handler,), {"bucket": self})
        self._server = _Server(("127.0.0.1", 0), handler)

    def __enter__(self) -> Bucket:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def empty(self) -> None:
        """Takes all objects and faults away."""
        self.objects.clear()
        self.requests = list[tuple[str, str]]()
        self.fault: Callable[[str, str], int | None] = lambda method, path: None
        self.served = 0  # bytes of objects

    @property
    def environment(self) -> dict[str, str]:
        """What makes gcsfs and tensorstore call this and not Google."""
        url = f"http://127.0.0.1:{self._server.server_port}"
        without = {"NO_GCE_CHECK": "true", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}  # each asks Google itself
        return {"STORAGE_EMULATOR_HOST": url, "TENSORSTORE_GCS_HTTP_URL": url} | without

    def names(self, prefix: str = "") -> list[str]:
        """Those of all objects that begin so, in order."""
        with self._lock:
            return sorted(name for name in self.objects if name.startswith(prefix))

    def read(self, name: str) -> bytes:
        """An object's data."""
        return self.objects[name].data

    def put(self, name: str, data: bytes, wanted: int | None = None) -> Object | None:
        """Writes an object; None where it must be of another generation than it is."""
        with self._lock:
            there = self.objects.get(name)
            if wanted is not None and wanted != (there.generation if there else 0):
                return None
            updated = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
            self.objects[name] = Object(data, next(self._generations), updated)
            return self.objects[name]

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """The status, headers and body of the answer to a request."""
        split = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(split.query, keep_blank_values=True).items()}
        path = split.path
        self.requests.append((method, unquote(path)))
        if status := self.fault(method, unquote(path)):
            return _failed(status)
        if path == "/batch/storage/v1":
            return self._batch(headers, body)
        if found := COPY.fullmatch(path):
            name, to = unquote(found[2]), unquote(found[4])
            if name not in self.objects:
                return _failed(404)
            copy = self.put(to, self.objects[name].data)
            return _json({"done": True, "kind": "storage#rewriteResponse", "resource": self._about(to, copy)})
        if found := MOVE.fullmatch(path):
            name, to = unquote(found[2]), unquote(found[3])
            if name not in self.objects:
                return _failed(404)
            return _json(self._about(to, self.put(to, self.objects.pop(name).data)))
        if found := UPLOAD.fullmatch(path):
            return self._failed_or(found[1], lambda: self._upload(method, query, headers, body))
        if found := OBJECT.fullmatch(path):
            key = unquote(found[2])
            return self._failed_or(found[1], lambda: self._object(method, key, query, headers))
        if found := LISTING.fullmatch(path):
            return self._failed_or(found[1], lambda: self._list(query))
        if path == f"/storage/v1/b/{self.name}":
            return _json({"kind": "storage#bucket", "name": self.name, "id": self.name, "locationType": "region"})
        return _failed(404)

    def _failed_or(self, bucket: str, answer: Callable[[], Any]) -> Any:
        with self._lock:
            return answer() if bucket == self.name else _failed(404)

    def _object(self, method: str, name: str, query: dict[str, str], headers: Any) -> tuple[int, dict[str, str], bytes]:
        there = self.objects.get(name)
        generation = there.generation if there else 0
        if "ifGenerationMatch" in query and int(query["ifGenerationMatch"]) != generation:
            return _failed(412)
        if there is None:
            return _failed(404)
        if "ifGenerationNotMatch" in query and int(query["ifGenerationNotMatch"]) == generation:
            return 304, {}, b""
        if method == "DELETE":
            del self.objects[name]
            return 204, {}, b""
        if query.get("alt") != "media":
            return _json(self._about(name, there))
        said = {
            "Content-Type": "application/octet-stream",
            "x-goog-generation": str(generation),
            "x-goog-stored-content-length": str(len(there.data)),
            "x-goog-hash": f"md5={_md5(there.data)}",
        }
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", headers.get("Range", ""))
        if wanted is None:
            self.served += len(there.data)
            return 200, said, there.data
        size = len(there.data)
        first = int(wanted[1]) if wanted[1] else max(size - int(wanted[2]), 0)
        last = min(int(wanted[2]), size - 1) if wanted[1] and wanted[2] else size - 1
        if first >= size:
            return _failed(416)
        self.served += last + 1 - first
        return 206, said | {"Content-Range": f"bytes {first}-{last}/{size}"}, there.data[first : last + 1]

    def _upload(
        self, method: str, query: dict[str, str], headers: Any, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        wanted = int(query["ifGenerationMatch"]) if "ifGenerationMatch" in query else None
        if method == "DELETE":
            self._uploads.pop(query["upload_id"], None)
            return 499, {}, b""
        if method == "PUT" or "upload_id" in query:
            return self._upload_part(query, headers, body)
        if query["uploadType"] == "resumable":
            upload = str(next(self._generations))
            self._uploads[upload] = (query.get("name") or json.loads(body)["name"], bytearray())
            url = f"http://{headers['Host']}/upload/storage/v1/b/{self.name}/o?uploadType=resumable&upload_id={upload}"
            return 200, {"Location": url}, b""
        if query["uploadType"] == "multipart":
            about, data = _parts(headers, body)
            name, body = json.loads(about)["name"], data
        else:
            name = query["name"]
        written = self.put(name, body, wanted)
        return _failed(412) if written is None else _json(self._about(name, written))

    def _upload_part(self, query: dict[str, str], headers: Any, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if query["upload_id"] not in self._uploads:
            return _failed(404)
        name, so_far = self._uploads[query["upload_id"]]
        said = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", headers["Content-Range"])
        assert said is not None
        if said[1]:
            so_far[int(said[1]) :] = body
        if said[2] != "*" and len(so_far) == int(said[2]):
            del self._uploads[query["upload_id"]]
            return _json(self._about(name, self.put(name, bytes(so_far))))
        return 308, {"Range": f"bytes=0-{len(so_far) - 1}"} if so_far else {}, b""

    def _list(self, query: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        start, end = query.get("startOffset", ""), query.get("endOffset", "")
        entries = dict[str, bool]()  # name or, ending in the delimiter, what many names begin with
        for name in self.names(prefix):
            if name >= start and (not end or name < end):
                head, cut, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
                entries[prefix + head + cut if delimiter else name] = bool(cut)
        after = query.get("pageToken", "")
        page = [name for name in entries if name > after]
        size = min(int(query.get("maxResults", PAGE)), PAGE)
        said: dict[str, Any] = {"kind": "storage#objects"}
        said["items"] = [self._about(name, self.objects[name]) for name in page[:size] if not entries[name]]
        said["prefixes"] = [name for name in page[:size] if entries[name]]
        if len(page) > size:
            said["nextPageToken"] = page[size - 1]
        return _json(said)

    def _batch(self, headers: Any, body: bytes) -> tuple[int, dict[str, str], bytes]:
        answers = []
        for part in _parts(headers, body):
            method, target, _ = part.lstrip().split(b"\n")[0].decode().split(" ", 2)
            status, _, content = self.answer(method, target, {}, b"")
            answers.append(
                b"--part\r\nContent-Type: application/http\r\n\r\n"
                + f"HTTP/1.1 {status} {'OK' if status < 300 else 'Failed'}\r\n\r\n".encode()
                + content
                + b"\r\n"
            )
        return 200, {"Content-Type": "multipart/mixed; boundary=part"}, b"".join(answers) + b"--part--\r\n"

    def _about(self, name: str, there: Object | None) -> dict[str, Any]:
        assert there is not None
        return {
            "kind": "storage#object",
            "bucket": self.name,
            "name": name,
            "id": f"{self.name}/{name}/{there.generation}",
            "generation": str(there.generation),
            "metageneration": "1",
            "size": str(len(there.data)),
            "md5Hash": _md5(there.data),
            "updated": there.updated,
            "timeCreated": there.updated,
            "contentType": "application/octet-stream",
        }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *args: Any) -> None:
        """A client may hang up, or be killed."""


class _Handler(BaseHTTPRequestHandler):
    bucket: Bucket
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet: the second of two waits for the first to be acknowledged
    disable_nagle_algorithm = True

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        status, headers, content = self.bucket.answer(self.command, self.path, self.headers, body)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    do_GET = do_POST = do_PUT = do_DELETE = _answer

    def log_message(self, *args: Any) -> None:
        """Nothing: `Bucket.requests` has them."""


def _parts(headers: Any, body: bytes) -> list[bytes]:
    whole: Any = message_from_bytes(b"Content-Type: " + headers["Content-Type"].encode() + b"\r\n\r\n" + body)
    return [part.get_payload(decode=True) for part in whole.get_payload()]


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data).digest()).decode()


def _json(said: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json; charset=UTF-8"}, json.dumps(said).encode()


def _failed(status: int) -> tuple[int, dict[str, str], bytes]:
    message = {"error": {"code": status, "message": f"the stand-in says {status}"}}
    return status, {"Content-Type": "application/json; charset=UTF-8"}, json.dumps(message).encode()
