"""Sizes and numbers: big bodies, many objects, and what they cost."""

from __future__ import annotations

import hashlib
import io
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from s3_server import S3Server

MIB = 1024 * 1024
OBJECTS = 2000
SAMPLE = 200
GENEROUS_RATIO = 3.0  # a snapshot of everything at every write would make it ten and more


class Pattern(io.RawIOBase):
    """A readable stream of a size, without the memory."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), self._size - self._position)
        start = self._position % 251
        pattern = bytes(range(251)) * (count // 251 + 2)
        buffer[:count] = pattern[start : start + count]
        self._position += count
        return count


def digest(stream: Any) -> str:
    md5 = hashlib.md5(usedforsecurity=False)
    while chunk := stream.read(MIB):
        md5.update(chunk)
    return md5.hexdigest()


PART = 16 * MIB


def memory_peak(server: S3Server) -> int:
    """Bytes that the server's process has had at most."""
    code, output = server.run("sh", "-c", "cat /proc/[0-9]*/status")
    assert code == 0
    return max(int(line.split()[1]) * 1024 for line in output.splitlines() if line.startswith("VmHWM"))


def test_big_object_goes_through_without_filling_memory(
    s3_server: S3Server, s3: S3Client, bucket: str
) -> None:
    size = 300 * MIB
    before = memory_peak(s3_server)
    etag = s3.put_object(Bucket=bucket, Key="big", Body=Pattern(size))["ETag"]
    expected = digest(Pattern(size))
    assert etag.strip('"') == expected
    # In parts, as boto3's own transfers do: LocalStack's web server keeps whatever a slow reader of one
    # answer has not read yet, and how slow this one is depends on the machine.
    got = hashlib.md5(usedforsecurity=False)
    for start in range(0, size, PART):
        part = f"bytes={start}-{start + PART - 1}"
        got.update(s3.get_object(Bucket=bucket, Key="big", Range=part)["Body"].read())
    assert got.hexdigest() == expected
    s3.copy_object(Bucket=bucket, Key="twin", CopySource={"Bucket": bucket, "Key": "big"})
    assert memory_peak(s3_server) - before < size // 3
    s3 = s3_server.kill_and_start()
    tail = s3.get_object(Bucket=bucket, Key="twin", Range=f"bytes={size - 10}-")["Body"].read()
    assert tail == bytes((size - 10 + number) % 251 for number in range(10))


def test_write_costs_the_same_with_two_thousand_objects(
    s3_server: S3Server, s3: S3Client, bucket: str
) -> None:
    def write(number: int) -> float:
        started = time.perf_counter()
        s3.put_object(Bucket=bucket, Key=f"logs/{number:05}", Body=b"x" * 200)
        return time.perf_counter() - started

    early = statistics.median(map(write, range(SAMPLE)))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(SAMPLE, OBJECTS - SAMPLE)))
    late = statistics.median(map(write, range(OBJECTS - SAMPLE, OBJECTS)))
    print(f"write p50: first {SAMPLE} {early * 1000:.2f} ms, last {SAMPLE} of {OBJECTS} {late * 1000:.2f} ms")
    assert late / early < GENEROUS_RATIO
    s3 = s3_server.kill_and_start()
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="logs/")
    assert sum(page["KeyCount"] for page in pages) == OBJECTS
