"""The planted benchmark in VideoMME's published layout: one Parquet file, and one lossless video per clip.

Frames come back from the decoders bit by bit, so what is asked through the published layout is what
`--benchmark planted` asks.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.planted.items import Item
from pipeline.planted.render import Pixels

FPS = 4
LETTERS = "ABCD"


def write_as_videomme(folder: Path, items: Sequence[Item]) -> Path:
    """Write the items below `folder`; the Parquet file. `task_type` is the planted type, `duration` is "short"."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    rows = []
    for place, item in enumerate(items):
        video = f"planted{place:05d}"
        write_lossless(folder / "data" / f"{video}.mkv", item.frames())
        question = item.question
        rows.append(
            {
                "video_id": f"{place + 1:03d}",
                "duration": "short",
                "domain": "Planted",
                "sub_category": question.type,
                "url": "",
                "videoID": video,
                "question_id": item.item_id,
                "task_type": question.type,
                "question": question.text,
                "options": [f"{x}. {text}" for x, text in zip(LETTERS, question.choices, strict=True)],
                "answer": LETTERS[question.choices.index(question.answer)],
            }
        )
    file = folder / "videomme" / "test-00000-of-00001.parquet"
    file.parent.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


def write_lossless(path: Path, frames: Pixels) -> None:
    """Frames (n, H, W, 3) as FFV1 in Matroska, RGB: decoding gives the same bytes."""
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=FPS)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0"
        stream.codec_context.time_base = Fraction(1, FPS)
        for place, frame in enumerate(np.ascontiguousarray(frames)):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0")
            picture.pts, picture.time_base = place, Fraction(1, FPS)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
