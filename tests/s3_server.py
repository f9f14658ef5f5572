"""An S3 server by somebody else on this machine, as a process, and buckets in it."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import boto3  # type: ignore[import-untyped]

from homeserver.config.schema import S3Config
from homeserver.config.values import Secret

# It ends when its input does, so that it does not outlive the tests.
PROGRAM = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
KEY = "test-key-id"
SECRET = "test-secret-that-nobody-logs"

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Bucket:
    """A bucket of one test."""

    url: str
    name: str

    @property
    def config(self) -> S3Config:
        """The settings of a server that keeps its media there."""
        return S3Config(
            bucket=self.name,
            prefix="some/where/",
            endpoint_url=self.url,
            path_style=True,
            access_key_id=KEY,
            secret_access_key=Secret(SECRET),
        )

    @property
    def keys(self) -> list[str]:
        """All objects."""
        return [one["Key"] for one in self.client.list_objects_v2(Bucket=self.name).get("Contents", ())]

    @property
    def unfinished(self) -> list[str]:
        """The keys of uploads in parts that have not ended."""
        return [one["Key"] for one in self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", ())]

    @cached_property
    def client(self) -> Any:
        """Does what the tests want to be done in the bucket."""
        return _client(self.url)


@contextmanager
def s3_server() -> Iterator[str]:
    """Runs the server; gives its URL."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.kill()


def new_bucket(url: str) -> Bucket:
    """An empty bucket."""
    bucket = Bucket(url, f"bucket-{next(_numbers)}")
    bucket.client.create_bucket(Bucket=bucket.name)
    return bucket


def _client(url: str) -> Any:
    return boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id=KEY, aws_secret_access_key=SECRET
    )
