"""A web server on this host that answers as a test tells it to."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers as :class:`Server` was told to, 404 to everything else."""

    server: Server

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        answer = self.server.answers.get(self.path.rpartition("/")[2])
        if answer is None:
            self.send_error(404)
        elif isinstance(answer, bytes):
            self.body(answer)
        else:
            answer(self)

    def do_CONNECT(self) -> None:
        self.server.requests.append((f"CONNECT {self.path}", dict(self.headers)))
        self.send_error(502)

    def body(self, data: bytes, **headers: str | None) -> None:
        """Send a whole answer; a header of None is left out."""
        self.send_response(200)
        for name, value in {"Content_Length": str(len(data)), **headers}.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """What to answer by file name, what was asked, and an event that ends every stall."""

    daemon_threads = True

    def __init__(self, listener: socket.socket | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler, bind_and_activate=listener is None)
        if listener is not None:  # in another network namespace
            self.socket.close()
            self.socket = listener
            self.server_address = listener.getsockname()
            self.server_name, self.server_port = listener.getsockname()[:2]
        self.answers: dict[str, bytes | Answer] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.go_on = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def asked(self) -> list[str]:
        return [path.rpartition("/")[2].removesuffix(".mmdb.gz") for path, _ in self.requests]

    def handle_error(self, *_: Any) -> None:
        """Say nothing about clients that hang up."""

    def serve(self, kind: str, month: str, answer: bytes | Answer) -> None:
        self.answers[f"dbip-{kind}-lite-{month}.mmdb.gz"] = answer


@contextmanager
def serving(listener: socket.socket | None = None) -> Iterator[Server]:
    """A server that runs until the end of the block."""
    with Server(listener) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.go_on.set()
        server.shutdown()
        thread.join()
