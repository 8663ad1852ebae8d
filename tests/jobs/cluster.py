"""A cluster of several nodes on this machine: real Ray nodes with fake GPUs, real jobs, an S3 server beside it.

The head has no cores, as in ray_cluster.yaml; each worker node has two and a GPU that nobody looks for. Everything is
on loopback.
"""

import contextlib
import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from ray.job_submission import JobSubmissionClient

from tests.jobs.conftest import ROOT
from tests.s3 import BUCKET, free_ports, s3_server, variables_set

TERMINAL = {"SUCCEEDED", "FAILED", "STOPPED"}
WAIT_S = 400.0


@dataclass
class LocalCluster:
    """`address` of the dashboard, `folder` with Ray's logs, `metrics_port` of the head."""

    address: str
    folder: Path
    metrics_port: int
    token: str
    client: JobSubmissionClient
    host: subprocess.Popen[str]
    n_workers: int = 0

    def add_node(self) -> None:
        self._tell("add")
        self.n_workers += 1

    def lose_node(self, node_id: str) -> None:
        """SIGKILL a node, as when a spot instance goes."""
        self._tell(f"lose {node_id}")
        self.n_workers -= 1

    def _tell(self, command: str) -> None:
        assert self.host.stdin is not None
        assert self.host.stdout is not None
        print(command, file=self.host.stdin, flush=True)
        while not (answer := self.host.stdout.readline()).startswith("{"):  # Ray prints too
            assert answer, "the cluster's process has ended"

    def submit(self, *args: str, module: Sequence[str] = ("jobs.index",), name: str | None = None) -> str:
        """Start a job; returns its id."""
        entrypoint = shlex.join([sys.executable, "-m", *module, *args])
        found: str = self.client.submit_job(entrypoint=entrypoint, submission_id=name)
        return found

    def wait(self, job: str) -> str:
        """Its terminal status."""
        deadline = time.monotonic() + WAIT_S
        while (status := str(self.client.get_job_status(job).value)) not in TERMINAL:
            assert time.monotonic() < deadline, self.client.get_job_logs(job)[-3000:]
            time.sleep(0.5)
        return status

    def run(self, *args: str) -> str:
        """A job that must succeed; returns its log."""
        job = self.submit(*args)
        status, log = self.wait(job), str(self.client.get_job_logs(job))
        assert status == "SUCCEEDED", log[-3000:]
        return log

    def metrics(self) -> str:
        """What Prometheus would find at the head."""
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}", timeout=5) as r,
        ):
            return str(r.read().decode())
        return ""


@contextlib.contextmanager
def local_cluster(n_workers: int = 2) -> Iterator[LocalCluster]:
    """The cluster and an S3 server with an empty bucket; this process's environment leads to both."""
    folder, token, port, metrics_port = tempfile.mkdtemp(prefix="r", dir="/tmp"), secrets.token_hex(32), *free_ports(2)
    variables = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": folder,
        "RAY_metrics_report_interval_ms": "1000",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # every node has the address 127.0.0.1 then, and listens there alone
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    with s3_server() as s3_variables, variables_set({**s3_variables, **variables}):
        command = [sys.executable, "-m", "tests.jobs.cluster_host", str(port), str(metrics_port)]
        log = open(f"{folder}/host.log", "wb")  # noqa: SIM115  # the process's, for as long as it runs
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log, "text": True}
        host = subprocess.Popen(command, cwd=ROOT, **pipes)
        try:
            assert host.stdout is not None
            while not (line := host.stdout.readline()).startswith("{"):
                assert line, Path(folder, "host.log").read_text()[-3000:]
            address = f"http://127.0.0.1:{port}"
            cluster = LocalCluster(address, Path(folder), metrics_port, token, _client(address, token), host)
            for _ in range(n_workers):
                cluster.add_node()
            yield cluster
        finally:
            assert host.stdin is not None
            host.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                host.wait(60)
            host.kill()
            host.wait()
            shutil.rmtree(folder, ignore_errors=True)


def _client(address: str, token: str) -> JobSubmissionClient:
    deadline = time.monotonic() + 120
    while True:
        try:
            return JobSubmissionClient(address, headers={"Authorization": f"Bearer {token}"})
        except (ConnectionError, RuntimeError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


# --- S3, as the tests look at it --------------------------------------------------------------------------------------


def upload(folder: Path, prefix: str) -> str:
    """A folder's files under a prefix of the bucket; returns its URL."""
    client = boto3.client("s3")
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        client.upload_file(str(path), BUCKET, f"{prefix}/{path.relative_to(folder)}")
    return f"s3://{BUCKET}/{prefix}"


def download(prefix: str, folder: Path) -> Path:
    """Everything under a prefix, as files: an index that lies in S3, for whoever reads folders."""
    client = boto3.client("s3")
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/"):
        for found in page.get("Contents", []):
            path = folder / found["Key"].removeprefix(f"{prefix}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(BUCKET, found["Key"], str(path))
    return folder


def last_json(log: str) -> dict[str, Any]:
    """The line of --json."""
    found: dict[str, Any] = json.loads([line for line in log.splitlines() if line.startswith("{")][-1])
    return found
