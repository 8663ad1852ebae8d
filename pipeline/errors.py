"""Every way to fail, in one tree.

JobError                          something stops the job: one clear line and an exit code
├── UsageError            exit 2  what was asked for cannot be done; nothing was touched
├── BooksDoNotBalance     exit 4  rows and listing disagree
└── IndexLocked           exit 5  a live run holds the index

VideoError                        a video is bad: data, never a stop; becomes a row in `errors`
├── permanent: not tried again until the video's version or the fingerprint changes
│   ├── Refused           a playlist, reference format or still image, told by content
│   ├── NotAVideo         no demuxer we allow knows it, or it has no video stream
│   ├── OutsideArchive    a symbolic link that leaves the root
│   ├── SpecialFile       a FIFO, socket, device, directory or broken link
│   ├── NoFrames          a video stream of which no frame decodes
│   ├── TooLarge          beyond a stated bound; nothing was decoded
│   ├── DecodeCrashed     the decode child died on it, twice, with both decoders
│   └── NotFinite         a model gave NaN or infinity for a frame
└── transient: tried again, with backoff, in later runs; quarantined after three
    ├── DecodeTimeout     60 s without a finished frame
    ├── ReadFailed        storage answered with an error, or permission is missing
    ├── ChangedWhileRead  size or mtime differ from the listing
    ├── WorkerLost        the process holding the item died
    └── OutOfMemory       a GPU that cannot hold one clip
"""

from typing import ClassVar


class JobError(Exception):
    """Stops the job with one line on stderr and `exit_code`."""

    exit_code: ClassVar[int] = 1


class UsageError(JobError):
    """What was given cannot be done. The message names what was given and what was expected."""

    exit_code = 2


class BooksDoNotBalance(JobError):
    """Rows and listing disagree; the message lists the differences."""

    exit_code = 4


class IndexLocked(JobError):
    """A live run holds the index."""

    exit_code = 5


class VideoError(Exception):
    """A video (or one item of it) cannot be indexed. Its class name is the `error_class` of the row."""

    transient: ClassVar[bool] = False


class Refused(VideoError):
    """A playlist, reference format or still image, recognised by content before any decoder opened it."""


class NotAVideo(VideoError):
    """No allowed container, or no video stream in it."""


class OutsideArchive(VideoError):
    """A symbolic link whose target lies outside the root that listed it."""


class SpecialFile(VideoError):
    """A FIFO, socket, device, directory or dangling link; it was not opened."""


class NoFrames(VideoError):
    """A video stream exists, but no frame of it decodes."""


class TooLarge(VideoError):
    """Beyond a bound (pixels, hours, samples); nothing was decoded."""


class DecodeCrashed(VideoError):
    """The decode child died on this video with every decoder it was given."""


class NotFinite(VideoError):
    """A model gave NaN or infinity for a frame of a clip; the other clips have their rows."""


class TransientVideoError(VideoError):
    """Worth trying again: the cause may be gone next time."""

    transient = True


class DecodeTimeout(TransientVideoError):
    """No frame finished within the deadline."""


class ReadFailed(TransientVideoError):
    """Storage or permission kept us from the bytes."""


class ChangedWhileRead(TransientVideoError):
    """Size or modification time differ from the listing."""


class WorkerLost(TransientVideoError):
    """The process that held the item died."""


class OutOfMemory(TransientVideoError):
    """The device cannot hold even one clip."""


def _leaves(cls: type[VideoError]) -> list[type[VideoError]]:
    below = cls.__subclasses__()
    return [leaf for sub in below for leaf in _leaves(sub)] if below else [cls]


VIDEO_ERRORS: dict[str, type[VideoError]] = {leaf.__name__: leaf for leaf in _leaves(VideoError)}
"""error_class -> class, for rebuilding an error that crossed a process boundary as text."""
