"""The same entrypoint as a Ray job: submitted to a real local cluster through Ray's own client, with token auth."""

import contextlib
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.conftest import QUESTION, ROOT
from tests.jobs.tables import assert_same_index

TERMINAL = {"SUCCEEDED", "FAILED", "STOPPED"}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def dashboard() -> Iterator[str]:
    """A head node with two cores and its dashboard on loopback; ended by its pid, with what it started."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # sockets need a short path
    port, token = free_port(), secrets.token_hex(32)
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_USAGE_STATS_ENABLED": "0"}
    auth["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # else Ray takes 127.0.0.1 for this machine's address
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus=2"]
    command += [
        "--node-ip-address=127.0.0.1",
        f"--port={free_port()}",
        "--include-dashboard=true",
        "--disable-usage-stats",
    ]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={port}", f"--temp-dir={folder}"]
    command += [
        "--object-store-memory=200000000",
        f"--ray-client-server-port={free_port()}",
        f"--dashboard-agent-listen-port={free_port()}",
    ]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in auth.items():
            patch.setenv(name, value)
        log = open(f"{folder}/head.log", "wb")  # noqa: SIM115  # the head's, for as long as it runs
        head = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            head.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                head.wait(20)
            if head.poll() is None:
                head.kill()
            shutil.rmtree(folder, ignore_errors=True)


def test_a_submitted_job_succeeds_and_leaves_the_same_rows(
    dashboard: str, archive: Path, indexed: Path, tmp_path: Path
) -> None:
    from ray.job_submission import JobSubmissionClient

    client = _connect(dashboard, JobSubmissionClient)
    output = tmp_path / "index"
    args = [
        str(archive),
        "--output",
        str(output),
        "--model",
        "builtin",
        "--question",
        QUESTION,
        "--max-new-tokens",
        "8",
    ]
    job_id = client.submit_job(
        entrypoint=shlex.join([sys.executable, "-m", "jobs.index", *args]),
        runtime_env={"working_dir": str(ROOT)},
    )
    assert _ended(client, job_id) == "SUCCEEDED", client.get_job_logs(job_id)[-3000:]
    assert_same_index(output, indexed)
    assert os.environ["RAY_AUTH_TOKEN"] not in client.get_job_logs(job_id)

    relative = client.submit_job(
        entrypoint=shlex.join(
            [sys.executable, "-m", "jobs.index", "archive", "--output", "index", "--model", "builtin"]
        ),
        runtime_env={"working_dir": str(ROOT)},
    )
    assert _ended(client, relative) == "FAILED"
    assert "relative path" in client.get_job_logs(relative)


def _connect(address: str, client: type) -> object:  # type: ignore[type-arg]
    deadline = time.monotonic() + 120
    refused: Exception | None = None
    while time.monotonic() < deadline:
        try:
            return client(address)
        except (ConnectionError, RuntimeError) as error:
            refused = error
            time.sleep(0.5)
    raise TimeoutError(f"the dashboard did not come up: {refused}")


def _ended(client: object, job_id: str) -> str:
    """Poll the job's status to a terminal one: the log tail's exit code says nothing."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        status = str(client.get_job_status(job_id).value)  # type: ignore[attr-defined]
        if status in TERMINAL:
            return status
        time.sleep(1)
    return "no terminal status in 240 s"
