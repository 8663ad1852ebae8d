"""How FFmpeg reads a video: what the decode child (child.py), and nothing else, runs.

Rules that every path here keeps:

* Stream: FFmpeg's "best" video stream (av_find_best_stream, which decord takes too); attached pictures are no video.
* Time: presentation time in seconds from the first frame that a full sequential decode outputs.
* Pixels: RGB24 of exactly the wanted frame, turned upright by the display matrix where it turns by multiples of 90.
* A packet that does not decode is counted and passed over; what is around it is kept.

Ticks are integer presentation times in units of the stream's time base.
"""
