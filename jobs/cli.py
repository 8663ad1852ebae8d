"""What every job's command line shares: how it ends."""

import sys
from collections.abc import Callable

from pipeline.errors import JobError


def run(job: Callable[[], int]) -> int:
    """The job's own exit code; a JobError becomes one line on stderr and its code, Ctrl-C 130."""
    try:
        return job()
    except JobError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
