"""S3's state in memory, and its translation to rows of the database and back.

The classes of the objects come as a :class:`Model`, so that this module does not need LocalStack.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from airbridge.errors import IntegrityError
from airbridge.localstack._codec import Codec
from airbridge.localstack._database import BucketRow, PartRow, UploadRow, VersionRow
from airbridge.localstack._keystores import (
    NULL_VERSION,
    JournaledBuckets,
    JournaledTags,
    JournaledUploads,
    UnversionedStore,
    VersionedStore,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from airbridge.localstack._database import MetadataDatabase
    from airbridge.localstack._journal import Journal

__all__ = ["BODY_ATTRIBUTE", "Memory", "Model"]

BODY_ATTRIBUTE = "durable_body"
"""Attribute of an object or a part that holds the name of its body."""

# Kept in columns, or (is_current) known from the order of versions.
_VERSION_COLUMNS = frozenset({"key", "version_id", "is_current", BODY_ATTRIBUTE})
_BUCKET_COLUMNS = frozenset({"name", "bucket_account_id", "objects", "multiparts"})
_UPLOAD_COLUMNS = frozenset({"id", "parts", "object"})
_PART_COLUMNS = frozenset({"part_number", BODY_ATTRIBUTE})

# Equal values are one object in memory: LocalStack builds an access control list of 1 KB for every S3 object.
_SHARED = ("acl", "owner", "system_metadata")
_SHARED_VALUES = 1024


@dataclass(frozen=True, slots=True)
class Model:
    """LocalStack's classes: called as LocalStack's constructors are.

    ``constants``: see :class:`airbridge.localstack._codec.Codec`.
    """

    bucket: Callable[..., Any]
    object: Callable[..., Any]
    marker: type[Any]
    upload: Callable[..., Any]
    part: Callable[..., Any]
    constants: Mapping[str, Any] = field(default_factory=dict)


class Memory:
    """Everything that S3 knows, by account. ``owners`` maps a bucket's name to its account."""

    def __init__(self, model: Model, journal: Journal) -> None:
        self._model = model
        self._journal = journal
        self._codec = Codec(model.constants)
        self._accounts: dict[str, JournaledBuckets] = {}
        self._stores: dict[str, UnversionedStore | VersionedStore] = {}
        self._pristine_object = vars(model.object(key=""))
        self._seq = 0
        self._share = lru_cache(_SHARED_VALUES)(json.loads)
        self.owners: dict[str, str] = {}
        self.tags = JournaledTags(journal)

    # For LocalStack

    def buckets(self, account: str) -> JournaledBuckets:
        """Return the buckets of an account."""
        if account not in self._accounts:
            self._accounts.setdefault(account, JournaledBuckets(self._journal, self._adopt))
        return self._accounts[account]

    def accounts(self) -> list[str]:
        """Return the accounts that have buckets."""
        return sorted(set(self.owners.values()))

    def count(self) -> int:
        """Return the number of keys."""
        return sum(len(store._store) for store in self._stores.values())

    def bucket(self, name: str) -> Any:
        """Return a bucket of any account, or None."""
        return next((found for buckets in self._accounts.values() if (found := buckets.get(name))), None)

    def fit(self, name: str, *, versioned: bool) -> None:
        """Give a bucket a key store that keeps versions, or one that does not, with its objects."""
        bucket, before = self.bucket(name), self._stores.get(name)
        wanted = VersionedStore if versioned else UnversionedStore
        if bucket is None or before is None or type(before) is wanted:
            return
        store = wanted(name, self._journal, self._is_marker)
        for key, versions in before.versions():
            for version in versions:
                if wanted is VersionedStore and version.version_id is None:
                    version.version_id = NULL_VERSION
                elif wanted is UnversionedStore:
                    version.version_id = None
            store.replace(key, versions)
        bucket.objects = self._stores[name] = store
        before.retire(store)

    def _is_marker(self, version: Any) -> bool:
        return isinstance(version, self._model.marker)

    def _adopt(self, bucket: Any) -> None:
        """Replace the dictionaries of a bucket by ones that note changes."""
        kind = VersionedStore if bucket.versioning_status else UnversionedStore
        bucket.objects = self._stores[bucket.name] = kind(bucket.name, self._journal, self._is_marker)
        bucket.multiparts = JournaledUploads(bucket.name, self._journal)

    # To rows

    def next_seq(self) -> int:
        """Return the number that puts a version on top of its key."""
        self._seq += 1
        return self._seq

    def bucket_row(self, name: str) -> BucketRow | None:
        """Return what memory holds of a bucket, or None when it is not there."""
        bucket = self.bucket(name)
        if bucket is None:
            return None
        state = self._codec.dumps(_without(vars(bucket), _BUCKET_COLUMNS))
        return BucketRow(name, bucket.bucket_account_id, state)

    def version_row(self, bucket: str, key: str, version_id: str, seq: int) -> VersionRow | None:
        """Return what memory holds of a version, or None when it is not there."""
        store = self._stores.get(bucket)
        version = store.peek(key, version_id) if store is not None else None
        if version is None:
            return None
        if self._is_marker(version):
            state = self._codec.dumps(_without(vars(version), _VERSION_COLUMNS))
            return VersionRow(bucket, key, version_id, seq, "marker", None, state)
        self._share_values(version)
        return VersionRow(
            bucket,
            key,
            version_id,
            seq,
            "object",
            getattr(version, BODY_ATTRIBUTE, None),
            self._object_state(version),
        )

    def _object_state(self, s3_object: Any) -> str:
        # Empty defaults are left out; others are kept, because another LocalStack may have other defaults.
        state = _without(vars(s3_object), _VERSION_COLUMNS)
        pristine = self._pristine_object
        return self._codec.dumps(
            {
                name: value
                for name, value in state.items()
                if value or name not in pristine or pristine[name] != value
            }
        )

    def upload_row(self, bucket: str, upload_id: str) -> UploadRow | None:
        """Return what memory holds of an upload, or None when it is not there."""
        upload = self._upload(bucket, upload_id)
        if upload is None:
            return None
        state = self._codec.dumps({**_without(vars(upload), _UPLOAD_COLUMNS), "key": upload.object.key})
        return UploadRow(bucket, upload_id, state, self._object_state(upload.object))

    def part_row(self, bucket: str, upload_id: str, number: int) -> PartRow | None:
        """Return what memory holds of a part, or None when it is not there."""
        upload = self._upload(bucket, upload_id)
        part = upload.parts.get(number) if upload is not None else None
        if part is None:
            return None
        state = self._codec.dumps(_without(vars(part), _PART_COLUMNS))
        return PartRow(bucket, upload_id, number, getattr(part, BODY_ATTRIBUTE, None), state)

    def tags_json(self, resource: str) -> str | None:
        """Return the tags that memory holds, or None when there are none."""
        tags = self.tags.get(resource)
        return None if tags is None else self._codec.dumps(tags)

    def _upload(self, bucket: str, upload_id: str) -> Any:
        found = self.bucket(bucket)
        return None if found is None else found.multiparts.get(upload_id)

    # From rows

    def load(self, database: MetadataDatabase) -> set[str]:
        """Read everything; return the names of all bodies.

        :raises IntegrityError: a row cannot be read.
        """
        bodies: set[str] = set()
        for bucket_row in database.buckets():
            self.load_bucket(bucket_row)
        pending: list[VersionRow] = []
        for row in database.iter_versions():
            if pending and (row.bucket, row.key) != (pending[0].bucket, pending[0].key):
                self.load_key(pending[0].bucket, pending[0].key, pending)
                pending = []
            pending.append(row)
            self._seq = max(self._seq, row.seq)
            if row.body is not None:
                bodies.add(row.body)
        if pending:
            self.load_key(pending[0].bucket, pending[0].key, pending)
        parts: dict[tuple[str, str], list[PartRow]] = {}
        for part in database.parts():
            parts.setdefault((part.bucket, part.upload_id), []).append(part)
            if part.body is not None:
                bodies.add(part.body)
        for upload in database.uploads():
            self.load_upload(upload, parts.get((upload.bucket, upload.upload_id), []))
        for resource, tags in database.tags():
            self.load_tags(resource, tags)
        return bodies

    def load_bucket(self, row: BucketRow) -> None:
        """Put a bucket's settings into memory; its objects stay."""
        state = self._codec.loads(row.state)
        bucket = self.bucket(row.name)
        if bucket is None:
            bucket = self._model.bucket(
                name=row.name,
                account_id=row.account,
                bucket_region=state.get("bucket_region"),
                owner=state.get("owner"),
            )
            self._assign(bucket, state)
            self._adopt(bucket)
            self.buckets(row.account).load(row.name, bucket)
        else:
            self._assign(bucket, state)
            self.fit(row.name, versioned=bool(bucket.versioning_status))
        self.owners[row.name] = row.account

    def unload_bucket(self, name: str) -> None:
        """Take a bucket out of memory."""
        for buckets in self._accounts.values():
            buckets.unload(name)
        self.owners.pop(name, None)
        self._stores.pop(name, None)

    def revive_bucket(self, bucket: Any) -> None:
        """Put back a bucket that a failed request had removed."""
        self.buckets(bucket.bucket_account_id).load(bucket.name, bucket)
        self._stores[bucket.name] = bucket.objects
        bucket.objects.revive()
        bucket.multiparts.gone = False
        self.owners[bucket.name] = bucket.bucket_account_id

    def load_key(self, bucket: str, key: str, rows: Iterable[VersionRow]) -> None:
        """Put all versions of a key into memory, oldest first; what was there is gone."""
        store = self._stores.get(bucket)
        if store is None:
            return
        versioned = isinstance(store, VersionedStore)
        store.replace(key, [self._version(row, versioned=versioned) for row in rows])

    def _version(self, row: VersionRow, *, versioned: bool) -> Any:
        version_id = row.version_id if versioned else None
        if row.kind == "marker":
            version = self._model.marker(key=row.key, version_id=version_id)
        else:
            version = self._model.object(key=row.key, version_id=version_id)
        self._assign(version, self._decode(row))
        if row.kind != "marker":
            setattr(version, BODY_ATTRIBUTE, row.body)
            self._share_values(version)
        return version

    def _decode(self, row: VersionRow) -> dict[str, Any]:
        try:
            return self._codec.loads(row.state)
        except IntegrityError as error:
            raise IntegrityError(
                f"s3://{row.bucket}/{row.key} ({row.version_id}): {error.what}", fix=error.fix
            ) from error

    def _share_values(self, s3_object: Any) -> None:
        for name in _SHARED:
            value = getattr(s3_object, name, None)
            if value:
                try:
                    setattr(s3_object, name, self._share(json.dumps(value, sort_keys=True)))
                except TypeError:  # something JSON cannot say: keep it as it is
                    continue

    def load_upload(self, row: UploadRow, parts: Iterable[PartRow]) -> None:
        """Put an upload and its parts into memory; what was there is gone."""
        bucket = self.bucket(row.bucket)
        if bucket is None:
            return
        state = self._codec.loads(row.state)
        key = state.pop("key")
        upload = self._model.upload(key=key)
        self._assign(upload, state)
        upload.id = row.upload_id
        upload.object = self._model.object(key=key)
        self._assign(upload.object, self._codec.loads(row.object))
        bucket.multiparts.load(row.upload_id, upload)
        for part_row in parts:
            part = self._model.part(part_number=part_row.number)
            self._assign(part, self._codec.loads(part_row.state))
            setattr(part, BODY_ATTRIBUTE, part_row.body)
            upload.parts.load(part_row.number, part)

    def unload_upload(self, bucket: str, upload_id: str) -> None:
        """Take an upload out of memory."""
        found = self.bucket(bucket)
        if found is not None:
            found.multiparts.unload(upload_id)

    def load_tags(self, resource: str, tags: str | None) -> None:
        """Put tags (JSON, or None) into memory."""
        self.tags.load(resource, None if tags is None else self._codec.loads(tags))

    @staticmethod
    def _assign(target: Any, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            setattr(target, name, value)


def _without(attributes: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if name not in names}
