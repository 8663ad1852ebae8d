"""One HTML file to look at an index with: no network, everything escaped, details of a video parsed when it is opened.

The file is page.html with page.css, page.js and JSON put in. A content security policy names the hashes of the style
and the script, so nothing else in the file could run, whatever a file name or a caption holds.
"""

import base64
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from pipeline.index.snapshot import Index, Snapshot

Record = dict[str, Any]
THUMBNAIL_PX = 160
_JPEG_QUALITY = 60
_VIDEOS_AT_ONCE = 50
_BINS = 24
_MARKER = "@videos@"
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class PageOptions:
    """How much goes in: the page stays usable at these sizes, whatever the index holds."""

    max_videos: int = 1000  # the newest indexed first, failures before them
    max_thumbnails: int = 8  # a video, evenly over its segments


def write_page(index: Index, out: TextIO, options: PageOptions) -> int:
    """Write the page of the snapshot now in force; returns how many videos are in it. Holds 50 videos at a time."""
    return index.at_one_snapshot(lambda snapshot: _write(index, snapshot, out, options))


def _write(index: Index, snapshot: Snapshot, out: TextIO, options: PageOptions) -> int:
    out.seek(0)
    out.truncate()
    videos, n_left_out = _videos_shown(index, snapshot, options.max_videos)
    ids = [video["video_id"] for video in videos]
    captions = _by_video(index, snapshot, "captions", ["start_s", "end_s", "caption"], ids)
    answers = _by_video(index, snapshot, "answers", _ANSWER_COLUMNS, ids)
    errors = _by_video(index, snapshot, "errors", ["stage", "error_class", "message", "transient", "at"], ids)
    rows = [_row(v, *(found.get(v["video_id"], []) for found in (captions, answers, errors))) for v in videos]
    n_segments = _segment_counts(index, snapshot)
    for video, row in zip(videos, rows, strict=True):
        row["n_segments"] = n_segments.get(video["video_id"], 0)
    data = {
        "title": f"Video index {index.url}",
        "summary": _summary(index, snapshot),
        "videos": rows,
        "n_left_out": n_left_out,
        "statuses": sorted({row["status"] for row in rows}),
        "pruning": _pruning(index, snapshot),
        "plots": _plots(index, snapshot),
        "failures": _failures(videos, errors),
        "runs": _runs(index, snapshot),
    }
    head, tail = _template().replace("@data@", _json(data)).split(_MARKER)
    out.write(head)
    for number, (video, segments) in enumerate(_with_segments(index, snapshot, videos)):
        mine = (captions.get(video["video_id"], []), answers.get(video["video_id"], []))
        detail = _detail(video, segments, *mine, errors.get(video["video_id"], []), options.max_thumbnails)
        out.write(f'<script type="application/json" id="video-{number}">{_json(detail)}</script>\n')
    out.write(tail)
    return len(videos)


_ANSWER_COLUMNS = ["question", "scope", "start_s", "end_s", "answer", "abstained", "evidence"]
_FACTS = ["uri", "status", "container", "codec", "width", "height", "rotation", "fps", "is_vfr", "duration_s"]
_FACTS += ["recorded_at", "decoder", "decode_coverage", "size_bytes", "version", "video_id"]


def _template() -> str:
    """page.html with style and script, and the policy that allows just these."""
    text = (_HERE / "page.html").read_text()
    for name, suffix in (("style", "css"), ("script", "js")):
        content = (_HERE / f"page.{suffix}").read_text()
        sha = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        text = text.replace(f"@{name}@", content).replace(f"@{name}_hash@", f"'sha256-{sha}'")
    return text


def _json(value: Any) -> str:
    """JSON that cannot end the element it stands in, and that holds no marker of the template."""
    text = json.dumps(value, default=str, ensure_ascii=True, separators=(",", ":"))
    for char in "<>&@":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _videos_shown(index: Index, snapshot: Snapshot, most: int) -> tuple[list[Record], int]:
    """Failures and the newest first; and how many are left out."""
    videos = index.read_at(snapshot, "videos", [*_FACTS, "name", "error_class", "indexed_at"]).to_pylist()
    videos = [video for video in videos if video["status"] != "deleted"]
    videos.sort(key=lambda v: (v["status"] not in ("failed", "quarantined"), -v["indexed_at"].timestamp(), v["name"]))
    return videos[:most], max(0, len(videos) - most)


def _by_video(
    index: Index, snapshot: Snapshot, table: str, columns: Sequence[str], ids: Sequence[str]
) -> dict[str, list[Record]]:
    order = "at" if "at" in columns else "start_s"
    rows = index.read_at(snapshot, table, ["video_id", *columns], pc.field("video_id").isin(ids))
    found: dict[str, list[Record]] = {}
    for row in rows.sort_by(order).to_pylist():
        found.setdefault(row["video_id"], []).append(row)
    return found


