"""Storage to test on: a folder and an S3 prefix, each test in a fresh one."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3 import BUCKET, s3_server, variables_set


@pytest.fixture(scope="session")
def s3_environment() -> Iterator[dict[str, str]]:
    """A running S3 server; the process's own environment points to it."""
    with s3_server() as variables, variables_set(variables):
        yield variables


@pytest.fixture
def s3_url(s3_environment: dict[str, str]) -> str:
    """A fresh prefix."""
    return f"s3://{BUCKET}/{os.urandom(6).hex()}"


@pytest.fixture(params=["local", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh place for an index, on each kind of storage."""
    if request.param == "s3":
        found: str = request.getfixturevalue("s3_url")
        return found
    return str(tmp_path / "index")
