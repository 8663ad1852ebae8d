"""The index of a video archive, in rooms. It knows no cluster size and no bucket.

`run.py` tells the story of a run; `config.py`, `types.py` and `errors.py` hold the words that every room uses. Each
folder is a room, and says in one sentence what it is for. Each heavy dependency has one door: Ray in
execution/on_ray.py, decoders in decoding/ffmpeg/, fsspec and s3fs in storage/, transformers in models/encoder.py.
"""
