"""The messages between the decoder and its child: a JSON header and raw bytes, each with its length in front.

No pickle: the child parses hostile files and is not trusted with more than text and pixels.
"""

import json
import os
import select
import struct
import time
from typing import Any

_LENGTHS = struct.Struct(">IQ")  # bytes of header, bytes of payload
MAX_HEADER_BYTES = 64 << 20
MAX_PAYLOAD_BYTES = 2 << 30


class PipeClosed(Exception):
    """The other side is gone."""


class PipeSilent(Exception):
    """Nothing came before the deadline."""


class PipeGarbled(Exception):
    """What came is no message."""


def send(fd: int, header: dict[str, Any], *payload: bytes | memoryview) -> None:
    """Write one message. Raises PipeClosed."""
    text = json.dumps(header).encode("ascii")
    parts = [memoryview(part).cast("B") for part in payload]
    try:
        _write_all(fd, memoryview(_LENGTHS.pack(len(text), sum(map(len, parts))) + text))
        for part in parts:
            _write_all(fd, part)
    except (BrokenPipeError, OSError) as error:
        raise PipeClosed(str(error)) from error


def receive(fd: int, silence_s: float | None = None) -> tuple[dict[str, Any], bytearray]:
    """Read one message; with `silence_s`, give up when no byte comes for so long.

    Raises PipeClosed at the end of the stream, PipeSilent, PipeGarbled.
    """
    n_header, n_payload = _LENGTHS.unpack(_read_exactly(fd, _LENGTHS.size, silence_s))
    if n_header > MAX_HEADER_BYTES or n_payload > MAX_PAYLOAD_BYTES:
        raise PipeGarbled(f"a message of {n_header} + {n_payload} bytes")
    try:
        header = json.loads(_read_exactly(fd, n_header, silence_s))
    except ValueError as error:
        raise PipeGarbled(f"the header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise PipeGarbled("the header is not an object")
    return header, _read_exactly(fd, n_payload, silence_s)


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data[: 1 << 20]) :]


def _read_exactly(fd: int, n: int, silence_s: float | None) -> bytearray:
    data = bytearray(n)
    view, done = memoryview(data), 0
    while done < n:
        _wait_readable(fd, silence_s)
        got = os.readv(fd, [view[done : done + (1 << 20)]])
        if not got:
            raise PipeClosed(f"the stream ended after {done} of {n} bytes")
        done += got
    return data


def _wait_readable(fd: int, silence_s: float | None) -> None:
    if silence_s is None:
        return
    deadline = time.monotonic() + silence_s
    poller = select.poll()  # select() itself fails for descriptors above 1023
    poller.register(fd, select.POLLIN)
    while not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
        if time.monotonic() >= deadline:
            raise PipeSilent(f"nothing for {silence_s:g} s")
