"""The dictionaries of S3's state, with the interface that LocalStack expects, noting every change.

:class:`UnversionedStore` and :class:`VersionedStore` behave as LocalStack's ``KeyStore`` and
``VersionedKeyStore`` (``localstack/services/s3/models.py``, 4.13), with one difference: a version that is
written again (the ``null`` version of a bucket whose versioning is suspended) becomes the newest of its key,
as on AWS; LocalStack leaves it where it was, so that a GET would still return an older one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airbridge.localstack._errors import BucketGoneError, UploadGoneError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airbridge.localstack._journal import Changes, Journal

__all__ = [
    "NULL_VERSION",
    "JournaledBuckets",
    "JournaledParts",
    "JournaledTags",
    "JournaledUploads",
    "UnversionedStore",
    "VersionedStore",
]

NULL_VERSION = "null"
"""The version id, in the database, of an object that was written while its bucket kept no versions."""

_MISSING = object()


class _Store:
    """What both key stores share: the bucket they belong to, and what comes after them."""

    def __init__(self, bucket: str, journal: Journal, is_marker: Callable[[Any], bool]) -> None:
        self.bucket = bucket
        self._journal = journal
        self._is_marker = is_marker
        self._gone = False
        self._successor: Any = None

    def retire(self, successor: Any) -> None:
        """Pass late calls on to ``successor``, or refuse them when it is None (the bucket was deleted)."""
        self._gone, self._successor = True, successor

    def revive(self) -> None:
        """Undo :meth:`retire`."""
        self._gone, self._successor = False, None

    def _current(self) -> Any:
        """Return the store to change: this one, unless it was replaced while we waited for the lock."""
        if not self._gone:
            return self
        if self._successor is None:
            raise BucketGoneError(f"bucket {self.bucket} was deleted meanwhile")
        return self._successor

    def _require(self, changes: Changes, existing: Any) -> None:
        """Ask a conditional write's condition again, now that the answer cannot change any more.

        LocalStack asked before the body was stored, under a lock that copies, deletes and multipart uploads
        do not take.
        """
        if changes.condition is not None:
            changes.condition(None if existing is None or self._is_marker(existing) else existing)


class UnversionedStore(_Store):
    """Objects of a bucket that keeps no versions: key to object."""

    def __init__(self, bucket: str, journal: Journal, is_marker: Callable[[Any], bool]) -> None:
        super().__init__(bucket, journal, is_marker)
        self._store: dict[str, Any] = {}

    def get(self, object_key: str) -> Any:
        """Return the object of a key, or None."""
        found = self._store.get(object_key)
        if found is not None and (changes := self._journal.watching()) is not None:
            changes.version(self.bucket, object_key, NULL_VERSION)
        return found

    def set(self, object_key: str, s3_object: Any) -> None:
        """Store an object, replacing what the key held."""
        changes = self._journal.changing()
        if (store := self._current()) is not self:
            store.set(object_key, s3_object)
            return
        self._require(changes, self._store.get(object_key))
        changes.version(self.bucket, object_key, NULL_VERSION, placed=True)
        self._store[object_key] = s3_object

    def pop(self, object_key: str, default: Any = None) -> Any:
        """Remove and return the object of a key."""
        changes = self._journal.changing()
        if (store := self._current()) is not self:
            return store.pop(object_key, NULL_VERSION, default)
        if object_key in self._store:
            changes.version(self.bucket, object_key, NULL_VERSION)
        return self._store.pop(object_key, default)

    def values(self, *_: Any, **__: Any) -> list[Any]:
        """Return every object."""
        return list(self._store.copy().values())

    def is_empty(self) -> bool:
        """Return whether there is no object."""
        return not self._store

    def __contains__(self, item: object) -> bool:
        return item in self._store

    def peek(self, key: str, version_id: str) -> Any:
        """Return an object without noting it."""
        return self._store.get(key)

    def replace(self, key: str, versions: Iterable[Any]) -> None:
        """Put what the database holds for a key into memory, oldest first."""
        self._store.pop(key, None)
        for version in versions:
            version.is_current = True
            self._store[key] = version

    def versions(self) -> Iterator[tuple[str, list[Any]]]:
        """Iterate over all keys with their versions, oldest first."""
        for key, item in self._store.items():
            yield key, [item]


class VersionedStore(_Store):
    """Objects and delete markers of a versioned bucket: key to version id to object, oldest first."""

    def __init__(self, bucket: str, journal: Journal, is_marker: Callable[[Any], bool]) -> None:
        super().__init__(bucket, journal, is_marker)
        self._store: dict[str, dict[str, Any]] = {}

    def get(self, object_key: str, version_id: str | None = None) -> Any:
        """Return a version of a key (the newest without ``version_id``), or None."""
        versions = self._store.get(object_key)
        if not versions:
            return None
        found = versions.get(version_id) if version_id else versions[next(reversed(versions))]
        if found is not None and (changes := self._journal.watching()) is not None:
            changes.version(self.bucket, object_key, found.version_id)
        return found

    def set(self, object_key: str, s3_object: Any) -> None:
        """Store an object or a delete marker as the newest version of its key."""
        changes = self._journal.changing()
        if (store := self._current()) is not self:
            store.set(object_key, s3_object)
            return
        if s3_object.version_id is None:  # versioning was switched on while the body arrived
            s3_object.version_id = NULL_VERSION
        versions = dict(self._store.get(object_key, {}))
        self._require(changes, versions[next(reversed(versions))] if versions else None)
        changes.version(self.bucket, object_key, s3_object.version_id, placed=True)
        versions.pop(s3_object.version_id, None)
        if versions:
            versions[next(reversed(versions))].is_current = False
        s3_object.is_current = True
        versions[s3_object.version_id] = s3_object
        self._store[object_key] = versions  # readers iterate over the old dictionary undisturbed

    def pop(self, object_key: str, version_id: str | None = None, default: Any = None) -> Any:
        """Remove and return one version of a key."""
        changes = self._journal.changing()
        if (store := self._current()) is not self:
            return store.pop(object_key, version_id, default)
        versions = dict(self._store.get(object_key, {}))
        if version_id is None or version_id not in versions:
            return default if versions else None
        changes.version(self.bucket, object_key, version_id)
        removed = versions.pop(version_id)
        if versions:
            versions[next(reversed(versions))].is_current = True
            self._store[object_key] = versions
        else:
            del self._store[object_key]
        return removed

    def values(self, with_versions: bool = False) -> list[Any]:
        """Return every version, or the newest of each key unless that is a delete marker."""
        if with_versions:
            return [version for versions in self._store.copy().values() for version in versions.values()]
        newest = (versions[next(reversed(versions))] for versions in self._store.copy().values())
        return [version for version in newest if not self._is_marker(version)]

    def is_empty(self) -> bool:
        """Return whether there is no version and no delete marker."""
        return not self._store

    def __contains__(self, item: object) -> bool:
        return item in self._store

    def peek(self, key: str, version_id: str) -> Any:
        """Return a version without noting it."""
        return self._store.get(key, {}).get(version_id)

    def replace(self, key: str, versions: Iterable[Any]) -> None:
        """Put what the database holds for a key into memory, oldest first."""
        loaded = {version.version_id: version for version in versions}
        for version in loaded.values():
            version.is_current = False
        if loaded:
            loaded[next(reversed(loaded))].is_current = True
            self._store[key] = loaded
        else:
            self._store.pop(key, None)

    def versions(self) -> Iterator[tuple[str, list[Any]]]:
        """Iterate over all keys with their versions, oldest first."""
        for key, versions in self._store.items():
            yield key, list(versions.values())


class JournaledBuckets(dict[str, Any]):
    """Buckets of one account: name to bucket. Takes over a bucket's dictionaries when it is added."""

    def __init__(self, journal: Journal, adopt: Callable[[Any], None]) -> None:
        super().__init__()
        self._journal = journal
        self._adopt = adopt

    def __setitem__(self, name: str, bucket: Any) -> None:
        self._journal.changing().buckets.add(name)
        self._adopt(bucket)
        super().__setitem__(name, bucket)

    def pop(self, name: str, default: Any = _MISSING) -> Any:
        """Remove and return a bucket; whoever still writes to it is refused."""
        changes = self._journal.changing()
        if name not in self:
            if default is _MISSING:
                raise BucketGoneError(f"bucket {name} was deleted meanwhile")
            return default
        bucket = super().pop(name)
        bucket.objects.retire(None)
        bucket.multiparts.gone = True
        changes.buckets.add(name)
        changes.removed_buckets[name] = bucket
        return bucket

    def load(self, name: str, bucket: Any) -> None:
        """Put a bucket into memory without noting it."""
        super().__setitem__(name, bucket)

    def unload(self, name: str) -> None:
        """Take a bucket out of memory without noting it."""
        super().pop(name, None)


