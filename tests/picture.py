"""The picture in README: `make demo`, then `python -m tests.picture demo/seed-7/index` writes docs/report.png.

Needs Chromium. The index is copied to a folder of a plain name first, because the page shows where its index lies.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from jobs import report

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "report.png"
SIZE = "1200,860"


def main(index: Path) -> int:
    with tempfile.TemporaryDirectory(prefix="report-") as folder:
        copy, page = Path(folder) / "index", Path(folder) / "report.html"
        shutil.copytree(index, copy)
        if code := report.main(["--index", str(copy), "--output", str(page)]):
            return code
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
        where = [f"--user-data-dir={folder}/profile", f"--window-size={SIZE}", f"--screenshot={PICTURE}"]
        subprocess.run(["chromium", *flags, *where, page.as_uri()], check=True, capture_output=True, timeout=120)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
