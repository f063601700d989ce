"""What S3 acknowledged is there after a restart, a new container, and kill -9."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from s3_server import S3Server

MIB = 1024 * 1024
LIFECYCLE = {
    "Rules": [{"ID": "old", "Status": "Enabled", "Filter": {"Prefix": "x/"}, "Expiration": {"Days": 3}}]
}
CORS = {"CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["https://a.example"]}]}
ENCRYPTION = {
    "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": True}]
}
POLICY = '{"Version":"2012-10-17","Statement":[]}'


def body(s3: Any, **where: str) -> bytes:
    content: bytes = s3.get_object(**where)["Body"].read()
    return content


def versions(s3: Any, bucket: str) -> list[tuple[str, str, bool, str]]:
    """(key, version id, newest, "object" or "marker"), in the order of S3."""
    page = s3.list_object_versions(Bucket=bucket)
    assert not page["IsTruncated"]
    rows = [(v["Key"], v["VersionId"], v["IsLatest"], "object") for v in page.get("Versions", [])]
    return rows + [(v["Key"], v["VersionId"], v["IsLatest"], "marker") for v in page.get("DeleteMarkers", [])]


def settings_of(s3: Any, bucket: str) -> dict[str, Any]:
    answers = {
        "versioning": s3.get_bucket_versioning(Bucket=bucket),
        "policy": s3.get_bucket_policy(Bucket=bucket),
        "lifecycle": s3.get_bucket_lifecycle_configuration(Bucket=bucket),
        "cors": s3.get_bucket_cors(Bucket=bucket),
        "tags": s3.get_bucket_tagging(Bucket=bucket),
        "encryption": s3.get_bucket_encryption(Bucket=bucket),
        "location": s3.get_bucket_location(Bucket=bucket),
        "public": s3.get_public_access_block(Bucket=bucket),
    }
    for answer in answers.values():
        answer.pop("ResponseMetadata")
    return answers


@pytest.mark.parametrize("how", ["restart", "replace", "kill_and_start"])
def test_everything_that_s3_shows_is_the_same_afterwards(
    s3_server: S3Server, s3: S3Client, bucket: str, how: str
) -> None:
    s3.put_bucket_policy(Bucket=bucket, Policy=POLICY)
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=LIFECYCLE)
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration=CORS)
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "team", "Value": "data"}]})
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=ENCRYPTION)
    first = s3.put_object(
        Bucket=bucket,
        Key="a/ä b.py",
        Body=b"one",
        Metadata={"who": "me"},
        ContentType="text/x-python",
        Tagging="n=1",
    )
    s3.put_object(Bucket=bucket, Key="a/ä b.py", Body=b"two", CacheControl="no-cache")
    s3.put_object(Bucket=bucket, Key="empty", Body=b"")
    s3.put_object(Bucket=bucket, Key="deleted", Body=b"still there as a version")
    s3.delete_object(Bucket=bucket, Key="deleted")
    s3.put_object_tagging(Bucket=bucket, Key="empty", Tagging={"TagSet": [{"Key": "k", "Value": "v"}]})
    s3.put_object_acl(Bucket=bucket, Key="empty", ACL="public-read")
    s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "a/ä b.py"})

    def picture(client: Any) -> list[Any]:
        head = client.head_object(
            Bucket=bucket, Key="a/ä b.py", VersionId=first["VersionId"], ChecksumMode="ENABLED"
        )
        newest = client.head_object(Bucket=bucket, Key="a/ä b.py")
        for answer in (head, newest):
            answer.pop("ResponseMetadata")
        return [
            settings_of(client, bucket),
            versions(client, bucket),
            head,
            newest,
            [
                (o["Key"], o["ETag"], o["Size"], o["LastModified"])
                for o in client.list_objects_v2(Bucket=bucket)["Contents"]
            ],
            client.get_object_tagging(Bucket=bucket, Key="empty")["TagSet"],
            client.get_object_tagging(Bucket=bucket, Key="a/ä b.py", VersionId=first["VersionId"])["TagSet"],
            client.get_object_acl(Bucket=bucket, Key="empty")["Grants"],
            body(client, Bucket=bucket, Key="a/ä b.py"),
            body(client, Bucket=bucket, Key="a/ä b.py", VersionId=first["VersionId"]),
            body(client, Bucket=bucket, Key="copy"),
            body(client, Bucket=bucket, Key="empty"),
        ]

    before = picture(s3)
    assert before[-4:] == [b"two", b"one", b"two", b""]
    assert before[2]["Metadata"] == {"who": "me"}
    assert before[2]["ChecksumCRC32"]
    assert picture(getattr(s3_server, how)()) == before


def test_rollback_by_version_works_after_kill(s3_server: S3Server, s3: S3Client, bucket: str) -> None:
    old = s3.put_object(
        Bucket=bucket, Key="dag.py", Body=b"good", Metadata={"release": "1"}, ContentType="text/x-python"
    )["VersionId"]
    s3.put_object(Bucket=bucket, Key="dag.py", Body=b"bad")
    s3 = s3_server.kill_and_start()
    s3.copy_object(
        Bucket=bucket, Key="dag.py", CopySource={"Bucket": bucket, "Key": "dag.py", "VersionId": old}
    )
    marker = s3.delete_object(Bucket=bucket, Key="gone.py")["VersionId"]
    s3 = s3_server.kill_and_start()
    assert body(s3, Bucket=bucket, Key="dag.py") == b"good"
    head = s3.head_object(Bucket=bucket, Key="dag.py")
    assert (head["Metadata"], head["ContentType"]) == ({"release": "1"}, "text/x-python")
    assert len(versions(s3, bucket)) == 4
    s3.delete_object(Bucket=bucket, Key="gone.py", VersionId=marker)
    assert "gone.py" not in {key for key, *_ in versions(s3, bucket)}


def test_refused_overwrite_leaves_the_object_as_it_was(s3_server: S3Server, s3: S3Client) -> None:
    plain = s3_server.unused_bucket_name()
    s3.create_bucket(Bucket=plain)
    s3.put_object(Bucket=plain, Key="k", Body=b"old")
    with pytest.raises(ClientError, match="BadDigest"):
        s3.put_object(Bucket=plain, Key="k", Body=b"new", ContentMD5="AAAAAAAAAAAAAAAAAAAAAA==")
    assert body(s3, Bucket=plain, Key="k") == b"old"
    s3 = s3_server.kill_and_start()
    assert body(s3, Bucket=plain, Key="k") == b"old"


def test_deletes_stay_deleted(s3_server: S3Server, s3: S3Client, bucket: str) -> None:
    plain = s3_server.unused_bucket_name()
    s3.create_bucket(Bucket=plain)
    for number in range(5):
        s3.put_object(Bucket=plain, Key=f"k{number}", Body=b"x")
    s3.put_object(Bucket=plain, Key="k0", Body=b"overwritten")
    s3.delete_object(Bucket=plain, Key="k1")
    s3.delete_objects(Bucket=plain, Delete={"Objects": [{"Key": "k2"}, {"Key": "k3"}]})
    version = s3.put_object(Bucket=bucket, Key="v", Body=b"x")["VersionId"]
    s3.delete_object(Bucket=bucket, Key="v", VersionId=version)
    s3.delete_bucket(Bucket=bucket)
    s3 = s3_server.kill_and_start()
    assert [o["Key"] for o in s3.list_objects_v2(Bucket=plain)["Contents"]] == ["k0", "k4"]
    assert body(s3, Bucket=plain, Key="k0") == b"overwritten"
    with pytest.raises(ClientError, match="NoSuchBucket"):
        s3.list_objects_v2(Bucket=bucket)


def test_multipart_uploads_in_progress_and_completed_survive(
    s3_server: S3Server, s3: S3Client, bucket: str
) -> None:
    parts = [random.Random(number).randbytes(5 * MIB + number) for number in range(3)]
    done = s3.create_multipart_upload(Bucket=bucket, Key="done", Metadata={"a": "b"})["UploadId"]
    etags = [
        s3.upload_part(Bucket=bucket, Key="done", UploadId=done, PartNumber=number, Body=part)["ETag"]
        for number, part in enumerate(parts, 1)
    ]
    complete = {"Parts": [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]}
    result = s3.complete_multipart_upload(Bucket=bucket, Key="done", UploadId=done, MultipartUpload=complete)
    going = s3.create_multipart_upload(Bucket=bucket, Key="going")["UploadId"]
    etag = s3.upload_part(Bucket=bucket, Key="going", UploadId=going, PartNumber=1, Body=parts[0])["ETag"]

    s3 = s3_server.kill_and_start()
    assert body(s3, Bucket=bucket, Key="done", VersionId=result["VersionId"]) == b"".join(parts)
    assert s3.head_object(Bucket=bucket, Key="done", PartNumber=2)["ContentLength"] == len(parts[1])
    assert s3.head_object(Bucket=bucket, Key="done")["ETag"] == result["ETag"]
    assert [u["UploadId"] for u in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]] == [going]
    last = s3.upload_part(Bucket=bucket, Key="going", UploadId=going, PartNumber=2, Body=b"end")["ETag"]
    s3.complete_multipart_upload(
        Bucket=bucket,
        Key="going",
        UploadId=going,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}, {"PartNumber": 2, "ETag": last}]},
    )
    assert body(s3, Bucket=bucket, Key="going") == parts[0] + b"end"
    with pytest.raises(ClientError, match="NoSuchUpload"):
        s3.abort_multipart_upload(Bucket=bucket, Key="going", UploadId=going)


def test_conditional_writes_hold_after_kill(s3_server: S3Server, s3: S3Client, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="lock", Body=b"mine", IfNoneMatch="*")["ETag"]
    s3 = s3_server.kill_and_start()
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket=bucket, Key="lock", Body=b"other", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket=bucket, Key="lock", Body=b"other", IfMatch='"0123"')
    s3.put_object(Bucket=bucket, Key="lock", Body=b"next", IfMatch=etag)
    assert body(s3, Bucket=bucket, Key="lock") == b"next"


def test_versioning_can_be_switched_on_and_suspended_on_stored_objects(
    s3_server: S3Server, s3: S3Client
) -> None:
    name = s3_server.unused_bucket_name()
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="k", Body=b"null")
    s3 = s3_server.kill_and_start()
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    s3 = s3_server.kill_and_start()
    version = s3.put_object(Bucket=name, Key="k", Body=b"version")["VersionId"]
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Suspended"})
    s3.put_object(Bucket=name, Key="k", Body=b"null again")
    s3 = s3_server.kill_and_start()
    assert body(s3, Bucket=name, Key="k") == b"null again"
    assert body(s3, Bucket=name, Key="k", VersionId=version) == b"version"
    assert versions(s3, name) == [("k", "null", True, "object"), ("k", version, False, "object")]


class Workload:
    """Random writes by several threads on keys of their own, and what was acknowledged of them."""

    def __init__(self, bucket: str, seed: int) -> None:
        self.bucket = bucket
        self.seed = seed
        # key -> [(version id, body; None for a delete marker)], oldest first
        self.acknowledged: dict[str, list[tuple[str, bytes | None]]] = {}
        self.tags: dict[str, str] = {}
        self.unsure: dict[str, int] = {}

    def run(self, server: S3Server, writers: int, writes_before_kill: int) -> None:
        """Write until ``writes_before_kill`` are acknowledged, then kill -9 while writing goes on."""
        enough = threading.Event()
        count = iter(range(writes_before_kill - 1))

        def write(worker: int) -> None:
            client = server.client()
            chance = random.Random(self.seed * 1000 + worker)
            try:
                while True:
                    self._write(client, f"w{worker}/k{chance.randrange(3)}", chance)
                    if next(count, None) is None:
                        enough.set()
            except (BotoCoreError, ClientError):
                enough.set()

        threads = [threading.Thread(target=write, args=(worker,)) for worker in range(writers)]
        for thread in threads:
            thread.start()
        enough.wait()
        server.kill()
        for thread in threads:
            thread.join()
        server.start()

    def _write(self, client: Any, key: str, chance: random.Random) -> None:
        known = self.acknowledged.setdefault(key, [])
        self.unsure[key] = self.unsure.get(key, 0) + 1
        what = chance.random()
        if what < 0.15 and known:
            answer = client.delete_object(Bucket=self.bucket, Key=key)
            known.append((answer["VersionId"], None))
        elif what < 0.3 and known:
            victim = chance.randrange(len(known))
            version_id, content = known.pop(victim)  # unsure from here on: neither required nor forbidden
            self.deleting = (key, version_id, content)
            client.delete_object(Bucket=self.bucket, Key=key, VersionId=version_id)
        else:
            content = chance.randbytes(chance.choice([0, 10, 5000, 300_000]))
            tag = str(chance.randrange(1000))
            answer = client.put_object(Bucket=self.bucket, Key=key, Body=content, Tagging=f"t={tag}")
            known.append((answer["VersionId"], content))
            self.tags[answer["VersionId"]] = tag
        self.unsure[key] -= 1

    def check(self, client: Any) -> None:
        """Everything acknowledged is there, in order, with its own body and tags."""
        shown: dict[str, list[tuple[str, str]]] = {}
        for page in client.get_paginator("list_object_versions").paginate(Bucket=self.bucket):
            for kind in ("Versions", "DeleteMarkers"):
                for row in page.get(kind, []):
                    shown.setdefault(row["Key"], []).append((row["VersionId"], kind))
        for key, expected in self.acknowledged.items():
            there = dict(shown.get(key, []))
            for version_id, content in expected:
                if content is None:
                    assert there[version_id] == "DeleteMarkers"
                    continue
                assert there[version_id] == "Versions"
                assert body(client, Bucket=self.bucket, Key=key, VersionId=version_id) == content
                tags = client.get_object_tagging(Bucket=self.bucket, Key=key, VersionId=version_id)["TagSet"]
                assert tags == [{"Key": "t", "Value": self.tags[version_id]}]
            assert len(there) <= len(expected) + self.unsure.get(key, 0)
            if expected and not self.unsure.get(key):
                version_id, content = expected[-1]
                if content is None:
                    with pytest.raises(ClientError, match="NoSuchKey"):
                        body(client, Bucket=self.bucket, Key=key)
                else:
                    assert body(client, Bucket=self.bucket, Key=key) == content


def test_nothing_acknowledged_is_lost_when_writers_are_interrupted_by_kill(
    s3_server: S3Server, s3: S3Client, bucket: str
) -> None:
    workload = Workload(bucket, seed=0)
    for round_, (writers, writes) in enumerate([(1, 1), (1, 2), (1, 7), (4, 10), (4, 40), (8, 80)]):
        workload.seed = round_
        workload.run(s3_server, writers, writes)
        workload.check(s3_server.client())


def test_writers_of_one_key_leave_every_version(s3_server: S3Server, s3: S3Client, bucket: str) -> None:
    written: dict[str, bytes] = {}

    def write(worker: int) -> None:
        client = s3_server.client()
        for number in range(10):
            content = b"%d/%d" % (worker, number)
            written[client.put_object(Bucket=bucket, Key="one", Body=content)["VersionId"]] = content

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    before = versions(s3, bucket)
    s3 = s3_server.kill_and_start()
    assert versions(s3, bucket) == before
    assert len(before) == len(written) == 60
    assert [newest for *_, newest, _ in before].count(True) == 1
    for version_id, content in written.items():
        assert body(s3, Bucket=bucket, Key="one", VersionId=version_id) == content


def test_only_one_conditional_writer_wins(s3_server: S3Server, s3: S3Client, bucket: str) -> None:
    for number in range(5):
        results: list[str] = []

        def write(key: str, results: list[str]) -> None:
            try:
                s3.put_object(Bucket=bucket, Key=key, Body=b"x", IfNoneMatch="*")
                results.append("won")
            except ClientError as error:
                results.append(error.response["Error"]["Code"])

        threads = [threading.Thread(target=write, args=(f"lock{number}", results)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(results) == ["PreconditionFailed"] * 5 + ["won"]
