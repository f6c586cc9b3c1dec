"""A web server on the loopback interface that says what a test tells it to say."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server sends once."""

    status: int = 200
    body: bytes = b"[]"
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    cut: bool = False
    """Whether the connection is lost before the body ends."""


@dataclass(slots=True)
class Server:
    """What it will say, and what it was asked."""

    answer: Callable[[str], Answer]
    port: int = 0
    asked: list[str] = field(default_factory=list)
    """Method and path of each request."""
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    @property
    def uri(self) -> str:
        return f"dicomweb+http://127.0.0.1:{self.port}/dicom-web"


def in_turn(*answers: Answer) -> Callable[[str], Answer]:
    """Answer so, whatever is asked; the last one for ever."""
    left = deque(answers)
    return lambda _: left.popleft() if len(left) > 1 else left[0]


@contextmanager
def scripted_server(*answers: Answer | Callable[[str], Answer]) -> Iterator[Server]:
    """Run a server until the block ends, with answers in turn or one rule: path → answer."""
    first = answers[0]
    script = Server(first if callable(first) else in_turn(*answers))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            script.asked.append(f"{self.command} {self.path}")
            script.headers.append(dict(self.headers))
            script.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            answer = script.answer(self.path)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body[: len(answer.body) // 2] if answer.cut else answer.body)
            self.close_connection = answer.cut

        do_POST = do_GET  # noqa: N815 (http.server's name)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        script.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield script
        finally:
            server.shutdown()
