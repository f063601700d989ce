"""Full disk, wrong volume, damaged or newer data: a clear word, and nothing lost."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import docker
import pytest
from botocore.exceptions import ClientError
from s3_server import HARDENING, START_SECONDS, S3Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_s3 import S3Client

MIB = 1024 * 1024
DISK = 64 * MIB
NEWER_SCHEMA = (
    "import sqlite3; c = sqlite3.connect('/var/lib/localstack/s3/metadata.sqlite3'); {}; c.commit()"
)


@pytest.fixture
def small_disk(localstack_image: str) -> Iterator[S3Server]:
    """A server on a disk of 64 MiB, of which it keeps 16 free; another container keeps the disk alive."""
    options = {"type": "tmpfs", "device": "tmpfs", "o": f"size={DISK},uid=50000,gid=50000"}
    server = S3Server(localstack_image, volume_options=options, AIRBRIDGE_S3_RESERVE_MIB="16")
    with server:
        keeper = docker.from_env().containers.run(
            localstack_image,
            ["86400"],
            entrypoint=["sleep"],
            name=f"{server.name}-keeper",
            volumes={server.name: {"bind": "/var/lib/localstack"}},
            detach=True,
            init=True,
            user="50000:50000",
        )
        try:
            yield server
        finally:
            keeper.remove(force=True)


def health_status(server: S3Server) -> int:
    try:
        with urllib.request.urlopen(f"{server.url}/_airbridge/health", timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def run_once(
    image: str, volume: str, mode: str = "rw", command: list[str] | None = None, **options: Any
) -> tuple[int, str]:
    """Run the image on a volume until it ends; return exit code and output."""
    container = docker.from_env().containers.run(
        image,
        command,
        volumes={volume: {"bind": "/var/lib/localstack", "mode": mode}},
        detach=True,
        **{**HARDENING, **options},
    )
    try:
        code = container.wait(timeout=START_SECONDS)["StatusCode"]
        return code, container.logs().decode().strip()
    finally:
        container.remove(force=True)


def test_full_disk_refuses_writes_keeps_everything_and_recovers(small_disk: S3Server) -> None:
    s3 = small_disk.client()
    s3.create_bucket(Bucket="full")
    kept: dict[str, bytes] = {}
    refused = None
    for number in range(60):
        content = bytes([number]) * MIB
        try:
            s3.put_object(Bucket="full", Key=f"k{number}", Body=content)
            kept[f"k{number}"] = content
        except ClientError as error:
            refused = error
            break
    assert refused is not None
    assert refused.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert refused.response["Error"]["Code"] == "ServiceUnavailable"
    assert "is full" in refused.response["Error"]["Message"]
    assert "fix: delete objects" in refused.response["Error"]["Message"]
    assert 30 < len(kept) < 50
    with pytest.raises(ClientError, match="ServiceUnavailable"):
        s3.put_object(Bucket="full", Key="k0", Body=b"y" * MIB)
    with pytest.raises(
        ClientError, match="ServiceUnavailable"
    ):  # does not even fit into the buffer of the server
        s3.put_object(Bucket="full", Key="huge", Body=b"z" * DISK)
    assert health_status(small_disk) == http.client.SERVICE_UNAVAILABLE
    assert (
        small_disk.run(
            "/usr/bin/python3", "-I", "/opt/airbridge/project/airbridge/localstack/healthcheck.py"
        )[0]
        == 1
    )

    s3 = small_disk.kill_and_start_unhealthy()
    assert {o["Key"] for o in s3.list_objects_v2(Bucket="full")["Contents"]} == set(kept)
    for key, content in kept.items():
        assert s3.get_object(Bucket="full", Key=key)["Body"].read() == content

    s3.delete_objects(Bucket="full", Delete={"Objects": [{"Key": f"k{number}"} for number in range(20)]})
    small_disk.wait_until_healthy()  # bodies go a few seconds after their objects
    s3.put_object(Bucket="full", Key="after", Body=b"works again")
    assert s3.get_object(Bucket="full", Key="after")["Body"].read() == b"works again"


def test_start_on_a_full_disk_is_refused_in_one_line(small_disk: S3Server, localstack_image: str) -> None:
    small_disk.kill()
    fill = "dd if=/dev/zero of=/var/lib/localstack/fill bs=1M count=1000 2>/dev/null || true"
    run_once(localstack_image, small_disk.name, entrypoint=["sh", "-c"], command=[fill])
    code, output = run_once(localstack_image, small_disk.name)
    assert code != 0
    assert output.startswith("localstack: S3 data directory /var/lib/localstack/s3 is full")
    assert "fix: free at least 4 MiB" in output
    assert len(output.splitlines()) == 1
    run_once(localstack_image, small_disk.name, entrypoint=["rm"], command=["/var/lib/localstack/fill"])
    small_disk.start()


def test_start_on_a_volume_that_is_not_writable_is_refused_in_one_line(
    s3_server: S3Server, localstack_image: str
) -> None:
    code, output = run_once(localstack_image, s3_server.name, mode="ro")
    assert code != 0
    assert "/var/lib/localstack/s3 is not writable: Read-only file system | fix: mount a volume" in output
    assert len(output.splitlines()) == 1
    code, output = run_once(localstack_image, s3_server.name, user="60000:60000")
    assert code != 0
    assert "is not writable: Permission denied | fix: mount a volume that uid 60000 owns" in output
    assert len(output.splitlines()) == 1


def test_second_server_on_one_volume_is_refused(
    s3_server: S3Server, s3: S3Client, localstack_image: str
) -> None:
    code, output = run_once(localstack_image, s3_server.name)
    assert code != 0
    assert output.startswith(
        "localstack: /var/lib/localstack/s3 is in use by another process | fix: stop the other"
    )
    assert s3.list_buckets()["Buckets"] is not None


def test_malformed_setting_is_named(s3_server: S3Server, localstack_image: str) -> None:
    code, output = run_once(
        localstack_image, s3_server.name, environment={"AIRBRIDGE_S3_RESERVE_MIB": "much"}
    )
    assert code == 2
    assert output.startswith("localstack: AIRBRIDGE_S3_RESERVE_MIB is malformed")
    assert len(output.splitlines()) == 1


def test_newer_and_damaged_databases_are_refused_in_one_line(localstack_image: str) -> None:
    with S3Server(localstack_image) as server:
        server.client().create_bucket(Bucket="full")
        server.container.stop(timeout=30)

        def tamper(code: str) -> None:
            script = NEWER_SCHEMA.format(code)
            assert run_once(
                localstack_image, server.name, entrypoint=["python3", "-c"], command=[script]
            ) == (0, "")

        tamper("c.execute('PRAGMA user_version = 99')")
        code, output = run_once(localstack_image, server.name)
        assert code == 5
        assert "has schema 99, this release reads up to 1 | fix: run the newer release" in output
        assert len(output.splitlines()) == 1
        tamper("c.execute('PRAGMA user_version = 1')")
        server.start()
        assert [b["Name"] for b in server.client().list_buckets()["Buckets"]] == ["full"]
        server.container.stop(timeout=30)
        tamper("open('/var/lib/localstack/s3/metadata.sqlite3', 'wb').write(b'no database' * 1000)")
        code, output = run_once(localstack_image, server.name)
        assert code == 5
        assert "cannot be read: file is not a database | fix: restore the S3 volume from a backup" in output
        assert len(output.splitlines()) == 1


def test_body_that_is_gone_is_an_error_and_not_wrong_data(
    s3_server: S3Server, s3: S3Client, bucket: str
) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"unique-content-of-this-test")
    find = "grep -rl unique-content-of-this-test /var/lib/localstack/s3/bodies"
    code, path = s3_server.run("sh", "-c", find)
    assert code == 0
    s3_server.run("truncate", "-s", "3", path.strip())
    with pytest.raises(ClientError, match=r"InternalError.*3 bytes, 27 were written"):
        s3.get_object(Bucket=bucket, Key="k")


def test_container_is_hardened_healthy_and_stops_in_order(s3_server: S3Server, s3: S3Client) -> None:
    attributes = s3_server.container.attrs
    assert attributes["Config"]["User"] == "50000:50000"
    assert attributes["HostConfig"]["ReadonlyRootfs"] is True
    code, output = s3_server.run(
        "/usr/bin/python3", "-I", "/opt/airbridge/project/airbridge/localstack/healthcheck.py"
    )
    assert (code, output) == (0, "")
    s3_server.container.stop(timeout=30)
    assert s3_server.container.attrs["State"]["ExitCode"] == 0
    s3_server.start()
