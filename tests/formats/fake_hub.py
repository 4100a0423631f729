"""The part of the Hugging Face Hub's HTTP interface that fetching a model takes, on loopback."""

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FIRST, SECOND = "1" * 40, "2" * 40


class FakeHub:
    """`repositories[name][commit]` are files, `branches[name]` commits by revision, `requests` what was asked."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.branches: dict[str, dict[str, str]] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.cut_after: dict[str, int] = {}        # bytes of a file that are sent before the connection breaks, once
        self.sent_instead: dict[str, bytes] = {}   # what is sent where the listing states another file
        self.gated: set[str] = set()

    def add(self, name: str, files: dict[str, bytes], commit: str = FIRST, revision: str = "main") -> None:
        self.repositories.setdefault(name, {})[commit] = files
        self.branches.setdefault(name, {})[revision] = commit

    def fetched(self) -> list[str]:
        """Files that were sent, in order."""
        return [path.rsplit("/resolve/", 1)[1].split("/", 1)[1] for method, path, _ in self.requests
                if method == "GET" and "/resolve/" in path]

    def listing(self, name: str, commit: str) -> dict:
        siblings = []
        for file, content in self.repositories[name][commit].items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry = {"rfilename": file, "size": len(content), "blobId": blob}
            if file.endswith((".safetensors", ".gguf", ".bin")):
                entry["lfs"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": 134}
            siblings.append(entry)
        return {"id": name, "sha": commit, "siblings": siblings, "private": False, "tags": [], "downloads": 0}


@contextmanager
def serving(hub: FakeHub):
    """Yields the endpoint's address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            hub.requests.append((self.command, path, self.headers.get("Range")))
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/revision/(.+))?", path):
                self._describe(match[1], match[2] or "main")
            elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self._send_file(match[1], match[2], match[3])
            else:
                self._fail(404, "EntryNotFound")

        def _describe(self, name: str, revision: str) -> None:
            if name not in hub.repositories:
                self._fail(404, "RepoNotFound")
            elif name in hub.gated:
                self._fail(403, "GatedRepo")
            else:
                commit = hub.branches[name].get(revision, revision)
                if commit not in hub.repositories[name]:
                    self._fail(404, "RevisionNotFound")
                else:
                    self._answer(200, json.dumps(hub.listing(name, commit)).encode(),
                                 {"Content-Type": "application/json"})

        def _send_file(self, name: str, commit: str, file: str) -> None:
            content = hub.repositories[name][commit][file]
            etag = hashlib.sha256(content).hexdigest()
            content = hub.sent_instead.get(file, content)
            headers = {"X-Repo-Commit": commit, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
            start = 0
            if (wanted := self.headers.get("Range")) is not None:
                start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._answer(206 if start else 200, content[start:], headers, hub.cut_after.pop(file, None) if
                         self.command == "GET" else None)

        def _fail(self, status: int, code: str) -> None:
            self._answer(status, b'{"error": "no"}', {"X-Error-Code": code, "X-Error-Message": "no"})

        def _answer(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[:cut])
            if cut is not None:
                self.wfile.flush()
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
