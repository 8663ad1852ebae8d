"""The index in tests/data: made by version 0.1, before the package was laid out in rooms; and the videos it is of.

It is of s3://test-bucket/old-archive: two planted videos and a file that is none, a question asked of both, and a
standing one. planted-5-002.mp4 lies beside them and was never indexed.
"""

import shutil
from pathlib import Path

from pipeline.storage.s3 import S3Storage
from tests.s3 import BUCKET

DATA = Path(__file__).parent / "data" / "index_of_0_1"
ARCHIVE = f"s3://{BUCKET}/old-archive"
NEW_VIDEO = "planted-5-002.mp4"


def copy_of_old_index(folder: Path) -> Path:
    return Path(shutil.copytree(DATA / "index", folder / "index"))


def upload(*names: str) -> None:
    """Put videos where the index knows them; a test's S3 server must run."""
    storage = S3Storage(ARCHIVE)
    for name in names or [path.name for path in (DATA / "videos").iterdir() if path.name != NEW_VIDEO]:
        storage.write_atomic(name, (DATA / "videos" / name).read_bytes())
