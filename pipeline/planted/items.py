"""The benchmark's items: seeds that splits never share."""

import hashlib

VERSION = "shapestream|v1"


def seed_of(split: str, kind: str, index: int) -> int:
    """The seed of one item: SHA-256 of its name, 64 bits of it."""
    return int.from_bytes(hashlib.sha256(f"{VERSION}|{split}|{kind}|{index}".encode()).digest()[:8], "big")
