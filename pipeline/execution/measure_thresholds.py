"""An encoder's thresholds measured on videos. Also a process of its own, because the driver has no torch.

stdin: JSON {name, revision, resize, sampling, bounds, sources}; stdout: one JSON line, {tau_s, tau_t, n_pairs,
n_text_pairs, n_videos} or {fault}.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from pipeline.archive.readable import readable
from pipeline.config import ModelIdentity
from pipeline.decoding.decoder import Decoder
from pipeline.decoding.sampling import parse_sampling, plan_clips
from pipeline.describing.calibration import PHRASES, TooFewFrames, calibrate
from pipeline.errors import VideoError
from pipeline.items.evidence import FloatArray
from pipeline.models.checkpoints import ModelFiles, open_model
from pipeline.models.encoder import Encoder
from pipeline.models.pixels import normalise
from pipeline.types import Bounds, ResizeRecipe, Source

CLIPS_A_VIDEO = 2


def main() -> None:
    print(json.dumps(_measure(json.load(sys.stdin))))


def _measure(asked: dict[str, Any]) -> dict[str, Any]:
    files = open_model(ModelIdentity(asked["name"], asked["revision"], ResizeRecipe(**asked["resize"])), "encoder")
    sources = [Source(video_id, uri, os.fsencode(path), version) for video_id, uri, path, version in asked["sources"]]
    encoder = Encoder(files.path)
    vectors = embed_videos(encoder, files, sources, asked["sampling"], Bounds(**asked["bounds"]), CLIPS_A_VIDEO)
    try:
        found = calibrate(vectors, encoder.texts(PHRASES).numpy())
    except TooFewFrames as error:
        return {"fault": str(error)}
    return asdict(found) | {"n_videos": len(vectors)}


def embed_videos(
    encoder: Encoder,
    files: ModelFiles,
    sources: Sequence[Source],
    sampling: str,
    bounds: Bounds,
    n_clips: int | None = None,
) -> list[FloatArray]:
    """Unit frame vectors (n_i, D) of each video that decodes, in order of time; what does not decode is left out.

    `n_clips` bounds how much of each is read; None reads all.
    """
    policy, resize = parse_sampling(sampling), files.identity.resize
    found = []
    with Decoder(bounds) as decoder:
        for source in sources:
            try:
                with readable(source) as file:
                    plans = plan_clips(decoder.probe(file.path, policy, file.filler), policy)[:n_clips]
                    decoded = [decoder.decode(file.path, (plan,), resize, None, fill=file.filler) for plan in plans]
            except VideoError:
                continue
            clips = [clip for part in decoded for clip in part.clips]
            pixels = [normalise(torch.from_numpy(clip.frames.copy()), files.normalisation) for clip in clips]
            if pixels:
                found.append(encoder.images(torch.cat(pixels)).numpy())
    return found


if __name__ == "__main__":
    main()
