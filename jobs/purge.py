"""Delete videos from every table of an index, and prove it.

    python -m jobs.purge --index INDEX --video s3://archive/a.mp4 --video 4f6db25ce1a5bbec79ab0057cf7d63c3
    python -m jobs.purge --index INDEX --deleted

Every row of the chosen videos leaves every table, and so does staged work; then all files are read again to prove it. A
video that is still in the archive comes back with the next run of jobs.index.
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from jobs import cli
from pipeline.archive.folders import uri_of_path
from pipeline.errors import UsageError
from pipeline.index.commits import roll_forward
from pipeline.index.lock import index_lock
from pipeline.index.purge import purge, record_purge
from pipeline.index.snapshot import Index

_SHARE_WITHOUT_YES = 0.1


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("purge", __doc__)
    parser.add_argument("--index", required=True, help="folder or s3:// prefix of the index")
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument(
        "--video", action="append", metavar="VIDEO", help="URI, local path or video_id of a video; may be repeated"
    )
    chosen.add_argument("--deleted", action="store_true", help="every video whose status is deleted")
    parser.add_argument("--yes", action="store_true", help="purge even more than a tenth of a root's videos")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    return cli.run(lambda: _purge(args.index, args.video, args.yes))


def _purge(url: str, named: Sequence[str] | None, yes: bool) -> int:
    index, started_at = Index.open(url), datetime.now(UTC)
    with index_lock(index.storage):
        roll_forward(index)
        videos = index.read("videos", ["video_id", "uri", "root", "status"])
        ids = _ids_of(videos, named) if named is not None else _deleted(videos)
        if not len(ids):
            print("no video has the status deleted: nothing to purge")
            return 0
        if not yes:
            _refuse_large(videos, ids)
        removed = purge(index, ids.to_pylist())
        record_purge(index, started_at, len(ids))
    print(f"purged {len(ids):,} videos: " + ", ".join(f"{n:,} {table}" for table, n in removed.items()) + " rows")
    return 0


def _deleted(videos: pa.Table) -> pa.Array:
    return videos.filter(pc.field("status") == "deleted")["video_id"].combine_chunks()


def _ids_of(videos: pa.Table, named: Sequence[str]) -> pa.Array:
    """video_ids of what was named; UsageError when the index does not know one of them."""
    ids = []
    for name in named:
        uri = name if "://" in name else uri_of_path(name)
        found = videos.filter((pc.field("video_id") == name) | (pc.field("uri") == uri))["video_id"]
        if not len(found):
            raise UsageError(
                f"{name!r} is no video of this index; give its uri, path or video_id as in the table videos"
            )
        ids += found.to_pylist()
    return pa.array(sorted(set(ids)), pa.string())


def _refuse_large(videos: pa.Table, ids: pa.Array) -> None:
    for root in videos["root"].unique().to_pylist():
        of_root = videos.filter(pc.field("root") == root)["video_id"]
        n_chosen = pc.sum(pc.is_in(of_root, ids)).as_py()
        if n_chosen > _SHARE_WITHOUT_YES * len(of_root):
            raise UsageError(
                f"that is {n_chosen:,} of {len(of_root):,} videos of {root}, more than a tenth; say --yes to purge them"
            )


if __name__ == "__main__":
    sys.exit(main())
