"""The hub: a checkpoint's small files first, its weights when all else is well. Every failure says what to do next.

What was fetched lies in the hub's own cache (HF_HOME). A file gets its name there only when it is complete.
"""

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from httpx2 import HTTPError
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tqdm.auto import tqdm

from pipeline.errors import UsageError
from pipeline.models.headers import INDEX_FILE, Weights, files_of_index, merge

SMALL_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]
WEIGHTS = "*.safetensors"


def fetch_small(name: str, what: str) -> Path:
    """The snapshot folder of `name` with everything but weights; the cached one where the hub cannot be reached."""
    with _next_step(name, what):
        return Path(snapshot_download(name, allow_patterns=SMALL_FILES, tqdm_class=_Silent))


def remote_weights(name: str, folder: Path, what: str) -> Weights:
    """Names and shapes of the weights on the hub: a header of some kilobytes is read of each file, at its revision."""
    revision, api = folder.name, HfApi()
    with _next_step(name, what):
        there = {file.rfilename for file in api.model_info(name, revision=revision).siblings or ()}
        wanted = files_of_index(folder, what) or sorted(f for f in there if f.endswith(".safetensors") and "/" not in f)
        if not wanted:
            raise UsageError(
                f"{what}: the hub has no *.safetensors of it; other weight formats can run code and are not read"
            )
        if missing := [file for file in wanted if file not in there]:
            raise UsageError(f"{what}: {INDEX_FILE} names {missing[0]}, which the hub does not have")
        headers = {file: api.parse_safetensors_file_metadata(name, file, revision=revision) for file in wanted}
    return merge(
        {
            file: {
                tensor: {"shape": info.shape, "data_offsets": info.data_offsets}
                for tensor, info in header.tensors.items()
            }
            for file, header in headers.items()
        }
    )


def fetch_weights(name: str, revision: str, what: str, say: Callable[[str], object]) -> Path:
    """The snapshot folder with its weights; says so, and shows progress, where they must be fetched first."""
    patterns = [*SMALL_FILES, WEIGHTS]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=True))
    except (LocalEntryNotFoundError, OSError):
        pass  # not here, or not all of it
    say(f"fetching the weights of {name} to {constants.HF_HUB_CACHE}")
    with _next_step(name, what):
        path = Path(snapshot_download(name, revision=revision, allow_patterns=patterns, tqdm_class=_Progress))
    say(f"fetched {name}")
    return path


@contextmanager
def _next_step(name: str, what: str) -> Iterator[None]:
    """What the hub's client raises, as one line that ends in what to do."""
    fetch = f"run `hf download {name}` where there is a network, and set HF_HOME to its cache here"
    try:
        yield
    except GatedRepoError as error:
        raise UsageError(
            f"{what}: the hub gives it only to accounts that accepted its terms: accept them at "
            f"{constants.ENDPOINT}/{name}, then `hf auth login` or set HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise UsageError(f"{what}: the hub no longer has the revision this index was made with") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UsageError(
            f"{what}: neither a folder here nor a repository on the hub that this account may read; "
            "expected a path, or owner/name (private ones need `hf auth login` or HF_TOKEN)"
        ) from error
    except LocalEntryNotFoundError as error:
        raise UsageError(f"{what}: not a folder here, not cached, and the hub cannot be reached; {fetch}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise UsageError(f"{what}: the hub answered with HTTP status {status}; try later, or {fetch}") from error
    except (OSError, HTTPError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UsageError(
                f"{what}: the disk filled up while fetching it to {constants.HF_HUB_CACHE}; "
                "free some space, or set HF_HOME to a larger disk"
            ) from error
        raise UsageError(f"{what}: fetching it failed ({type(error).__name__}: {error}); {fetch}") from error


class _Progress(tqdm):  # type: ignore[misc]  # untyped upstream
    """A bar on a terminal; elsewhere a line each half minute."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.pop("name", None)  # what huggingface_hub calls its own bars
        if not sys.stderr.isatty():
            kwargs |= {"mininterval": 30.0, "ascii": True}
        super().__init__(*args, **kwargs)


class _Silent(_Progress):
    """Small files need no bar."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "disable": True})
