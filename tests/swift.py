"""OpenStack Swift with its s3api on loopback: an S3 server by other hands, which checks signatures.

Swift is no dependency of this project: `make nightly` installs it in an environment of its own, whose bin SWIFT_BIN
names. Four processes, one copy of everything, an own user (tempauth); file attributes are needed.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from tests.s3 import free_ports

BUCKET = "test-bucket"
KEY_ID, SECRET = "test:tester", "swift-secret-that-must-never-be-written"

_COMMON = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 1
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
user = {user}
log_level = ERROR
log_name = {name}
"""
_STORE = (
    _COMMON
    + """[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
"""
)
_PROXY = (
    _COMMON
    + """[pipeline:main]
pipeline = catch_errors proxy-logging cache listing_formats s3api tempauth slo dlo copy proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:proxy-logging]
use = egg:swift#proxy_logging
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
allow_multipart_uploads = true
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {secret} .admin
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:copy]
use = egg:swift#copy
"""
)


def swift_bin() -> Path | None:
    """Where Swift's commands are, if anybody said so."""
    found = Path(os.environ.get("SWIFT_BIN", ""))
    return found if (found / "swift-proxy-server").exists() else None


@contextlib.contextmanager
def swift_server(binaries: Path, folder: Path) -> Iterator[dict[str, str]]:
    """Starts Swift with an empty bucket; yields the environment variables that lead any AWS client to it."""
    names, ports = ("account", "container", "object", "proxy"), free_ports(4)
    (folder / "devices" / "d1").mkdir(parents=True)
    (folder / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = a\nswift_hash_path_prefix = b\n"
        "[storage-policy:0]\nname = only\ndefault = yes\n"
    )
    for name, port in zip(names, ports, strict=True):
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        template = _PROXY if name == "proxy" else _STORE
        text = template.format(port=port, folder=folder, name=name, user=user, secret=SECRET)
        (folder / f"{name}.conf").write_text(text)
        if name != "proxy":
            builder = [str(binaries / "swift-ring-builder"), str(folder / f"{name}.builder")]
            for step in (["create", "4", "1", "0"], ["add", f"r1z1-127.0.0.1:{port}/d1", "1"], ["rebalance"]):
                subprocess.run([*builder, *step], check=True, capture_output=True)
    servers = []
    try:
        for name in names:
            log = (folder / f"{name}.log").open("wb")
            command = [str(binaries / f"swift-{name}-server"), str(folder / f"{name}.conf"), "-v"]
            environment = {**os.environ, "SWIFT_TEST_CONFIG_FILE": "", "PYTHONPATH": ""}
            servers.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder))
        variables = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports[-1]}",
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        _make_bucket(variables)
        yield variables
    finally:
        for server in servers:
            server.kill()
            server.wait()


def _make_bucket(variables: dict[str, str]) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=variables["AWS_ENDPOINT_URL"],
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
    )
    deadline = time.monotonic() + 30
    while True:
        try:
            client.create_bucket(Bucket=BUCKET)
            return
        except (BotoCoreError, ClientError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
