"""Storage to test on: a folder and an S3 prefix, each test in a fresh one."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault_proxy import FaultProxy, fault_proxy
from tests.s3 import BUCKET, s3_server, variables_set


@pytest.fixture(scope="session")
def s3_proxy() -> Iterator[FaultProxy]:
    """A running S3 server behind a proxy that can break its replies; the process's environment points to it."""
    with (
        s3_server() as variables,
        fault_proxy(variables["AWS_ENDPOINT_URL"]) as proxy,
        variables_set({**variables, "AWS_ENDPOINT_URL": proxy.url}),
    ):
        yield proxy


@pytest.fixture
def s3_url(s3_proxy: FaultProxy) -> str:
    """A fresh prefix."""
    return f"s3://{BUCKET}/{os.urandom(6).hex()}"


@pytest.fixture(params=["local", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh place for an index, on each kind of storage."""
    if request.param == "s3":
        found: str = request.getfixturevalue("s3_url")
        return found
    return str(tmp_path / "index")
