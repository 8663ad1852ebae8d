"""How soon the page of a large index can be used: `python -m benchmarks.report [--videos 1000]`.

An index is generated (64 segments a video with pictures as detailed as footage, eight captions and one answer with
evidence), jobs.report writes its page, and a headless Chromium opens it, three times. `ready_s` is the page's own
clock, from the start of the navigation until the list is drawn and laid out; `opened_s` is the whole process, its start
and the printing of all elements included; `cpu_s` its CPU seconds. An empty page stands beside. Ends with a JSON line.
"""

import argparse
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from benchmarks.machine import describe
from pipeline.describing.rows import build_table
from pipeline.index.commits import commit
from pipeline.index.snapshot import Encoder, Index
from pipeline.index.staging import Rows, encode_item, stage
from pipeline.index.tables import table_schema
from pipeline.reading.page import PageOptions, write_page
from pipeline.types import clip_id_of, segment_id_of, video_id_of

DIM, CLIPS, SEGMENTS_PER_CLIP, SEGMENT_S = 8, 8, 8, 4.0
CLOCK = "document.body.offsetHeight; document.body.dataset.ms = performance.now();"  # laid out, so drawn
MADE = {"fingerprint": "f", "run_id": "r", "indexed_at": datetime(2026, 1, 1, tzinfo=UTC)}
MODEL = {"model_id": "m", "model_revision": "1", "prune_method": "adatp", "prune_p": 1.0, "n_visual_tokens": 6272}
MODEL |= {"visual_tokens_per_layer": [6272] * 6 + [2000] * 18, "llm_flops_ratio": 0.35, "end_to_end_flops_ratio": 0.5}


def generate(url: str, n: int) -> Index:
    """An index of `n` videos, committed as jobs.index does."""
    index, rng = Index.create(url, Encoder("generated@1", DIM)), np.random.default_rng(0)
    pictures = [_picture(rng) for _ in range(40)]
    uris = [f"file:///generated/video {number:05d}.mp4" for number in range(n)]
    for number, uri in enumerate(uris):
        stage(index.storage, f"item-{number}", encode_item(_rows(uri, pictures, rng)))
    videos = [
        {"video_id": video_id_of(uri), "uri": uri, "name": uri.rsplit("/", 1)[1], "root": "file:///generated"}
        | {"version": "1", "status": "indexed", "attempts": 0, "duration_s": 256.0, "fingerprints": [], **MADE}
        for uri in uris
    ]
    keys = [f"item-{number}" for number in range(n)]
    commit(index, keys, pa.Table.from_pylist(videos, schema=table_schema("videos", DIM)))
    return index


def _rows(uri: str, pictures: list[bytes], rng: np.random.Generator) -> Rows:
    """Segments, captions and an answer of one video."""
    video = {"video_id": video_id_of(uri), "video_version": "1"}
    segments: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    for clip in range(CLIPS):
        clip_id, start_s = clip_id_of(video["video_id"], clip), clip * SEGMENTS_PER_CLIP * SEGMENT_S
        said = f"In clip {clip} a person walks past a parked car and turns to the left. " * 2
        span = {"clip_id": clip_id, "start_s": start_s, "end_s": start_s + SEGMENTS_PER_CLIP * SEGMENT_S, "uri": uri}
        captions.append({**video, **span, "prompt_id": "p", "prompt": "?", "caption": said, **MODEL, **MADE})
        for s in range(SEGMENTS_PER_CLIP):
            at_s = start_s + s * SEGMENT_S
            place = {"segment_id": segment_id_of(clip_id, s), "clip_id": clip_id, "segment_index": s, "n_frames": 4}
            place |= {"start_s": at_s, "end_s": at_s + SEGMENT_S, "best_frame_s": at_s, "boundary_score": 0.5}
            picture = pictures[int(rng.integers(len(pictures)))]
            segments.append({**video, **place, "thumbnail": picture, "encoder_id": "generated@1", **MADE})
    evidence = [{k: s[k] for k in ("segment_id", "start_s", "end_s")} | {"score": 0.1} for s in segments[:5]]
    answer = {**video, "uri": uri, "start_s": 0.0, "end_s": 256.0, "question_id": "q", "question": "Who?"}
    answer |= {"scope": "video", "answer": "a person", "evidence": evidence, "abstained": False, "relevance": 0.1}
    vectors = rng.standard_normal((len(segments), DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return {
        "segments": build_table("segments", DIM, segments, vectors),
        "captions": build_table("captions", DIM, captions),
        "answers": build_table("answers", DIM, [{**answer, **MODEL, **MADE}]),
    }


def _picture(rng: np.random.Generator) -> bytes:
    """A JPEG of 256 x 144 of some 10 kB: smooth shades with grain, as a frame of footage has."""
    coarse = Image.fromarray(rng.integers(0, 256, (9, 16, 3), np.uint8)).resize((256, 144), Image.Resampling.BICUBIC)
    grainy = np.clip(np.asarray(coarse, np.int16) + rng.normal(0, 8, (144, 256, 3)), 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(grainy).save(out, "JPEG", quality=80)
    return out.getvalue()


def opened(chromium: str, page: Path) -> dict[str, float]:
    """Seconds of one opening, as the module says them. The page must tell the time itself: see `clocked`."""
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={page.parent / 'profile'}"]
    started, cpu_started = time.perf_counter(), _cpu_of_children_s()
    done = subprocess.run([*command, "--dump-dom", f"file://{page}"], capture_output=True, text=True, check=True)
    opened_s, cpu_s = time.perf_counter() - started, _cpu_of_children_s() - cpu_started
    ready = re.search(r'data-ms="([\d.]+)"', done.stdout)
    if ready is None:
        raise RuntimeError("the page's script did not come to its end")
    return {"ready_s": round(float(ready[1]) / 1000, 2), "opened_s": round(opened_s, 2), "cpu_s": round(cpu_s, 2)}


def _cpu_of_children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def clocked(page: str) -> str:
    """The page with a clock at its end, which its own policy on scripts would not let run."""
    return re.sub(r"<meta http-equiv[^>]*>", "", page).replace("</body>", f"<script>{CLOCK}</script></body>")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=1000)
    args = parser.parse_args()
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        print("no Chromium here: apt-get install chromium, or set CHROMIUM", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        index = generate(f"{folder}/index", args.videos)
        page, empty = folder / "report.html", folder / "empty.html"
        empty.write_text(clocked("<!doctype html><title>empty</title><body></body>"))
        started = time.perf_counter()
        with page.open("w+", encoding="utf-8") as out:
            write_page(index, out, PageOptions(max_videos=args.videos))
        written_s = round(time.perf_counter() - started, 2)
        size_mb = round(page.stat().st_size / 1e6, 1)
        page.write_text(clocked(page.read_text()))
        opened(chromium, empty)  # the profile is made
        full, blank = [opened(chromium, page) for _ in range(3)], [opened(chromium, empty) for _ in range(3)]
    result = {"benchmark": "report", "videos": args.videos, "page_mb": size_mb, "written_s": written_s}
    print(json.dumps(result | {"page": full, "empty_page": blank} | describe()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
