"""A hub on loopback: the few endpoints that fetching a model speaks to, with what they were asked."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import MappingProxyType

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """`repos`: name -> folder with its files. `gated` names need an account; `cut` files end in the middle."""

    url: str = ""
    repos: dict[str, Path] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)
    sent: dict[str, int] = field(default_factory=dict)  # bytes of each file

    def sent_of_weights(self) -> int:
        return sum(n for name, n in self.sent.items() if name.endswith(".safetensors"))


@contextmanager
def serve() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, with_body: bool) -> None:
            path = self.path.split("?")[0]
            name = "/".join(path.removeprefix("/api/models").strip("/").split("/")[:2])
            if name not in hub.repos:
                return self.reply(401, b"", {"X-Error-Code": "RepoNotFound"})
            if name in hub.gated:
                return self.reply(403, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"})
            files = sorted(p for p in hub.repos[name].iterdir() if p.is_file())
            if path.startswith("/api/models/") and "/tree/" in path:
                listing = [{"type": "file", "path": p.name, "size": p.stat().st_size, "oid": etag(p)} for p in files]
                return self.reply(200, json.dumps(listing).encode())
            if path.startswith("/api/models/"):
                info = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": p.name} for p in files]}
                return self.reply(200, json.dumps(info).encode())
            found = re.fullmatch(rf"/{re.escape(name)}/resolve/[^/]+/(.+)", path)
            file = hub.repos[name] / (found[1] if found else "none")
            if not file.is_file():
                return self.reply(404, b"", {"X-Error-Code": "EntryNotFound"})
            return self.send_file(file, with_body)

        def send_file(self, file: Path, with_body: bool) -> None:
            data, status = file.read_bytes(), 200
            headers = {"ETag": f'"{etag(file)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            if span := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                first, last = int(span[1]), min(int(span[2] or len(data) - 1), len(data) - 1)
                headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
                data, status = data[first : last + 1], 206
            if with_body:
                hub.sent[file.name] = hub.sent.get(file.name, 0) + len(data)
            self.reply(status, data, headers, with_body, is_cut=file.name in hub.cut)

        def reply(
            self,
            status: int,
            body: bytes,
            headers: Mapping[str, str] = MappingProxyType({}),
            with_body: bool = True,
            is_cut: bool = False,
        ) -> None:
            self.send_response(status)
            for header, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(header, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body[: len(body) // 2] if is_cut else body)
            if is_cut:
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