def _row(video: Record, captions: Sequence[Record], answers: Sequence[Record], errors: Sequence[Record]) -> Record:
    """What the table of videos shows and searches."""
    said = captions[0]["caption"] if captions else (errors[-1]["message"] if errors else _answered(answers))
    words = [video["name"], video["error_class"] or "", *(c["caption"] for c in captions)]
    words += [f"{a['question']} {a['answer'] or ''}" for a in answers]
    return {
        "name": video["name"],
        "status": video["status"],
        "duration_s": video["duration_s"],
        "n_answers": len(answers),
        "said": _cut(f"{video['error_class']}: {said}" if video["error_class"] else said, 160),
        "search": _cut("\n".join([*words, *(e["message"] for e in errors)]), 2000),
    }


def _answered(answers: Sequence[Record]) -> str:
    return next((f"{a['question']} {a['answer']}" for a in answers if a["answer"]), "")


def _segment_counts(index: Index, snapshot: Snapshot) -> dict[str, int]:
    counts = index.read_at(snapshot, "segments", ["video_id"])["video_id"].value_counts().to_pylist()
    return {count["values"]: count["counts"] for count in counts}


def _with_segments(index: Index, snapshot: Snapshot, videos: Sequence[Record]) -> Iterator[tuple[Record, list[Record]]]:
    """Each video with its segments in time order, read for a few videos at a time."""
    columns = ["video_id", "start_s", "end_s", "thumbnail"]
    for first in range(0, len(videos), _VIDEOS_AT_ONCE):
        some = videos[first : first + _VIDEOS_AT_ONCE]
        wanted = pc.field("video_id").isin([video["video_id"] for video in some])
        found: dict[str, list[Record]] = {}
        for row in index.read_at(snapshot, "segments", columns, wanted).sort_by("start_s").to_pylist():
            found.setdefault(row["video_id"], []).append(row)
        for video in some:
            yield video, found.get(video["video_id"], [])


def _detail(
    video: Record,
    segments: Sequence[Record],
    captions: Sequence[Record],
    answers: Sequence[Record],
    errors: Sequence[Record],
    max_thumbnails: int,
) -> Record:
    places = np.unique(np.linspace(0, len(segments) - 1, min(max_thumbnails, len(segments))).round().astype(int))
    pictured = [segments[at] for at in places] if segments else []
    facts = [[name, str(video[name])] for name in _FACTS if video[name] is not None]
    facts += [["error", f"{e['stage']}: {e['error_class']}: {e['message']}"] for e in errors[-3:]]
    return {
        "facts": facts,
        "n_segments": len(segments),
        "bars": [[round(s["start_s"], 3), round(s["end_s"], 3)] for s in segments],
        "segments": [
            {"start_s": s["start_s"], "end_s": s["end_s"], "jpeg": _small_jpeg(s["thumbnail"])} for s in pictured
        ],
        "captions": [{name: c[name] for name in ("start_s", "end_s", "caption")} for c in captions],
        "answers": [_answer(a) for a in answers],
    }


def _answer(answer: Record) -> Record:
    evidence = [[round(e["start_s"], 3), round(e["end_s"], 3), round(e["score"], 4)] for e in answer["evidence"][:5]]
    return {name: answer[name] for name in _ANSWER_COLUMNS} | {"evidence": evidence}


def _small_jpeg(thumbnail: bytes | None) -> str | None:
    """The thumbnail, smaller, in base64; None for bytes that are no picture."""
    if not thumbnail:
        return None
    try:
        with Image.open(io.BytesIO(thumbnail), formats=["JPEG"]) as picture:
            picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
            small = io.BytesIO()
            picture.convert("RGB").save(small, "JPEG", quality=_JPEG_QUALITY)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    return base64.b64encode(small.getvalue()).decode()


def _summary(index: Index, snapshot: Snapshot) -> str:
    counts = index.read_at(snapshot, "videos", ["status"])["status"].value_counts().to_pylist()
    seconds = pc.sum(index.read_at(snapshot, "videos", ["duration_s"])["duration_s"]).as_py() or 0.0
    length = f"{seconds / 3600:,.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"
    states = ", ".join(f"{c['counts']:,} {c['values']}" for c in sorted(counts, key=lambda c: -c["counts"]))
    rows = ", ".join(f"{snapshot.n_rows(table):,} {table}" for table in ("clips", "segments", "captions", "answers"))
    encoder = snapshot.encoder.encoder_id if snapshot.encoder else "no encoder yet"
    return f"{states or 'no videos'}; {length}; {rows}; encoder {encoder}; commit {snapshot.commit}"


