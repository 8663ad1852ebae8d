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
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from ray.cluster_utils import Cluster
from ray.job_submission import JobSubmissionClient

from tests.jobs.conftest import ROOT
from tests.s3 import BUCKET, free_ports, s3_server, variables_set

TERMINAL = {"SUCCEEDED", "FAILED", "STOPPED"}
WAIT_S = 400.0
NODE = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 200_000_000}


@dataclass
class LocalCluster:
    """`address` of the dashboard, `folder` with Ray's logs, `metrics_port` of the head."""

    address: str
    folder: Path
    metrics_port: int
    token: str
    client: JobSubmissionClient
    nodes: Cluster
    workers: list[Any] = field(default_factory=list)

    def add_node(self) -> None:
        self.workers.append(self.nodes.add_node(**NODE))

    def lose_node(self, node_id: str) -> None:
        """SIGKILL a node, as when a spot instance goes."""
        (lost,) = (node for node in self.workers if node.node_id == node_id)
        self.workers.remove(lost)
        self.nodes.remove_node(lost, allow_graceful=False)

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
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    with s3_server() as s3_variables, variables_set({**s3_variables, **variables}):
        head = {
            "num_cpus": 0,
            "include_dashboard": True,
            "dashboard_host": "127.0.0.1",
            "dashboard_port": port,
            "metrics_export_port": metrics_port,
            "object_store_memory": 200_000_000,
        }
        nodes = Cluster(initialize_head=True, head_node_args=head)
        try:
            address = f"http://127.0.0.1:{port}"
            cluster = LocalCluster(address, Path(folder), metrics_port, token, _client(address), nodes)
            for _ in range(n_workers):
                cluster.add_node()
            nodes.wait_for_nodes()
            yield cluster
        finally:
            nodes.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


def _client(address: str) -> JobSubmissionClient:
    deadline = time.monotonic() + 120
    while True:
        try:
            return JobSubmissionClient(address)
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
