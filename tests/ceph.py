"""A real S3 server for the tests: Ceph's RADOS Gateway from Debian, on the loopback interface.

One monitor, one daemon that stores objects in its memory, and the gateway that speaks S3. What a
test stores is gone when the block ends.
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import requests
from ports import free_ports

PROGRAMS = (
    *("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin"),
    *("ceph-authtool", "monmaptool", "osdmaptool"),
)
needs_rgw = pytest.mark.skipif(
    not all(map(shutil.which, PROGRAMS)),
    reason="needs Ceph's S3 gateway: apt-get install radosgw ceph-mon ceph-osd",
)
DAEMONS = {
    "mon": ("ceph-mon", "-i", "a", "-f", "--no-mon-config"),
    "osd": ("ceph-osd", "-i", "0", "-f", "--no-mon-config"),
    "rgw": ("radosgw", "-n", "client.rgw", "-f", "--no-mon-config"),
}
START_S = 60.0
REGION = "us-east-1"
CONFIG = """\
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{mon_port}]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_ipv6 = false
mon_data = {folder}/mon
osd_data = {folder}/osd
keyring = {folder}/keyring
log_file = {folder}/$name.log
run_dir = {folder}
admin_socket =
pid_file =
# No keys between the daemons; then the monitor's connections may not be encrypted either, or the
# gateway waits for ever.
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_mon_client_mode = crc
ms_client_mode = crc
# One daemon holds the only copy of everything, in memory.
osd_objectstore = memstore
memstore_device_bytes = {capacity}
osd_crush_chooseleaf_type = 0
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
mon_allow_pool_size_one = true
mon_osd_auto_mark_in = true
mon_data_avail_warn = 1
mon_data_avail_crit = 1
# By default the monitor gathers changes for a second before it agrees with itself, and a client
# looks every five seconds for a storage daemon that was not there: 12 s of a start that takes 1.
paxos_propose_interval = 0.02
paxos_min_wait = 0.01
objecter_tick_interval = 0.2
[client.rgw]
rgw_frontends = beast endpoint=127.0.0.1:{rgw_port}
rgw_dns_name = localhost
rgw_enable_usage_log = false
"""


@dataclass(frozen=True, kw_only=True)
class Rgw:
    """A gateway that runs, and what its only user does past the code under test."""

    endpoint: str
    access_key: str
    secret_key: str

    @property
    def env(self) -> dict[str, str]:
        """What a process needs in its environment to reach it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": REGION,
        }

    @cached_property
    def client(self) -> Any:
        """A client of its own, of botocore; threads may share it."""
        return botocore.session.Session().create_client(
            "s3",
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
        )

    def make_bucket(self, name: str, *, public: bool = False) -> str:
        """Make a bucket, which anyone may read if it is public; returns its URI."""
        self.client.create_bucket(Bucket=name)
        if public:
            statement = {
                "Effect": "Allow",
                "Principal": "*",
                "Action": ["s3:GetObject"],
                "Resource": [f"arn:aws:s3:::{name}/*"],
            }
            policy = {"Version": "2012-10-17", "Statement": [statement]}
            self.client.put_bucket_policy(Bucket=name, Policy=json.dumps(policy))
        return f"s3://{name}"

    def put(self, bucket: str, objects: Iterable[tuple[str, bytes]]) -> None:
        """Store objects under their keys, several at a time."""

        def put(item: tuple[str, bytes]) -> None:
            self.client.put_object(Bucket=bucket, Key=item[0], Body=item[1])

        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(put, objects))

    def upload(self, bucket: str, folder: Path) -> None:
        """Store all files below a folder under their relative paths."""
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        self.put(bucket, ((p.relative_to(folder).as_posix(), p.read_bytes()) for p in paths))

    def listing(self, bucket: str, prefix: str = "") -> dict[str, dict[str, Any]]:
        """Return what a listing tells of each key: ETag, LastModified, Size."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return {item["Key"]: item for page in pages for item in page.get("Contents", ())}

    def files(self, bucket: str, prefix: str = "") -> dict[str, bytes]:
        """Return the content of each key."""

        def get(key: str) -> bytes:
            return bytes(self.client.get_object(Bucket=bucket, Key=key)["Body"].read())

        keys = list(self.listing(bucket, prefix))
        with ThreadPoolExecutor(max_workers=8) as pool:
            return dict(zip(keys, pool.map(get, keys), strict=True))

    def delete(self, bucket: str, keys: Iterable[str]) -> None:
        """Remove objects."""
        for key in keys:
            self.client.delete_object(Bucket=bucket, Key=key)


@contextmanager
def running_rgw(folder: Path, *, capacity: int = 2 << 30) -> Iterator[Rgw]:
    """Run an empty gateway until the block ends.

    Args:
        folder: Where it keeps its logs and its few files.
        capacity: Bytes of memory that objects may fill.

    Raises:
        RuntimeError: it did not start; the message ends with the daemons' logs.
    """
    mon_port, rgw_port = free_ports(2)
    config, fsid = folder / "ceph.conf", str(uuid.uuid4())
    config.write_text(
        CONFIG.format(
            fsid=fsid, folder=folder, capacity=capacity, mon_port=mon_port, rgw_port=rgw_port
        )
    )
    server = Rgw(
        endpoint=f"http://127.0.0.1:{rgw_port}",
        access_key=f"CANARYACCESS{secrets.token_hex(6)}",
        secret_key=f"CANARYSECRET{secrets.token_hex(12)}",
    )
    with ExitStack() as daemons:
        try:
            _prepare(folder, config, fsid, mon_port)
            running = [
                daemons.enter_context(_daemon(*command, "-c", config, log=folder / f"{name}.out"))
                for name, command in DAEMONS.items()
            ]
            _wait(server, running)
            _make_user(server, config)
        except (OSError, TimeoutError, subprocess.SubprocessError) as error:
            raise RuntimeError(f"Ceph did not start: {error}{_logs(folder)}") from error
        yield server


def _prepare(folder: Path, config: Path, fsid: str, mon_port: int) -> None:
    """Write what the daemons look for: a key that nobody asks for, and the first maps.

    The map names the storage daemon before it has ever run; so nobody has to wait for the monitor
    in order to introduce the two.
    """
    for name in ("mon", "osd"):
        (folder / name).mkdir()
    monitor = f"[v2:127.0.0.1:{mon_port}]"
    monmap, osdmap = folder / "monmap", folder / "osdmap"
    keyring = ("--create-keyring", folder / "keyring", "--gen-key", "--name", "client.rgw")
    _call("ceph-authtool", *keyring)
    _call("monmaptool", "--create", "--fsid", fsid, "--addv", "a", monitor, monmap)
    _call("osdmaptool", "--createsimple", "1", osdmap)
    _call("ceph-mon", "-i", "a", "-c", config, "--mkfs", "--monmap", monmap, "--osdmap", osdmap)
    _call("ceph-osd", "-i", "0", "-c", config, "--no-mon-config", "--mkfs")


def _call(*command: str | Path) -> None:
    subprocess.run(
        [str(part) for part in command], check=True, capture_output=True, timeout=START_S
    )


@contextmanager
def _daemon(*command: str | Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a daemon until the block ends, or the tests do, however they end."""
    ends_with_us = ("setpriv", "--pdeathsig", "KILL")
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*ends_with_us, *(str(part) for part in command)], stdout=out, stderr=out
        )
    try:
        yield process
    finally:
        process.kill()  # it holds nothing that should outlive it
        process.wait()


def _wait(server: Rgw, daemons: Sequence[subprocess.Popen[bytes]]) -> None:
    """Return when the gateway answers.

    Raises:
        TimeoutError: it does not, or a daemon ended.
    """
    end = time.monotonic() + START_S
    while time.monotonic() < end and all(daemon.poll() is None for daemon in daemons):
        try:
            requests.get(server.endpoint, timeout=1)
        except requests.RequestException:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"no answer at {server.endpoint}")


def _make_user(server: Rgw, config: Path) -> None:
    keys = ("--access-key", server.access_key, "--secret", server.secret_key)
    user = ("user", "create", "--uid", "tests", "--display-name", "tests", *keys)
    _call("radosgw-admin", "-c", config, "--no-mon-config", "-n", "client.rgw", *user)


def _logs(folder: Path) -> str:
    """Return the last words of each daemon."""
    logs = [path for path in sorted(folder.iterdir()) if path.suffix in {".log", ".out"}]
    return "".join(f"\n{p.name}: {p.read_text(errors='replace')[-1500:]}" for p in logs)
