"""What can go wrong in the durable storage."""

from __future__ import annotations

from airbridge.errors import AirbridgeError, IntegrityError

__all__ = ["BodyMissingError", "BucketGoneError", "StorageBusyError", "StorageFullError", "UploadGoneError"]


class StorageFullError(AirbridgeError):
    """The file system of the data directory has no room for another write; nothing was changed."""


class StorageBusyError(AirbridgeError):
    """Another process holds the data directory."""


class BodyMissingError(IntegrityError):
    """The file of an object's body is missing or does not have the size that was acknowledged."""


class BucketGoneError(AirbridgeError):
    """The bucket was deleted while the request was on its way."""


class UploadGoneError(AirbridgeError):
    """The multipart upload was completed or aborted while the request was on its way."""
