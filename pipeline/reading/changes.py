"""What runs changed, video by video: the view `changes` of views.sql, for jobs.changes and notebooks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow.compute as pc

from pipeline.archive.labels import path_in_root
from pipeline.errors import UsageError
from pipeline.index.snapshot import Index, Snapshot

KINDS = ("new", "changed", "redone", "deleted", "failed", "pending", "captioned", "answered")
_KIND_OF_REASON = {"new": "new", "pending": "new", "changed": "changed", "returned": "changed"}
_VIDEO_COLUMNS = ["video_id", "uri", "root", "status", "error_class", "reason", "content_run_id", "run_id"]


@dataclass(frozen=True)
class Change:
    """One thing that became of one video in one run. `detail`: the error class, question or prompt."""

    kind: str
    path: str
    detail: str | None
    run_id: str
    uri: str
    video_id: str


def changes_since(index: Index, since: str | None) -> list[Change]:
    """What runs after `since` changed, by kind and path.

    `since` is a run_id, or the beginning of one: a date such as 20261124. None: what the last run changed that changed
    anything. What a later run did again is counted there alone. UsageError when there is no such run.
    """
    return index.at_one_snapshot(lambda snapshot: _changes(index, snapshot, since))


def _changes(index: Index, snapshot: Snapshot, since: str | None) -> list[Change]:
    rows = index.read_at(snapshot, "videos", _VIDEO_COLUMNS).to_pylist()
    videos = {row["video_id"]: row for row in rows}
    found = [change for row in rows for change in _of_video(row)]
    for table, kind, text in (("answers", "answered", "question"), ("captions", "captioned", "prompt")):
        texts = index.read_at(snapshot, table, ["video_id", "run_id", text])
        for row in texts.group_by(texts.column_names).aggregate([]).to_pylist():
            video = videos.get(row["video_id"])
            if video is not None and video["status"] != "deleted" and row["run_id"] != video["content_run_id"]:
                found.append(_change(kind, video, row[text], row["run_id"]))
    if since is None:
        newest = max((change.run_id for change in found), default="")
        return _in_order(change for change in found if change.run_id == newest)
    _refuse_unknown_run(index, snapshot, since)
    return _in_order(c for c in found if c.run_id[: len(since)] > since)


def _in_order(changes: Iterable[Change]) -> list[Change]:
    return sorted(changes, key=lambda c: (KINDS.index(c.kind), c.path, c.detail or "", c.run_id))


def _refuse_unknown_run(index: Index, snapshot: Snapshot, since: str) -> None:
    if since.isdigit() and len(since) in (4, 6, 8):
        return
    runs = index.read_at(snapshot, "runs", ["run_id"])["run_id"]
    if not pc.any(pc.starts_with(runs, since)).as_py():
        raise UsageError(f"--since {since}: no such run; expected a run_id of jobs.status or a date such as 20261124")


def _of_video(row: dict[str, str]) -> Sequence[Change]:
    if row["status"] in ("indexed", "partial"):
        if row["content_run_id"] is None:  # indexed by a version that did not record it
            return []
        return [_change(_KIND_OF_REASON.get(row["reason"], "redone"), row, None, row["content_run_id"])]
    kind = "failed" if row["status"] == "quarantined" else row["status"]
    return [_change(kind, row, row["error_class"], row["run_id"])]


def _change(kind: str, video: dict[str, str], detail: str | None, run_id: str) -> Change:
    return Change(kind, path_in_root(video["uri"], video["root"]), detail, run_id, video["uri"], video["video_id"])
