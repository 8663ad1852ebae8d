"""What names a place below a storage's root, and what is refused before any byte is touched."""

import pytest

from pipeline.errors import UsageError
from pipeline.storage.base import inside


@pytest.mark.parametrize("path", ["", "a", "a/b.parquet", "_state/commits/00000001.json", "..a/b..", "a b"])
def test_a_path_below_the_root_is_itself(path: str) -> None:
    assert inside("file:///index", path) == path


@pytest.mark.parametrize(
    "path", ["..", "../a", "a/../../b", "a/..", "/etc/passwd", "a//b", "a/", ".", "a/./b", "a\\..\\b", "a\0b", "a\nb"]
)
def test_a_path_that_leaves_it_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="not a path below it"):
        inside("file:///index", path)
