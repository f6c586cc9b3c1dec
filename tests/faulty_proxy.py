"""A proxy on the loopback interface that spoils what a test tells it to spoil on its way."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """What happens to a request; all that is left out happens as it should."""

    delay_s: float = 0.0
    """Before anything is answered."""
    status: int = 0
    """Answered instead of being passed on, with `code`, as S3 tells its errors."""
    code: str = ""
    message: str = "no"
    body: bytes = b""
    """Instead of the XML that tells code and message."""
    reset: bool = False
    """The connection is reset instead of an answer."""
    cut: bool = False
    """The connection ends in the middle of the answer's body."""
    garbled: bool = False
    """One byte of the answer's body is another."""
    headers: tuple[tuple[str, str], ...] = ()
    """Of the answer, instead of those it has."""


@dataclass(slots=True)
class _Rule:
    fault: Fault
    method: str
    within: str
    left: int


@dataclass(slots=True)
class Proxy:
    """What it was asked, and what it will spoil."""

    upstream: str
    port: int = 0
    asked: list[str] = field(default_factory=list)
    """Method and path of each request, in the order they came."""
    bodies: list[bytes] = field(default_factory=list)
    _rules: list[_Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def spoil(
        self, fault: Fault, *, method: str = "", within: str = "", times: int = 1_000_000
    ) -> None:
        """Spoil the next requests of a method whose path and query hold a text."""
        self._rules.append(_Rule(fault, method, within, times))

    def forget(self) -> None:
        """Forget what was asked and what was to be spoiled."""
        self.asked.clear()
        self.bodies.clear()
        self._rules.clear()

    def count(self, start: str) -> int:
        """Return how many requests begin so ("GET /bucket/key")."""
        return sum(request.startswith(start) for request in self.asked)

    def fault_of(self, method: str, path: str, body: bytes) -> Fault:
        """Note a request, and return what is to happen to it."""
        with self._lock:
            self.asked.append(f"{method} {path}")
            self.bodies.append(body)
            for rule in self._rules:
                if rule.left and method.startswith(rule.method) and rule.within in path:
                    rule.left -= 1
                    return rule.fault
        return Fault()


@contextmanager
def faulty_proxy(upstream: str) -> Iterator[Proxy]:
    """Run a proxy before a server until the block ends."""
    proxy = Proxy(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = proxy.fault_of(self.command, self.path, body)
            time.sleep(fault.delay_s)
            if fault.reset:
                abort = struct.pack("ii", 1, 0)  # closing sends a reset
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, abort)
                self.close_connection = True
                self.connection.close()
            elif fault.status:
                self._answer(fault, fault.status, {}, _error(fault))
            else:
                self._answer(fault, *self._pass_on(body))

        do_PUT = do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815 (http.server's names)

        def _pass_on(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection(urlsplit(proxy.upstream).netloc, timeout=30)
            kept = {name: value for name, value in self.headers.items() if name != "Expect"}
            connection.request(self.command, self.path, body, kept)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            return answer.status, dict(answer.getheaders()), content

        def _answer(self, fault: Fault, status: int, headers: dict[str, str], body: bytes) -> None:
            headers = {name.title(): value for name, value in headers.items()}
            if self.command != "HEAD":
                headers["Content-Length"] = str(len(body))
            headers |= dict(fault.headers)
            self.send_response_only(status)
            for name, value in headers.items():
                if name not in {"Transfer-Encoding", "Connection"}:
                    self.send_header(name, value)
            self.end_headers()
            if fault.garbled and body:
                body = bytes([body[0] ^ 1]) + body[1:]
            if self.command != "HEAD":
                self.wfile.write(body[: len(body) // 2] if fault.cut else body)
            self.close_connection = fault.cut

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # a client that gave up waiting

    with Server(("127.0.0.1", 0), Handler) as server:
        proxy.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()


def _error(fault: Fault) -> bytes:
    if fault.body:
        return fault.body
    told = f"<Code>{fault.code}</Code><Message>{fault.message}</Message>"
    return f'<?xml version="1.0" encoding="UTF-8"?><Error>{told}</Error>'.encode()