class JournaledUploads(dict[str, Any]):
    """Multipart uploads of a bucket: upload id to upload."""

    def __init__(self, bucket: str, journal: Journal) -> None:
        super().__init__()
        self._bucket = bucket
        self._journal = journal
        self.gone = False  # with its bucket

    def __setitem__(self, upload_id: str, upload: Any) -> None:
        self._journal.changing().uploads.add((self._bucket, upload_id))
        self.load(upload_id, upload)

    def pop(self, upload_id: str, default: Any = None) -> Any:
        """Remove and return an upload."""
        self._journal.changing().uploads.add((self._bucket, upload_id))
        return super().pop(upload_id, default)

    def load(self, upload_id: str, upload: Any) -> None:
        """Put an upload into memory without noting it."""
        parts = JournaledParts(self._bucket, upload_id, self, self._journal)
        for number, part in upload.parts.items():
            parts.load(number, part)
        upload.parts = parts
        super().__setitem__(upload_id, upload)

    def unload(self, upload_id: str) -> None:
        """Take an upload out of memory without noting it."""
        super().pop(upload_id, None)


class JournaledParts(dict[int, Any]):
    """Parts of an upload: number to part."""

    def __init__(self, bucket: str, upload_id: str, uploads: JournaledUploads, journal: Journal) -> None:
        super().__init__()
        self._bucket = bucket
        self._upload_id = upload_id
        self._uploads = uploads
        self._journal = journal

    def __setitem__(self, number: int, part: Any) -> None:
        changes = self._journal.changing()
        upload = self._uploads.get(self._upload_id)
        if self._uploads.gone or upload is None or upload.parts is not self:
            raise UploadGoneError(f"upload {self._upload_id} was completed or aborted meanwhile")
        changes.parts.add((self._bucket, self._upload_id, number))
        super().__setitem__(number, part)

    def load(self, number: int, part: Any) -> None:
        """Put a part into memory without noting it."""
        super().__setitem__(number, part)


class JournaledTags(dict[str, dict[str, str]]):
    """Tags of buckets and objects: resource name to tags."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal

    def __getitem__(self, name: str) -> dict[str, str]:
        if (changes := self._journal.watching()) is not None:
            changes.tags.add(name)
        return super().__getitem__(name)

    def __setitem__(self, name: str, tags: dict[str, str]) -> None:
        self._journal.changing().tags.add(name)
        super().__setitem__(name, tags)

    def __delitem__(self, name: str) -> None:
        self._journal.changing().tags.add(name)
        super().__delitem__(name)

    def pop(self, name: str, default: Any = None) -> Any:
        """Remove and return the tags of a resource."""
        if name in self:
            self._journal.changing().tags.add(name)
        return super().pop(name, default)

    def load(self, name: str, tags: dict[str, str] | None) -> None:
        """Put tags into memory (or take them out, when None) without noting it."""
        if tags is None:
            super().pop(name, None)
        else:
            super().__setitem__(name, tags)
