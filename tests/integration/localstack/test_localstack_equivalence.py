"""The durable S3 answers as LocalStack's own does: the same random requests to both, the same answers."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from s3_server import S3Server

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUESTS = 250
KEYS = ("a", "b/c", "b/d")


class Side:
    """One of the two servers; version and upload ids are replaced by the order in which they appeared."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.versions: list[str] = []
        self.uploads: list[str] = []

    def call(self, operation: str, arguments: dict[str, Any]) -> Any:
        try:
            answer = getattr(self.client, operation)(**self._real(arguments))
        except ClientError as error:
            return error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        if "Body" in answer:
            answer["Body"] = answer["Body"].read()
        created = [
            answer.get("VersionId"),
            *(row.get("DeleteMarkerVersionId") for row in answer.get("Deleted", [])),
        ]
        self.versions += [name for name in created if name not in (None, "null", *self.versions)]
        if answer.get("UploadId") not in (None, *self.uploads):
            self.uploads.append(answer["UploadId"])
        answer["ResponseMetadata"] = answer["ResponseMetadata"]["HTTPStatusCode"]
        return self._neutral(answer)

    def _real(self, value: Any) -> Any:
        if isinstance(value, tuple):
            ids = self.versions if value[0] == "version" else self.uploads
            return ids[value[1]] if value[1] < len(ids) else "null"
        if isinstance(value, dict):
            return {key: self._real(item) for key, item in value.items()}
        return [self._real(item) for item in value] if isinstance(value, list) else value

    def _neutral(self, value: Any) -> Any:
        if isinstance(value, dict):
            moments = ("LastModified", "Initiated", "CreationDate")
            return {key: self._neutral(item) for key, item in value.items() if key not in moments}
        if isinstance(value, list):
            return [self._neutral(item) for item in value]
        if value in self.versions:
            return ("version", self.versions.index(value))
        return ("upload", self.uploads.index(value)) if value in self.uploads else value


def requests(chance: random.Random) -> Iterator[tuple[str, dict[str, Any]]]:
    """Random requests; ids are those that the answers brought."""
    count = {"version": 0, "upload": 0}

    def some(kind: str) -> tuple[str, int]:
        return (kind, chance.randrange(max(1, count[kind])))

    for number in range(REQUESTS):
        bucket = chance.choice(["plain", "versioned"])
        where = {"Bucket": bucket, "Key": chance.choice(KEYS)}
        body = chance.randbytes(chance.choice([0, 10, 1000]))
        versioned = {"VersionId": some("version")} if bucket == "versioned" and chance.random() < 0.5 else {}
        tags = {"TagSet": [{"Key": "n", "Value": str(number)}]}
        choices: list[tuple[str, dict[str, Any]]] = [
            ("put_object", {**where, "Body": body, "Metadata": {"n": str(number)}, "Tagging": f"n={number}"}),
            (
                "put_object",
                {**where, "Body": body, "ContentType": "text/plain", "ChecksumAlgorithm": "SHA256"},
            ),
            ("put_object", {**where, "Body": body, "IfNoneMatch": "*"}),
            # On a key of its own: LocalStack loses the body of the object that this does not replace.
            ("put_object", {**where, "Key": "bad", "Body": body, "ContentMD5": "AAAAAAAAAAAAAAAAAAAAAA=="}),
            ("get_object", {**where, **versioned, "ChecksumMode": "ENABLED"}),
            ("get_object", {**where, "Range": "bytes=2-5"}),
            ("head_object", {**where, **versioned}),
            ("delete_object", {**where, **versioned}),
            ("delete_objects", {"Bucket": bucket, "Delete": {"Objects": [{"Key": key} for key in KEYS[:2]]}}),
            (
                "copy_object",
                {**where, "CopySource": {"Bucket": chance.choice(["plain", "versioned"]), "Key": "a"}},
            ),
            ("copy_object", {**where, "CopySource": dict(where), "MetadataDirective": "REPLACE"}),
            ("put_object_tagging", {**where, **versioned, "Tagging": tags}),
            ("get_object_tagging", {**where, **versioned}),
            ("delete_object_tagging", {**where, **versioned}),
            ("put_object_acl", {**where, "ACL": "public-read"}),
            ("get_object_acl", where),
            ("list_objects_v2", {"Bucket": bucket, "Delimiter": "/", "MaxKeys": 2}),
            ("list_object_versions", {"Bucket": bucket}),
            ("create_multipart_upload", where),
            ("upload_part", {**where, "UploadId": some("upload"), "PartNumber": 1, "Body": body}),
            ("list_parts", {**where, "UploadId": some("upload")}),
            ("abort_multipart_upload", {**where, "UploadId": some("upload")}),
            ("put_bucket_tagging", {"Bucket": bucket, "Tagging": tags}),
            ("get_bucket_tagging", {"Bucket": bucket}),
            ("delete_bucket_tagging", {"Bucket": bucket}),
            ("get_bucket_encryption", {"Bucket": bucket}),
            ("get_public_access_block", {"Bucket": bucket}),
            ("delete_bucket", {"Bucket": bucket}),
            ("get_object_attributes", {**where, "ObjectAttributes": ["ETag", "ObjectSize"]}),
        ]
        operation, arguments = chance.choice(choices)
        if operation == "put_object" and bucket == "versioned":
            count["version"] += 1
        if operation == "create_multipart_upload":
            count["upload"] += 1
        yield operation, arguments


def test_random_requests_get_the_answers_of_localstack(s3_server: S3Server, localstack_image: str) -> None:
    with S3Server(localstack_image, PROVIDER_OVERRIDE_S3="default") as reference:
        sides = [Side(s3_server.client()), Side(reference.client())]
        names = {name: s3_server.unused_bucket_name() for name in ("plain", "versioned")}
        for side in sides:
            for name in names.values():
                side.client.create_bucket(Bucket=name)
            side.client.put_bucket_versioning(
                Bucket=names["versioned"], VersioningConfiguration={"Status": "Enabled"}
            )

        def named(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: named(item) for key, item in value.items()}
            return names.get(value, value) if isinstance(value, str) else value

        for number, (operation, arguments) in enumerate(requests(random.Random(4566))):
            durable, reference_answer = (side.call(operation, named(arguments)) for side in sides)
            assert durable == reference_answer, f"request {number}: {operation} {arguments}"
