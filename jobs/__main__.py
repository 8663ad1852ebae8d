"""`adatp-index <job> ...`, the same as `python -m jobs.<job> ...`."""

import importlib
import sys
from pathlib import Path

_NOT_JOBS = {"__init__", "__main__", "cli"}


def main() -> int:
    jobs = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in _NOT_JOBS)
    if len(sys.argv) > 1 and sys.argv[1] in jobs:
        job = sys.argv.pop(1)
        sys.argv[0] = f"adatp-index {job}"
        code: int = importlib.import_module(f"jobs.{job}").main()
        return code
    usage = f"usage: adatp-index JOB ...\njobs: {', '.join(jobs)}\n`adatp-index JOB --help` says what a job takes"
    asked_for_help = sys.argv[1:] in (["-h"], ["--help"])
    print(usage, file=sys.stdout if asked_for_help else sys.stderr)
    return 0 if asked_for_help else 2


if __name__ == "__main__":
    sys.exit(main())
