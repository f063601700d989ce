"""Names in S3 as settings give them: one rule for dag-sync, the publisher and the door of S3."""

from __future__ import annotations

import re
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator

__all__ = ["BucketName", "EndpointUrl", "EnvironmentName"]

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ENVIRONMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def _bucket(value: str) -> str:
    if not _BUCKET.fullmatch(value) or ".." in value:
        raise ValueError("must be a bucket name: 3 to 63 of a-z, 0-9, '-' and '.'")
    return value


def _environment(value: str) -> str:
    if not _ENVIRONMENT.fullmatch(value):
        raise ValueError("must be one path segment of letters, digits, '.', '_' and '-', for example 'dev'")
    return value


def _endpoint(value: str) -> str:
    if not value:
        return value
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018  (raises on a port that is no number or out of range)
    except ValueError as error:
        raise ValueError(f"must be a URL such as http://localstack:4566 ({error})") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be empty (AWS) or a URL such as http://localstack:4566")
    if parts.username or parts.query or parts.fragment:
        raise ValueError("must hold no credentials, query or fragment")
    return value.rstrip("/")


BucketName = Annotated[str, AfterValidator(_bucket)]
"""A bucket's name."""
EnvironmentName = Annotated[str, AfterValidator(_environment)]
"""The first segment of every key."""
EndpointUrl = Annotated[str, AfterValidator(_endpoint)]
"""An S3 endpoint without a slash at its end; empty: AWS."""
