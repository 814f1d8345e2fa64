"""A small local server that plays the Hugging Face hub, with faults on request.

It serves what `huggingface_hub` asks for: the listing of a repository, and the files with their
headers. As on the real hub a large file is a redirect to a signed address on another host ("the
CDN": the same server under its other name), and its etag is its SHA-256. Every request is recorded.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".msgpack", ".bin")
SIGNATURE = "signature=do-not-show"


@dataclass
class Repo:
    commit: str
    files: dict[str, bytes]


@dataclass
class Fault:
    """What goes wrong for the requests that match; the first match in the list counts."""

    pattern: str  # searched in "METHOD path"
    status: int | None = None  # answer with this status
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None  # answer 200 with this
    cut: int | None = None  # close the connection after so many bytes of the body
    stall: int | None = None  # send so many bytes of the body, then nothing until the server ends
    times: int = 10**9  # how often


@dataclass
class Request:
    method: str
    path: str
    range: str | None
    authorization: str | None

    @property
    def file(self) -> str:
        return self.path.rpartition("/")[2]


class FakeHub:
    def __init__(self) -> None:
        self.repos: dict[str, dict[str, Repo]] = {}  # id -> revision -> files
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.ranges = True  # False: a server that always sends the whole file
        self.over = threading.Event()
        hub = self

        class Handler(_Handler):
            fake = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(
        self,
        hub_id: str,
        files: dict[str, bytes],
        *,
        commit: str = "a" * 40,
        revision: str = "main",
    ) -> None:
        repo = Repo(commit, files)
        self.repos.setdefault(hub_id, {}).update({revision: repo, commit: repo})

    def fail(self, pattern: str, **what: object) -> Fault:
        self.faults.append(Fault(pattern, **what))  # type: ignore[arg-type]
        return self.faults[-1]

    def downloaded(self) -> list[str]:
        """The names of the files whose content was asked for, in order."""
        found = (re.search(r"/(?:resolve|cdn)/[^/]+/(.+)", r.path) for r in self.requests)
        gets = zip(self.requests, found, strict=True)
        names = [m[1] for r, m in gets if m and r.method == "GET"]
        return list(dict.fromkeys(names))

    def large(self, name: str) -> list[Request]:
        """The requests for a large file's content."""
        return [r for r in self.requests if r.path.startswith("/cdn/") and r.file == name]


class _Handler(BaseHTTPRequestHandler):
    fake: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        asked = Request(
            self.command, path, self.headers.get("Range"), self.headers.get("Authorization")
        )
        self.fake.requests.append(asked)
        fault = self._fault(f"{self.command} {path}")
        if fault.status is not None:
            return self._send(fault.status, fault.body or b"", fault.headers)
        if fault.body is not None:
            return self._send(200, fault.body, fault.headers)
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path)
        resolve = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        cdn = re.fullmatch(r"/cdn/([0-9a-f]{64})/(.+)", path)
        if cdn:
            return self._cdn(cdn[1], fault)
        match = api or resolve
        if match is None:
            return self._send(404, b"{}")
        revisions = self.fake.repos.get(match[1])
        if revisions is None:
            return self._send(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        repo = revisions.get(match[2] or "main")
        if repo is None:
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if api:
            return self._listing(match[1], repo)
        self._resolve(repo, match[3], fault)

    def _fault(self, asked: str) -> Fault:
        for fault in self.fake.faults:
            if fault.times > 0 and re.search(fault.pattern, asked):
                fault.times -= 1
                return fault
        return Fault("")

    def _listing(self, hub_id: str, repo: Repo) -> None:
        siblings = [{"rfilename": n, "size": len(data)} for n, data in repo.files.items()]
        answer = {"id": hub_id, "sha": repo.commit, "siblings": siblings}
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _resolve(self, repo: Repo, name: str, fault: Fault) -> None:
        headers = {"X-Repo-Commit": repo.commit}
        if name not in repo.files:
            return self._send(404, b"", headers | {"X-Error-Code": "EntryNotFound"})
        data = repo.files[name]
        if not name.endswith(LARGE):
            headers["ETag"] = f'"{hashlib.sha1(data).hexdigest()}"'
            return self._send(200, data, headers, fault)
        sha = hashlib.sha256(data).hexdigest()
        headers |= {"X-Linked-Etag": f'"{sha}"', "X-Linked-Size": str(len(data))}
        # as the real hub does; downloads through Xet are not played here, so nobody may try one
        headers |= {"X-Xet-Hash": sha, "X-Xet-Refresh-Route": f"{self.fake.endpoint}/xet"}
        headers["Location"] = f"http://localhost:{self.fake.port}/cdn/{sha}/{name}?{SIGNATURE}"
        self._send(302, b"", headers)

    def _cdn(self, sha: str, fault: Fault) -> None:
        for revisions in self.fake.repos.values():
            for repo in revisions.values():
                for data in repo.files.values():
                    if hashlib.sha256(data).hexdigest() == sha:
                        return self._send(200, data, {"ETag": f'"{sha}"'}, fault)
        self._send(404, b"")

    def _send(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        fault: Fault | None = None,
    ) -> None:
        headers = dict(headers or {})
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if wanted and status == 200 and self.fake.ranges:
            start = int(wanted[1])
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            body = body[start:]
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        limit = len(body)
        if fault is not None and (fault.cut is not None or fault.stall is not None):
            limit = fault.cut if fault.cut is not None else fault.stall
            self.close_connection = True
        try:
            self.wfile.write(body[:limit])
            self.wfile.flush()
        except OSError:
            self.close_connection = True  # the client went away
        if fault is not None and fault.stall is not None:
            self.fake.over.wait(60)


@contextmanager
def serve() -> Iterator[FakeHub]:
    """A running hub, which ends with the block."""
    hub = FakeHub()
    thread = threading.Thread(target=hub.server.serve_forever, args=(0.005,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.over.set()
        hub.server.shutdown()
        hub.server.server_close()
