"""What a failure inside a worker becomes on the command line: one line, with what failed and no advice of Ray's."""

import pytest

from pipeline.workers import what_failed

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
        ("ray.exceptions.RayTaskError: x\n  KeyError: 'clips'" + ADVICE, "a worker failed: KeyError: 'clips'"),
        ("The actor died." + ADVICE, None),
    ],
)
def test_the_innermost_error_is_told(text: str, line: str | None) -> None:
    assert what_failed(text) == line
