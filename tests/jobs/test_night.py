"""jobs.night: one run a night, and the code it ended with. The real Ray is in test_cluster_jobs.py; here Kubernetes is
played by a small server that keeps RayJobs and says what KubeRay would say of them."""

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from jobs import night
from jobs.night import KubeRay, State, follow
from pipeline.errors import JobError, UsageError
from tests.jobs.conftest import ROOT

PATH = "/apis/ray.io/v1/namespaces/videos/rayjobs"
MANIFEST = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "by-hand"}, "spec": {"entrypoint": "x"}}


class Kubernetes:
    """RayJobs by name; `said` are the statuses that looking at one gives, one after the other, the last for ever."""

    def __init__(self, said: list[dict[str, str]]) -> None:
        self.said, self.jobs, self.deleted = list(said), dict[str, Any](), list[str]()
        self.broken = 0  # requests to answer with 503
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def reply(self, code: int, body: Any) -> None:
                data = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert self.headers["Authorization"] == "Bearer token-of-the-pod"
                if outer.broken:
                    outer.broken -= 1
                    self.reply(503, {})
                elif self.path != PATH:
                    self.reply(403, {"message": "forbidden"})
                elif body["metadata"]["name"] in outer.jobs:
                    self.reply(409, {"reason": "AlreadyExists"})
                else:
                    outer.jobs[body["metadata"]["name"]] = body
                    self.reply(201, body)

            def do_GET(self) -> None:
                name = self.path.removeprefix(f"{PATH}/")
                if name not in outer.jobs:
                    self.reply(404, {})
                    return
                status = outer.said.pop(0) if len(outer.said) > 1 else outer.said[0]
                self.reply(200, {**outer.jobs[name], "status": status})

            def do_DELETE(self) -> None:
                outer.deleted.append(self.path)
                self.reply(200, {})

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def client(self, namespace: str = "videos") -> KubeRay:
        return KubeRay(MANIFEST, self.url, namespace, "token-of-the-pod", None)


@contextlib.contextmanager
def kubernetes(*said: dict[str, str]) -> Iterator[Kubernetes]:
    found = Kubernetes(list(said))
    thread = threading.Thread(target=found.server.serve_forever, daemon=True)
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join()


RUNNING = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, 0),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, 143),
        ({"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed", "message": "exit 3"}, 1),
        ({"jobDeploymentStatus": "Failed", "jobStatus": "RUNNING", "reason": "DeadlineExceeded"}, 1),
    ],
)
def test_a_rayjob_is_followed_to_its_end(ending: dict[str, str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with kubernetes({}, RUNNING, ending) as cluster:
        assert follow(cluster.client(), "nightly-2026-11-21", None, 0.01) == code
        (made,) = cluster.jobs.values()
    assert made["metadata"]["name"] == made["spec"]["jobId"] == "nightly-2026-11-21"
    assert made["spec"]["entrypoint"] == "x"
    said = capsys.readouterr().out
    assert said.splitlines()[0] == "night nightly-2026-11-21: started"
    assert ending.get("reason", "") in said
    assert "token-of-the-pod" not in said


def test_a_second_start_of_the_same_night_follows_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    with kubernetes({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}) as cluster:
        for _ in range(2):
            assert follow(cluster.client(), "nightly-1", None, 0.01) == 0
        assert list(cluster.jobs) == ["nightly-1"]
    assert "started before" in capsys.readouterr().out


def test_an_api_that_stumbles_is_asked_again() -> None:
    with kubernetes({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}) as cluster:
        cluster.broken = 3
        assert follow(cluster.client(), "nightly-1", None, 0.01) == 0


def test_what_is_not_allowed_is_said_at_once() -> None:
    with kubernetes({}) as cluster, pytest.raises(UsageError, match="403"):
        follow(cluster.client("elsewhere"), "nightly-1", None, 0.01)


def test_a_job_beyond_its_deadline_is_stopped() -> None:
    with kubernetes(RUNNING) as cluster:
        assert follow(cluster.client(), "nightly-1", 0.1, 0.02) == 124
        assert cluster.deleted == [f"{PATH}/nightly-1"]


def test_a_cluster_that_is_gone_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def start(self, name: str) -> bool:
            return True

        def state(self, name: str) -> State:
            raise ConnectionRefusedError("nobody there")

        def stop(self, name: str) -> None: ...

    monkeypatch.setattr(night, "LOST_S", 0.1)
    with pytest.raises(JobError, match="not answered"):
        follow(Gone(), "nightly-1", None, 0.02)


@pytest.mark.parametrize(
    "argv",
    [[], ["--address", "http://x"], ["--rayjob", "f", "--", "s3://a"], ["--rayjob", "f"], ["--addres", "http://x"]],
)
def test_bad_usage_is_exit_2(argv: list[str]) -> None:
    command = [sys.executable, "-m", "jobs.night", *argv]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 2
