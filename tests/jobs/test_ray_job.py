"""The same entrypoint as a Ray job: submitted to a real local cluster by `ray job submit`, with token auth."""

import contextlib
import os
import secrets
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

RAY = str(Path(sys.executable).parent / "ray")


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
    command = [RAY, "start", "--head", "--block", "--num-cpus=2"]
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
    output = tmp_path / "index"
    flags = ["--model", "builtin", "--question", QUESTION, "--max-new-tokens", "8"]
    logs = submit(dashboard, "night", [str(archive), "--output", str(output), *flags])
    assert status(dashboard, "night") == "SUCCEEDED", logs
    assert_same_index(output, indexed)
    assert os.environ["RAY_AUTH_TOKEN"] not in logs

    logs = submit(dashboard, "relative", ["archive", "--output", "index", "--model", "builtin"])
    assert status(dashboard, "relative") == "FAILED"
    assert "relative path" in logs


def submit(address: str, submission_id: str, args: list[str]) -> str:
    """`ray job submit` as README says it; what it printed to the job's end.

    In a process of its own: Ray keeps how it was first asked to authenticate for as long as a process lives.
    """
    entrypoint = [sys.executable, "-m", "jobs.index", *args]
    command = [RAY, "job", "submit", "--address", address, "--submission-id", submission_id]
    deadline = time.monotonic() + 120
    while True:
        done = subprocess.run(
            [*command, "--working-dir", str(ROOT), "--", *entrypoint], capture_output=True, text=True, timeout=240
        )
        if "Failed to connect to Ray" not in done.stderr or time.monotonic() > deadline:
            return done.stdout + done.stderr
        time.sleep(0.5)  # the dashboard is still coming up


def status(address: str, submission_id: str) -> str:
    """What Ray says became of the job: the exit code of its log's tail says nothing."""
    command = [sys.executable, "-c", _STATUS, address, submission_id]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout.strip()


_STATUS = """
import sys
from ray.job_submission import JobSubmissionClient
print(JobSubmissionClient(sys.argv[1]).get_job_status(sys.argv[2]).value)
"""
