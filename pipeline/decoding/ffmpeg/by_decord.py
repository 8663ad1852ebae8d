"""The same frames by decord, where it is proven to number and show them as PyAV does.

Measured (benchmarks/decode.py): planned PyAV leaves out pictures that decord decodes, and is cheaper wherever there is
something to leave out; on a video of no more frames than a clip there is not. Elsewhere decord, with an FFmpeg of its
own, is the second try where PyAV's has crashed or hung.
"""

import bisect
import os
from itertools import pairwise

import numpy as np

from pipeline.decoding.ffmpeg.bitstream import Bitstream
from pipeline.decoding.ffmpeg.pictures import Studio
from pipeline.decoding.ffmpeg.probe import WHOLE_SCAN_BYTES
from pipeline.decoding.ffmpeg.sparse import Unproven
from pipeline.decoding.ffmpeg.video import Video

DECORD_FRAMES = 32


def frames_for_decord(video: Video) -> list[int] | None:
    """Presentation ticks of all frames, by decord's index, where decord is proven to number and show them alike.

    The evidence (tests/pipeline/decoding/test_decode.py) covers 8-bit 4:2:0 H.264 in MP4 and QuickTime: there its
    pixels equal PyAV's to the last bit. Everything decord is known to get wrong is excluded by the packet table: edit
    lists, times missing or doubled, damage, parameter sets that change on the way.
    """
    codec = video.codec
    if not video.indexed() or codec.name != "h264" or codec.pix_fmt != "yuv420p" or codec.color_range == 2:
        return None
    if os.path.getsize(video.path) > WHOLE_SCAN_BYTES:
        return None
    bits, origin, ticks = Bitstream(codec), video.origin(), list[int]()
    video.rewind()
    for packet in video.packets():
        if packet.pts is None or packet.is_discard or packet.is_corrupt or bits.has_parameters(packet):
            return None
        ticks.append(packet.pts)
    ticks.sort()
    unique = all(a < b for a, b in pairwise(ticks))
    return ticks if unique and len(ticks) == video.stream.frames and ticks[0] == origin.ticks else None


def decode_with_decord(video: Video, frames: list[int], targets: list[int], studio: Studio) -> dict[int, int]:
    """Target -> ticks of the frame on screen. Raises Unproven where decord sees another video than PyAV."""
    import decord  # 50 ms and 100 MB that most children never need

    decord.logging.set_level(decord.logging.QUIET)
    origin = video.origin()
    upright = (origin.width, origin.height) if origin.turn % 2 else (origin.height, origin.width)
    with open(video.path, "rb") as file:  # by descriptor: decord wants UTF-8 names
        try:
            reader = decord.VideoReader(f"/proc/self/fd/{file.fileno()}", num_threads=1)
            starts = reader.get_frame_timestamp(range(len(reader)))[:, 0]
            ours = np.array([video.seconds(ticks) for ticks in frames])
            if len(starts) != len(frames) or np.abs(starts - starts[0] - ours + ours[0]).max() > 1e-3:
                raise Unproven("decord numbers the frames otherwise")
            shown = {target: frames[bisect.bisect_right(frames, target) - 1] for target in targets}
            for ticks in sorted(set(shown.values())):
                pixels = reader[bisect.bisect_left(frames, ticks)].asnumpy()
                if pixels.shape != (*upright, 3):
                    raise Unproven("decord shows another size")
                studio.take_rgb(ticks, pixels)
        except (decord.DECORDError, RuntimeError) as error:
            raise Unproven(f"decord: {error}") from error
    return shown
