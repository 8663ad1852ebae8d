"""How long one pass over a large index takes: `python -m benchmarks.search [--segments 1000000] [--dim 768]`.

Segments are generated (unit vectors plus noise around 1,000 centres), written as commits write them, and searched with
a query vector given, in a fresh process, three times; the first is cold only for Python, the page cache is warm where
memory allows. Peak memory is that of the whole process. Ends with one JSON line.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.describing.rows import build_table
from pipeline.index.snapshot import SNAPSHOT, Encoder, Index, Snapshot
from pipeline.index.table_files import parquet
from pipeline.index.tables import table_schema
from pipeline.reading.search import search
from pipeline.types import clip_id_of, segment_id_of, video_id_of

FILE_ROWS = 131_072
SEGMENTS_PER_VIDEO = 64
TAU_S = 0.95


def generate(url: str, n: int, dim: int) -> None:
    """An index of `n` segments, 64 a video, eight a clip."""
    index = Index.create(url)
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((1000, dim)).astype(np.float32)
    files: dict[str, dict[str, int]] = {"segments": {}, "videos": {}}
    for number, first in enumerate(range(0, n, FILE_ROWS)):
        count = min(FILE_ROWS, n - first)
        vectors = centres[rng.integers(0, 1000, count)] + 0.5 * rng.standard_normal((count, dim), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        table = build_table("segments", dim, [_segment(first + i) for i in range(count)], vectors)
        name = f"c00000001-g{number:04d}.parquet"
        _write(index, f"segments/{name}", table)
        files["segments"][name] = count
    n_videos = -(-n // SEGMENTS_PER_VIDEO)
    videos = pa.Table.from_pylist([_video(i) for i in range(n_videos)], schema=table_schema("videos", dim))
    _write(index, "videos/c00000001-g0000.parquet", videos)
    files["videos"]["c00000001-g0000.parquet"] = n_videos
    index.storage.write_atomic(SNAPSHOT, Snapshot(1, files, Encoder("generated@1", dim)).to_json())


def measure(url: str, dim: int) -> dict[str, float]:
    """Seconds of three passes over the index, the last with a condition; CPU seconds of each; peak memory."""
    index = Index.open(url)
    query = np.random.default_rng(1).standard_normal(dim).astype(np.float32)
    query /= np.linalg.norm(query)
    seconds = {}
    for name, where in (("first_s", None), ("again_s", None), ("where_s", "start_s > 100 AND name < 'video-009'")):
        started, cpu_started = time.perf_counter(), time.process_time()
        search(index, query, 10, where, TAU_S)
        seconds[name] = round(time.perf_counter() - started, 2)
        seconds[f"cpu_{name}"] = round(time.process_time() - cpu_started, 2)
    return seconds | {"peak_mb": _peak_mb()}


def _peak_mb() -> int:
    """Of this process alone; getrusage would begin with what its parent held when it was forked."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024


def _segment(i: int) -> dict[str, object]:
    video, place = divmod(i, SEGMENTS_PER_VIDEO)
    video_id = video_id_of(f"file:///generated/{video}")
    clip_id = clip_id_of(video_id, place // 8)
    return {
        "segment_id": segment_id_of(clip_id, place % 8),
        "clip_id": clip_id,
        "video_id": video_id,
        "video_version": "1",
        "segment_index": place % 8,
        "start_s": 4.0 * place,
        "end_s": 4.0 * place + 4,
        "n_frames": 4,
        "boundary_score": 0.5,
        "best_frame_s": 4.0 * place,
        "encoder_id": "generated@1",
        "fingerprint": "f",
        "run_id": "r",
        "indexed_at": datetime(2026, 1, 1, tzinfo=UTC),
    }


def _video(i: int) -> dict[str, object]:
    uri = f"file:///generated/{i}"
    made = {"run_id": "r", "indexed_at": datetime(2026, 1, 1, tzinfo=UTC), "fingerprints": []}
    named = {"video_id": video_id_of(uri), "uri": uri, "name": f"video-{i:06d}", "root": "file:///generated"}
    return named | {"version": "1", "status": "indexed", "attempts": 0} | made


def _write(index: Index, path: str, table: pa.Table) -> None:
    target = Path(index.url) / path
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(parquet(path.partition("/")[0], table))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--measure", metavar="INDEX", help="only search an index that is there, and print the figures")
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.dim)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        url = f"{folder}/index"
        generate(url, args.segments, args.dim)
        command = [sys.executable, "-m", "benchmarks.search", "--dim", str(args.dim), "--measure", url]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        size_mb = sum(path.stat().st_size for path in Path(url).rglob("*.parquet")) // 1_000_000
    from benchmarks.machine import describe  # torch, which would count in the memory of the measured process

    result = {"benchmark": "search", "segments": args.segments, "dim": args.dim, "index_mb": size_mb}
    print(json.dumps(result | json.loads(done.stdout) | describe()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
