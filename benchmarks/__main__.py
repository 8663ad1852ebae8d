"""`make bench`: every benchmark, one after the other; each ends with its JSON line, repeated together at the end."""

import subprocess
import sys
from pathlib import Path

VIDEOS = Path(__file__).resolve().parents[2] / "shared" / "videos" / "open"
BENCHMARKS: tuple[tuple[str, ...], ...] = (
    ("benchmarks.flops",),
    ("benchmarks.prefill",),
    ("benchmarks.captions",),
    ("benchmarks.ledger",),
    ("benchmarks.search",),
    ("benchmarks.report",),
    ("benchmarks.decode",),
    ("benchmarks.long_video",),
    ("benchmarks.remote",),
    ("benchmarks.gpu_utilisation", str(VIDEOS)),
    ("benchmarks.pipeline", str(VIDEOS)),
)


def main() -> int:
    lines, failed = [], 0
    for module, *args in BENCHMARKS:
        print(f"== {module}", flush=True)
        last = ""
        with subprocess.Popen([sys.executable, "-m", module, *args], stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout or ():
                print(line, end="", flush=True)
                last = line.strip() or last
        failed += process.returncode != 0
        lines.append(last if process.returncode == 0 else f"{module} ended with {process.returncode}")
    print("\n".join(["== all", *lines]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
