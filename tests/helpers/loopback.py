"""An HTTP server on loopback that serves a folder, and misbehaves where it is told to.

It plays the part of the Hugging Face hub that a download needs: the listing of a repository's files
(``/api/models/OWNER/NAME[/revision/REVISION]``, also ``/api/datasets/``) and ``/OWNER/NAME/resolve/REVISION/FILE``.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Loopback:
    """A running server: where it is, what it was asked, and what it shall do wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self.requests: list[tuple[str, str, str | None]] = []
        """(method, path, Range) of each request."""
        self.faults: dict[str, list[str]] = {}
        """Path -> what the next answers do: ``cut N`` closes after N bytes, ``stall N`` sends no more after N bytes,
        ``wrong`` flips a byte, ``whole`` ignores Range (``whole cut N`` too), ``shift`` answers with another range,
        ``page`` is a web page, a number is that status."""
        self.gated: set[str] = set()
        """Paths that the hub gives to whom it knows only."""
        self.commit = COMMIT
        """Newest commit of the hub's repositories; an older one, or a branch but main, is unknown."""
        self.elsewhere = False
        """Whether the hub redirects to another host for the content of files, as it does for large ones."""
        self.released = threading.Event()

    def gets(self, path: str) -> list[str | None]:
        """Range of each GET of `path`."""
        return [asked for method, requested, asked in self.requests if (method, requested) == ("GET", path)]


@contextmanager
def serving(folder: Path) -> Iterator[Loopback]:
    """Serve `folder`, at ``server.url/FILE``; files of ``hub/OWNER/NAME/`` also as the Hugging Face hub does."""
    loopback = Loopback(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, loopback))
    server.daemon_threads = True
    loopback.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield loopback
    finally:
        loopback.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, loopback: Loopback, *arguments: object) -> None:
        self.loopback = loopback
        super().__init__(*arguments)

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        asked = self.headers.get("Range")
        self.loopback.requests.append((self.command, path, asked))
        faults = self.loopback.faults.get(path, [])
        fault = faults.pop(0) if faults and body else ""
        if path in self.loopback.gated:
            return self._end(403, {"X-Error-Code": "GatedRepo"})
        listed = re.fullmatch(r"/api/(?:models|datasets)/([\w.-]+/[\w.-]+)(?:/revision/([^/]+))?", path)
        if listed and not fault:
            return self._list(listed[1], listed[2] or "main")
        hub = re.fullmatch(r"/(?:datasets/)?([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", path)
        stored = re.fullmatch(r"/stored/(.+)", path)
        file = self.loopback.folder / (
            f"hub/{hub[1]}/{hub[3]}" if hub else f"hub/{stored[1]}" if stored else path.lstrip("/")
        )
        if hub and hub[2] not in ("main", self.loopback.commit):
            return self._end(404, {"X-Error-Code": "RevisionNotFound"})
        if fault.isdecimal() or not file.is_file():
            return self._end(int(fault or 404), {"X-Error-Code": "EntryNotFound"} if hub and not fault else {})
        if hub and self.loopback.elsewhere:
            data = file.read_bytes()
            linked = {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"'}
            # By another name of this host: to the client another host, whose headers are not the hub's.
            store = self.loopback.url.replace("127.0.0.1", "localhost")
            place = {"Location": f"{store}/stored/{hub[1]}/{hub[3]}", "X-Repo-Commit": self.loopback.commit}
            return self._end(302, linked | place)
        if fault == "page":
            return self._end(200, {"Content-Type": "text/html"}, b"<html>quota exceeded</html>")
        data = file.read_bytes()
        tag = f'"{hashlib.sha256(data).hexdigest()}"'
        start, status = 0, 200
        headers = {"ETag": tag, "Accept-Ranges": "bytes"} | ({"X-Repo-Commit": self.loopback.commit} if hub else {})
        match = re.fullmatch(r"bytes=(\d+)-\d*", asked or "")
        if match and "whole" not in fault and self.headers.get("If-Range", tag) == tag:
            start, status = int(match[1]) - (1 if fault == "shift" else 0), 206
            if start >= len(data):
                return self._end(416, {"Content-Range": f"bytes */{len(data)}"})
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if fault == "wrong":
            data = data[:-1] + bytes([data[-1] ^ 1])
        length = len(data) - start
        limited = re.search(r"(cut|stall) (\d+)", fault)
        sent = int(limited[2]) if limited else length
        self._end(status, headers | {"Content-Length": str(length)}, data[start : start + sent] if body else b"")
        if limited and limited[1] == "stall":
            self.wfile.flush()
            self.loopback.released.wait(20)
        self.close_connection = True

    def _list(self, repository: str, revision: str) -> None:
        folder = self.loopback.folder / "hub" / repository
        if not folder.is_dir():
            # The hub says this of repositories that are private, too.
            return self._end(401, {"X-Error-Code": "RepoNotFound"})
        if revision not in ("main", self.loopback.commit):
            return self._end(404, {"X-Error-Code": "RevisionNotFound"})
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        told = {"id": repository, "sha": self.loopback.commit, "siblings": [{"rfilename": file} for file in files]}
        self._end(200, {"Content-Type": "application/json"}, json.dumps(told).encode())

    def _end(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
