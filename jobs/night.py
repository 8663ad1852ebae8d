"""Start tonight's run on a cluster once, wait until it has ended, and end as it did: for cron and for a CronJob.

    python -m jobs.night --address http://head:8265 -- s3://bucket/videos --output s3://bucket/index --budget 6h
    python -m jobs.night --rayjob rayjob.yaml          # in Kubernetes: KubeRay makes the cluster and removes it

What stands after `--` goes to jobs.index. The submission id is the prefix and the date: a second start on the same day
follows the first and starts nothing. The job's own terminal status decides: the log tail of `ray job submit` may
end early, and exits 0 when the job was stopped.

Exit codes: those of jobs.index where the cluster knows them; 143 the job was stopped; 124 it was still running at
--deadline, and was stopped; 1 it failed otherwise, or the cluster did not answer for ten minutes.
"""

import argparse
import http.client
import json
import os
import shlex
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import yaml

from jobs import cli
from jobs.index import duration_s
from pipeline.errors import JobError, UsageError

LOST_S = 600.0
STOPPED, TOO_LATE = 143, 124
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True)
class State:
    """Where a job stands. `code` is None until it has ended."""

    status: str
    code: int | None
    message: str


class Cluster(Protocol):
    """Something that runs one job under one name, once. Raises OSError while it cannot be reached."""

    def start(self, name: str) -> bool:
        """True when this call started it; False when it was there already."""

    def state(self, name: str) -> State: ...
    def stop(self, name: str) -> None: ...


class RayJobs:
    """A standing Ray cluster, through the REST interface of its dashboard. `token` is that of Ray's authentication."""

    def __init__(self, address: str, entrypoint: str, token: str | None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._web, self._entrypoint = _Web(address, headers), entrypoint

    def start(self, name: str) -> bool:
        if self._web.ask("GET", f"/api/jobs/{name}") is not None:
            return False
        try:
            self._web.ask("POST", "/api/jobs/", {"submission_id": name, "entrypoint": self._entrypoint})
        except OSError:
            if self._web.ask("GET", f"/api/jobs/{name}") is None:  # or another start was first, or the reply was lost
                raise
            return False
        return True

    def state(self, name: str) -> State:
        job = self._web.ask("GET", f"/api/jobs/{name}")
        if job is None:
            return State("LOST", 1, "the cluster does not know it any more: its head was replaced")
        codes = {"SUCCEEDED": 0, "STOPPED": STOPPED, "FAILED": job.get("driver_exit_code") or 1}
        return State(job["status"], codes.get(job["status"]), job.get("message") or "")

    def stop(self, name: str) -> None:
        self._web.ask("POST", f"/api/jobs/{name}/stop", {})


class KubeRay:
    """A RayJob of KubeRay, made from `manifest` through the Kubernetes API with the pod's service account."""

    def __init__(self, manifest: dict[str, Any], url: str, namespace: str, token: str, context: ssl.SSLContext | None):
        self._web = _Web(url, {"Authorization": f"Bearer {token}"}, context)
        self._manifest, self._path = manifest, f"/apis/ray.io/v1/namespaces/{namespace}/rayjobs"

    @classmethod
    def in_pod(cls, manifest: Path) -> "KubeRay":
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if host is None or not (_ACCOUNT / "token").exists():
            raise UsageError(
                "--rayjob is for a pod with a service account; elsewhere use `kubectl create`, or --address"
            )
        context = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))
        namespace, token = ((_ACCOUNT / name).read_text().strip() for name in ("namespace", "token"))
        return cls(yaml.safe_load(manifest.read_text()), f"https://{host}:{port}", namespace, token, context)

    def start(self, name: str) -> bool:
        metadata = {**self._manifest["metadata"], "name": name}
        body = {**self._manifest, "metadata": metadata, "spec": {**self._manifest["spec"], "jobId": name}}
        return self._web.ask("POST", self._path, body, exists_is_none=True) is not None

    def state(self, name: str) -> State:
        job = self._web.ask("GET", f"{self._path}/{name}")
        if job is None:
            return State("LOST", 1, "the RayJob was deleted")
        found = job.get("status") or {}
        deployment, status = found.get("jobDeploymentStatus") or "", found.get("jobStatus") or ""
        if deployment not in ("Complete", "Failed"):
            return State(status or deployment or "PENDING", None, "")
        code = {"SUCCEEDED": 0, "STOPPED": STOPPED}.get(status, 1) if deployment == "Complete" else 1
        return State(status or deployment, code, " ".join(filter(None, (found.get("reason"), found.get("message")))))

    def stop(self, name: str) -> None:
        self._web.ask("DELETE", f"{self._path}/{name}")


