"""LocalStack's S3 classes, as small as the storage allows: the real ones exist in the image only."""

from __future__ import annotations

import datetime
import uuid
from typing import TYPE_CHECKING, Any

from airbridge.localstack._memory import BODY_ATTRIBUTE, Model
from airbridge.localstack._storage import Storage

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_ENCRYPTION = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
ACCOUNT = "000000000000"


class Bucket:
    def __init__(self, name: str, account_id: str, bucket_region: str, owner: Any) -> None:
        self.name = name
        self.bucket_account_id = account_id
        self.bucket_region = bucket_region
        self.owner = owner
        self.versioning_status: str | None = None
        self.encryption_rule: Any = DEFAULT_ENCRYPTION
        self.policy: str | None = None
        self.lifecycle_rules: Any = None
        self.creation_date = datetime.datetime.now(tz=datetime.UTC)
        self.objects: Any = None
        self.multiparts: Any = {}


class Object:
    def __init__(self, key: str, version_id: str | None = None) -> None:
        self.key = key
        self.version_id = version_id
        self.etag: str | None = None
        self.size: int | None = None
        self.is_current = True
        self.acl: Any = None
        self.owner: Any = None
        self.user_metadata: dict[str, str] = {}
        self.system_metadata: dict[str, str] = {}
        self.parts: dict[int, Any] = {}
        self.last_modified = datetime.datetime.now(tz=datetime.UTC)


class Marker:
    def __init__(self, key: str, version_id: str) -> None:
        self.key = key
        self.version_id = version_id
        self.is_current = True
        self.last_modified = datetime.datetime.now(tz=datetime.UTC)


class Part:
    def __init__(self, part_number: int) -> None:
        self.part_number = part_number
        self.size: int | None = None
        self.etag: str | None = None


class Upload:
    def __init__(self, key: str) -> None:
        self.id = uuid.uuid4().hex
        self.parts: dict[int, Part] = {}
        self.object = Object(key)
        self.initiated = datetime.datetime.now(tz=datetime.UTC)


MODEL = Model(
    bucket=Bucket,
    object=Object,
    marker=Marker,
    upload=Upload,
    part=Part,
    constants={"DEFAULT_ENCRYPTION": DEFAULT_ENCRYPTION},
)


class S3:
    """S3 operations as LocalStack's provider makes them, on a storage."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.storage = Storage(root, MODEL, **{"grace_seconds": 0.0, "reserve_bytes": 1024, **options})
        self.memory = self.storage.memory

    def close(self) -> None:
        self.storage.close()

    def bucket(self, name: str) -> Any:
        return self.memory.bucket(name)

    def create_bucket(self, name: str) -> None:
        with self.storage.request(exclusive=True) as changes:
            changes.buckets.add(name)
            self.memory.buckets(ACCOUNT)[name] = Bucket(name, ACCOUNT, "us-east-1", {"ID": "owner"})
            self.memory.owners[name] = ACCOUNT

    def delete_bucket(self, name: str) -> None:
        with self.storage.request(exclusive=True) as changes:
            changes.buckets.add(name)
            self.memory.buckets(ACCOUNT).pop(name)
            self.memory.owners.pop(name)

    def set_versioning(self, name: str, status: str) -> None:
        with self.storage.request(exclusive=True) as changes:
            changes.buckets.add(name)
            if not self.bucket(name).versioning_status:
                self.memory.fit(name, versioned=True)
            self.bucket(name).versioning_status = status

    def put(self, name: str, key: str, body: bytes, *, tags: dict[str, str] | None = None) -> str | None:
        with self.storage.request(exclusive=False):
            s3_object = self.new_object(name, key, body)
            self.bucket(name).objects.set(key, s3_object)
            resource = f"{name}/{key}/{s3_object.version_id or 'null'}"
            self.memory.tags.pop(resource, None)
            if tags:
                self.memory.tags[resource] = tags
        return s3_object.version_id

    def new_object(self, name: str, key: str, body: bytes) -> Object:
        status = self.bucket(name).versioning_status
        version_id = None if status is None else uuid.uuid4().hex if status == "Enabled" else "null"
        s3_object = Object(key, version_id)
        self.write_body(s3_object, body)
        return s3_object

    def write_body(self, target: Any, body: bytes) -> None:
        writer = self.storage.bodies.create()
        self.storage.journal.created_body(writer.body_id)
        writer.write(body)
        setattr(target, BODY_ATTRIBUTE, writer.publish())
        target.size = len(body)

    def delete(self, name: str, key: str, version_id: str | None = None) -> None:
        with self.storage.request(exclusive=True):
            bucket = self.bucket(name)
            if bucket.versioning_status is None:
                bucket.objects.pop(key, None)
            elif version_id:
                bucket.objects.pop(key, version_id)
            else:
                marker_id = uuid.uuid4().hex if bucket.versioning_status == "Enabled" else "null"
                bucket.objects.set(key, Marker(key, marker_id))

    def start_upload(self, name: str, key: str) -> str:
        with self.storage.request(exclusive=True):
            upload = Upload(key)
            self.bucket(name).multiparts[upload.id] = upload
        return upload.id

    def upload_part(self, name: str, upload_id: str, number: int, body: bytes) -> None:
        with self.storage.request(exclusive=False):
            part = Part(number)
            self.write_body(part, body)
            self.bucket(name).multiparts[upload_id].parts[number] = part

    def complete_upload(self, name: str, upload_id: str) -> None:
        with self.storage.request(exclusive=False):
            bucket = self.bucket(name)
            upload = bucket.multiparts[upload_id]
            body = b"".join(self.read_body(upload.parts[number]) for number in sorted(upload.parts))
            if bucket.versioning_status:
                upload.object.version_id = uuid.uuid4().hex
            self.write_body(upload.object, body)
            bucket.objects.set(upload.object.key, upload.object)
            bucket.multiparts.pop(upload_id, None)

    def read_body(self, target: Any) -> bytes:
        with self.storage.bodies.open(getattr(target, BODY_ATTRIBUTE), size=target.size) as file:
            return file.read()

    def picture(self) -> dict[str, Any]:
        """Everything that S3 shows, bodies included, comparable with ``==``."""
        result: dict[str, Any] = {"tags": dict(self.memory.tags), "owners": dict(self.memory.owners)}
        for name, bucket in self.memory.buckets(ACCOUNT).items():
            settings = {k: v for k, v in vars(bucket).items() if k not in ("objects", "multiparts")}
            versions = {
                key: [
                    (
                        type(version).__name__,
                        version.version_id,
                        version.is_current,
                        {k: v for k, v in vars(version).items() if k != BODY_ATTRIBUTE},
                        None if isinstance(version, Marker) else self.read_body(version),
                    )
                    for version in items
                ]
                for key, items in bucket.objects.versions()
            }
            uploads = {
                upload_id: (
                    upload.object.key,
                    upload.initiated,
                    {number: self.read_body(part) for number, part in upload.parts.items()},
                )
                for upload_id, upload in bucket.multiparts.items()
            }
            result[name] = (settings, type(bucket.objects).__name__, versions, uploads)
        return result
