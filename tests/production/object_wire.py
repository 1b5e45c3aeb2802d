"""A wire to an S3 store that sees how commits of Delta tables are put, and lets them meet."""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

import boto3

_COMMIT = re.compile(r"/(?P<bucket>[^/]+)/(?P<key>.+/_delta_log/[0-9]{20}\.json)")
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})


class Wire:
    """Hands requests on to a store as they are.

    Args:
        store: its address.
        contested: how many puts of one commit wait for each other, to meet in the store.
        patience: seconds for which they wait at most.
        deaf: hand a commit on as a store takes it that knows no conditions: over what is there.

    Attributes:
        puts: of each put of a commit its key, its condition, and what the store answered.
    """

    def __init__(
        self, store: str, *, contested: int = 1, patience: float = 0.2, deaf: bool = False
    ) -> None:
        self.puts: list[tuple[str, str | None, int]] = []
        self._store = urlsplit(store)
        self._contested = contested
        self._patience = patience
        self._deaf = deaf
        self._lock = threading.Lock()
        self._one_by_one = threading.Lock()
        self._meetings: dict[str, threading.Barrier] = {}
        wire = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _hand_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                code, headers, answer = wire.answer(self.command, self.path, self.headers, body)
                self.send_response_only(code)
                for name, value in headers:
                    self.send_header(name, value)
                if self.command != "HEAD":
                    self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _hand_on  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """What the store answers."""
        commit = _COMMIT.fullmatch(urlsplit(path).path) if method == "PUT" else None
        if commit is not None:
            self._meet(commit["key"])
        # Nobody sees the moment in which a deaf store's object is gone.
        with self._one_by_one if self._deaf else nullcontext():
            if commit is not None and self._deaf:
                self._client().delete_object(Bucket=commit["bucket"], Key=commit["key"])
            answer = self._ask(method, path, headers, body)
        if commit is None:
            return answer
        self.puts.append((commit["key"], headers.get("If-None-Match"), answer[0]))
        return answer

    def _meet(self, key: str) -> None:
        with self._lock:
            meeting = self._meetings.setdefault(key, threading.Barrier(self._contested))
        try:
            meeting.wait(timeout=self._patience)
        except threading.BrokenBarrierError:
            # Whoever comes alone, or after the others, goes on alone.
            return

    def _ask(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        # The host is the one that was signed.
        connection = http.client.HTTPConnection(self._store.netloc, timeout=30)
        try:
            connection.request(method, path, body or None, dict(headers.items()))
            given = connection.getresponse()
            answer = given.read()
        finally:
            connection.close()
        kept = [(n, v) for n, v in given.getheaders() if n.lower() not in _HOP]
        if method == "HEAD" and (length := given.getheader("Content-Length")):
            kept.append(("Content-Length", length))
        return given.status, kept, answer

    def _client(self) -> Any:
        return boto3.client("s3", endpoint_url=self._store.geturl())
