"""Ways a cluster of several nodes can be hit while a job indexes an S3 archive, and what becomes of its index:
`python -m tests.jobs.node_faults [NAME...]` writes the second table of docs/running.md.
"""

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.archive import render_video
from tests.jobs.cluster import WAIT_S, LocalCluster, download, local_cluster, upload
from tests.jobs.conftest import job
from tests.jobs.page_table import PageTable
from tests.jobs.tables import assert_same_index, rows
from tests.s3 import BUCKET

TABLE = PageTable(
    "<!-- node table: written by python -m tests.jobs.node_faults -->\n",
    "<!-- end of node table -->\n",
    "| hit | what becomes of the job | index, against an undisturbed run | jobs.verify |",
)
FLAGS = ("--model", "builtin", "--max-new-tokens", "4", "--caption-prompt", "What is seen?")

SAME_RUN = "the job succeeds on the nodes that are left; no error row"
AGAIN = "; the same command again goes on from what was staged"
SCENARIOS = {
    "a node is lost in decode": SAME_RUN,
    "a node is lost in describe": SAME_RUN,
    "a node is lost in staging": SAME_RUN,
    "a describe actor is killed": "the job succeeds with another actor; no error row",
    "the driver is killed": "FAILED" + AGAIN,
    "the job is stopped (SIGTERM)": "STOPPED" + AGAIN,
    "the job is stopped, deaf to SIGTERM (SIGKILL after 3 s)": "STOPPED" + AGAIN,
}


def make_archive(folder: Path) -> str:
    """Four short videos in S3, five clips."""
    for number, (name, seconds) in enumerate((("a.mp4", 5), ("b.mkv", 40), ("c.mp4", 6), ("d.ts", 7))):
        render_video(folder / name, seconds, number)
    return upload(folder, "archive")


def undisturbed_run(cluster: LocalCluster, archive: str, folder: Path) -> Path:
    cluster.run(archive, "--output", f"s3://{BUCKET}/undisturbed", *FLAGS)
    return download("undisturbed", folder / "undisturbed")


def run_scenario(name: str, cluster: LocalCluster, archive: str, undisturbed: Path, folder: Path) -> str:
    """Hit one run, see it through, compare. Returns the row of the table."""
    where = next(
        (w for word, w in (("in decode", "decode"), ("staging", "stage"), ("deaf", "deaf")) if word in name), "describe"
    )
    prefix, mark = folder.name, folder / "mark"
    args = (archive, "--output", f"s3://{BUCKET}/{prefix}", *FLAGS)
    name_of_job = cluster.submit(*args, module=("tests.jobs.waiting_job", where, str(mark)))
    _wait_for(lambda: (mark / "here").exists() and " " in (mark / "here").read_text(), cluster, name_of_job)
    node, pid = (mark / "here").read_text().split()
    if "node" in name:
        cluster.lose_node(node)
    elif "actor" in name:
        os.kill(int(pid), signal.SIGKILL)
    elif "driver" in name:
        os.kill(int((mark / "driver").read_text()), signal.SIGKILL)
    else:
        cluster.client.stop_job(name_of_job)
    status = cluster.wait(name_of_job)
    log = cluster.client.get_job_logs(name_of_job)
    assert status == SCENARIOS[name].split(";")[0] or (status == "SUCCEEDED" and "succeeds" in SCENARIOS[name]), log[
        -3000:
    ]
    if status != "SUCCEEDED":
        cluster.run(*args)
    index = download(prefix, folder / "index")
    assert not rows(index, "errors").num_rows, rows(index, "errors").to_pylist()
    assert_same_index(index, undisturbed)
    audit = job("verify", "--index", f"s3://{BUCKET}/{prefix}")
    assert audit.code == 0, audit.err
    while cluster.n_workers < 2:
        cluster.add_node()
    return f"| {name} | {SCENARIOS[name]} | equal | 0 |"


def _wait_for(condition: Callable[[], bool], cluster: LocalCluster, name_of_job: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        status = cluster.client.get_job_status(name_of_job).value
        assert status in ("PENDING", "RUNNING"), cluster.client.get_job_logs(name_of_job)[-3000:]
        assert time.monotonic() < deadline, cluster.client.get_job_logs(name_of_job)[-3000:]
        time.sleep(0.2)


def main(names: Sequence[str]) -> int:
    """Run the scenarios named, or all; rows of others stay as they are."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder, local_cluster() as cluster:
        archive = make_archive(Path(folder, "archive"))
        undisturbed = undisturbed_run(cluster, archive, Path(folder))
        for number, name in enumerate(names or SCENARIOS):
            place, started = Path(folder, f"scenario-{number}"), time.monotonic()
            place.mkdir()
            try:
                row = run_scenario(name, cluster, archive, undisturbed, place)
            except AssertionError:
                failed += 1
                print(f"FAILED {name}: {traceback.format_exc()}", flush=True)
                continue
            print(f"{time.monotonic() - started:.0f} s {row}", flush=True)
            TABLE.put(name, row, SCENARIOS)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
