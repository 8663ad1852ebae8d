"""The index: stages, types, schemas, storage, publishing. It knows no cluster size and no bucket.

One door for each heavy dependency: ray in workers.py, decord and decoding with av in decoding/, fsspec and s3fs in
storage.py, transformers in encoder.py. The story is told in run.py.
"""
