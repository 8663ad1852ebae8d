"""What a failure inside a worker becomes on the command line: one line, with what failed and no advice of Ray's; and
where a Ray of our own listens.
"""

import subprocess
import sys

import pytest

from pipeline.execution.on_ray import what_failed

ADVICE = "\n\nTo change retry attempts, configure `ray.data.DataContext.get_current()` (`retried_io_errors` for I/O).\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "ray::MapBatches(StagingStage)() (pid=1, ip=127.0.0.1)\n  File 'x', line 1\n"
            "PermissionError: [Errno 13] no\n\n"
            "The above exception was the direct cause of the following exception:\n\n"
            "pipeline.errors.JobError: storage of /index failed: [Errno 13] no; run again" + ADVICE,
            "storage of /index failed: [Errno 13] no; run again",
        ),
        (
            "ray::MapWorker(MapBatches(StagingStage)).submit() (pid=1, ip=127.0.0.1)\n  File 'x', line 1\n"
            "pipeline.errors.JobError: storage of /index failed: [Errno 28] no; run again\n\n"
            "The above exception was the direct cause of the following exception:\n\n"
            "ray.exceptions.UserCodeException: UDF failed to process a data block." + ADVICE,
            "storage of /index failed: [Errno 28] no; run again",
        ),
        ("ray.exceptions.RayTaskError: x\n  KeyError: 'clips'" + ADVICE, "a worker failed: KeyError: 'clips'"),
        ("The actor died." + ADVICE, None),
    ],
)
def test_the_innermost_error_is_told(text: str, line: str | None) -> None:
    assert what_failed(text) == line


_LISTENERS = """
import psutil, ray
from pipeline.execution.pools import ClusterOptions
from pipeline.execution.on_ray import _start_ray
_start_ray(ClusterOptions(num_cpus=1))
assert ray.get(ray.remote(lambda: 3).remote()) == 3
processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
connections = [c for process in processes for c in process.net_connections("inet")]
print(*(c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN))
"""


@pytest.mark.timeout(120)
def test_a_ray_of_our_own_listens_on_loopback_alone() -> None:
    done = subprocess.run([sys.executable, "-c", _LISTENERS], capture_output=True, text=True, check=True)
    found = done.stdout.split()
    assert len(found) > 5, "the store, the node, its workers"
    assert {ip.removeprefix("::ffff:") for ip in found} <= {"127.0.0.1", "::1"}