class _Web:
    """JSON over HTTP, with the standard library: cron's machine needs no Ray."""

    def __init__(self, url: str, headers: dict[str, str], context: ssl.SSLContext | None = None) -> None:
        self._url, self._headers, self._context = url.rstrip("/"), headers, context

    def ask(self, method: str, path: str, body: Any = None, exists_is_none: bool = False) -> Any:
        """The reply; None for 404 (and for 409, if so wished). OSError for everything else that is not success."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **self._headers}
        request = urllib.request.Request(self._url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60, context=self._context) as reply:
                return json.loads(reply.read() or b"{}")
        except urllib.error.HTTPError as error:
            if error.code == 404 or (error.code == 409 and exists_is_none):
                return None
            said = " ".join(error.read().decode("utf-8", "replace").split())[-300:]
            if error.code in (400, 401, 403, 422):
                raise UsageError(f"{self._url} refuses with {error.code}: {said}") from error
            raise OSError(f"{self._url} answers {error.code}: {said}") from error
        except http.client.HTTPException as error:
            raise OSError(f"{self._url} breaks off: {error!r}") from error


def follow(cluster: Cluster, name: str, deadline_s: float | None, poll_s: float) -> int:
    """Start `name` unless it is there, wait for its terminal status, say it in one line. Returns the exit code."""
    began = heard = time.monotonic()
    started: bool | None = None
    while True:
        try:
            if started is None:
                started = cluster.start(name)
                print(f"night {name}: {'started' if started else 'was started before, and is followed'}", flush=True)
            state = cluster.state(name)
            heard = time.monotonic()
        except OSError as error:
            if time.monotonic() - heard > LOST_S:
                raise JobError(f"the cluster has not answered for {LOST_S / 60:.0f} minutes: {error}") from error
            state = State("unknown", None, str(error))
        if state.code is not None:
            said = " ".join(state.message.split())[-500:]
            print(f"night {name}: {state.status}, exit {state.code}" + (f": {said}" if state.code and said else ""))
            return state.code
        if deadline_s is not None and time.monotonic() - began > deadline_s:
            cluster.stop(name)
            print(f"night {name}: {state.status} after {deadline_s / 3600:.2g} hours, stopped; exit {TOO_LATE}")
            return TOO_LATE
        time.sleep(poll_s)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(lambda: _night(_parser().parse_args(argv)))


def _night(args: argparse.Namespace) -> int:
    name = f"{args.prefix}-{args.date}"
    cluster: Cluster
    if args.rayjob is not None:
        if args.index or args.address:
            raise UsageError("--rayjob holds the command and makes its cluster; give neither --address nor arguments")
        cluster = KubeRay.in_pod(args.rayjob)
    elif args.address and args.index:
        entrypoint = shlex.join([args.python, "-m", "jobs.index", *args.index])
        cluster = RayJobs(args.address, entrypoint, _ray_token())
    else:
        raise UsageError("expected --address URL -- ROOT... --output INDEX, or --rayjob FILE")
    return follow(cluster, name, args.deadline, args.poll)


def _ray_token() -> str | None:
    """The token of Ray's authentication, from where Ray's own client takes it."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    return path.read_text().strip() if path.exists() else None


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("night", __doc__)
    parser.add_argument(
        "--address", metavar="URL", help="dashboard of a standing Ray cluster, such as http://head:8265"
    )
    parser.add_argument("--rayjob", type=Path, metavar="FILE", help="manifest of a RayJob to create, in Kubernetes")
    parser.add_argument("--prefix", default="nightly", help="the submission id is PREFIX-DATE (default: nightly)")
    parser.add_argument(
        "--date",
        default=f"{datetime.now(UTC):%Y-%m-%d}",
        help="the night; another date starts another run (default: today, UTC)",
    )
    parser.add_argument(
        "--deadline",
        type=duration_s,
        metavar="TIME",
        help="stop a job that runs longer, such as 8h; choose more than the --budget of jobs.index",
    )
    parser.add_argument("--poll", type=float, default=15.0, metavar="SECONDS", help="how often to look (default: 15)")
    parser.add_argument(
        "--python", default="python", help="interpreter on the cluster's head that has this package (default: python)"
    )
    parser.add_argument("index", nargs="*", metavar="-- ROOT... --output INDEX ...", help="arguments of jobs.index")
    return parser


if __name__ == "__main__":
    sys.exit(main())