def _pruning(index: Index, snapshot: Snapshot) -> Mapping[str, Any]:
    """What the model read of what it could have read, by method, captions and answers together."""
    columns = ["prune_method", "prune_p", "model_id", "n_visual_tokens", "visual_tokens_per_layer"]
    columns += ["llm_flops_ratio", "end_to_end_flops_ratio"]
    texts = [index.read_at(snapshot, table, columns) for table in ("captions", "answers")]
    rows = pa.concat_tables(texts).filter(pc.field("n_visual_tokens") > 0)
    lists = rows["visual_tokens_per_layer"].combine_chunks()
    means = pa.array([sum(layers) / len(layers) if layers else None for layers in lists.to_pylist()], pa.float64())
    rows = rows.drop_columns(["visual_tokens_per_layer"]).append_column("mean_tokens", means)
    sums = rows.group_by(["model_id", "prune_method", "prune_p"]).aggregate(
        [("n_visual_tokens", "count"), ("n_visual_tokens", "sum"), ("mean_tokens", "sum")]
        + [("llm_flops_ratio", "mean"), ("end_to_end_flops_ratio", "mean")]
    )
    shown = [
        [
            row["model_id"],
            f"{row['prune_method']} p={row['prune_p']:g}",
            f"{row['n_visual_tokens_count']:,}",
            f"{row['n_visual_tokens_sum']:,}",
            _percent(row["mean_tokens_sum"], row["n_visual_tokens_sum"]),
            _percent(row["llm_flops_ratio_mean"], 1),
            _percent(row["end_to_end_flops_ratio_mean"], 1),
        ]
        for row in sums.sort_by([("model_id", "ascending"), ("prune_method", "ascending")]).to_pylist()
    ]
    titles = ["Model", "Pruning", "Texts", "Visual tokens", "Read in the mean layer"]
    titles += ["LLM FLOPs over unpruned", "FLOPs end to end"]
    return {"columns": _columns(titles, n_text=2), "rows": shown}


def _percent(part: float | None, whole: float) -> str:
    return "" if part is None or not whole else f"{part / whole:.1%}"


def _plots(index: Index, snapshot: Snapshot) -> list[Record]:
    lengths = index.read_at(snapshot, "segments", ["start_s", "end_s", "boundary_score"])
    columns = {
        "Length of videos (s)": index.read_at(snapshot, "videos", ["duration_s"])["duration_s"],
        "Length of segments (s)": pc.subtract(lengths["end_s"], lengths["start_s"]),
        "Boundary score of segments": lengths["boundary_score"],
        "Relevance of answers": index.read_at(snapshot, "answers", ["relevance"])["relevance"],
        "LLM FLOPs of captions over unpruned": index.read_at(snapshot, "captions", ["llm_flops_ratio"])[0],
    }
    plots = []
    for title, column in columns.items():
        values = column.drop_null().to_numpy()
        values = values[np.isfinite(values)]
        if len(values):
            counts, edges = np.histogram(values, bins=_BINS)
            low, high = f"{edges[0]:.3g}", f"{edges[-1]:.3g}"
            plots.append({"title": title, "counts": counts.tolist(), "low": low, "high": high})
    return plots


def _failures(videos: Sequence[Record], errors: Mapping[str, Sequence[Record]]) -> Mapping[str, Any]:
    """The last failure of each video that is not whole."""
    rows = []
    for video in videos:
        last = errors.get(video["video_id"], [])[-1:]
        if video["error_class"] is not None or last:
            stage, message = (last[0]["stage"], last[0]["message"]) if last else ("", "")
            kind = last[0]["error_class"] if last else video["error_class"]
            again = "yes" if last and last[0]["transient"] else "no"
            rows.append([video["name"], video["status"], stage, kind, again, _cut(message, 300)])
    titles = ["Name", "Status", "Stage", "Class", "Tried again by itself", "What happened"]
    return {"columns": _columns(titles, n_text=6), "rows": rows}


def _runs(index: Index, snapshot: Snapshot) -> Mapping[str, Any]:
    columns = ["run_id", "command", "started_at", "finished_at", "listed", "stages", "outcome", "exit_code"]
    runs = index.read_at(snapshot, "runs", columns).sort_by([("started_at", "descending")]).slice(0, 20)
    rows = []
    for run in runs.to_pylist():
        took_s = (run["finished_at"] - run["started_at"]).total_seconds() if run["finished_at"] else None
        stages = ", ".join(f"{s['stage']} {s['items']} in {s['seconds']:.0f} s" for s in run["stages"] or [])
        took = "" if took_s is None else f"{took_s:,.0f}"
        outcome = f"{run['outcome']} ({run['exit_code']})"
        rows.append([run["run_id"], run["command"], stages, outcome, f"{run['listed'] or 0:,}", took])
    titles = ["Run", "Job", "Work", "Outcome", "Listed", "Seconds"]
    return {"columns": _columns(titles, n_text=4), "rows": rows}


def _columns(titles: Sequence[str], n_text: int) -> list[Record]:
    """The first `n_text` columns are text, the rest numbers."""
    return [{"title": title, "kind": "text" if at < n_text else "number"} for at, title in enumerate(titles)]


def _cut(text: str, n: int) -> str:
    return text if len(text) <= n else text[: n - 1] + "…"
