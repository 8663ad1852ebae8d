"""A proxy before the S3 server that breaks chosen replies, to see what clients make of it.

Faults, each spent on one request:
    slow_down     503 SlowDown, the request is not passed on
    lost_reply    the request is carried out, its reply never arrives: the connection is reset
    cut_body      half the body arrives, then the connection is reset
    slow          the reply comes a second late
"""

import contextlib
import http.client
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_SLOW_DOWN = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)


class FaultProxy:
    """Faults wait in `faults` (oldest first) and hit requests whose line contains `on`."""

    def __init__(self, upstream: str, port: int) -> None:
        self.faults: deque[str] = deque()
        self.on = ""
        self.n_requests = 0
        self.spent: list[str] = []
        self._lock = threading.Lock()
        host, upstream_port = urlsplit(upstream).hostname, urlsplit(upstream).port
        self.upstream = (str(host), int(upstream_port or 80))
        self.server = ThreadingHTTPServer(("127.0.0.1", port), _handler_for(self))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def next_fault(self, line: str) -> str | None:
        with self._lock:
            self.n_requests += 1
            if self.faults and self.on in line:
                self.spent.append(self.faults.popleft())
                return self.spent[-1]
            return None

    @contextlib.contextmanager
    def breaking(self, *faults: str, on: str = "") -> Iterator[None]:
        """Break the next requests; at the end all faults must have been met."""
        self.faults, self.on, self.spent = deque(faults), on, []
        try:
            yield
            assert not self.faults, f"never met: {self.faults}"
        finally:
            self.faults.clear()


@contextlib.contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    proxy = FaultProxy(upstream, 0)
    thread = threading.Thread(target=proxy.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.server.shutdown()
        proxy.server.server_close()
        thread.join()


def _handler_for(proxy: FaultProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = proxy.next_fault(self.requestline)
            if fault == "slow_down":
                self.answer(503, {"Content-Type": "application/xml"}, _SLOW_DOWN, len(_SLOW_DOWN))
                return
            status, headers, data = self.upstream_reply(body)
            if fault == "lost_reply":
                self.reset()
                return
            if fault == "slow":
                time.sleep(1)
            length = int(headers.get("Content-Length", len(data)))
            self.answer(status, headers, data[: len(data) // 2] if fault == "cut_body" else data, length)
            if fault == "cut_body":
                self.reset()

        def upstream_reply(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection(*proxy.upstream, timeout=60)
            try:
                connection.request(self.command, self.path, body, dict(self.headers))
                reply = connection.getresponse()
                return reply.status, dict(reply.getheaders()), reply.read()
            finally:
                connection.close()

        def answer(self, status: int, headers: dict[str, str], data: bytes, length: int) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(data)

        def reset(self) -> None:
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    for method in ("GET", "PUT", "POST", "HEAD", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.forward)
    return Handler
