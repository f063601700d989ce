"""The worker's credential, for the other services of an edge host that speak in the worker's name."""

from __future__ import annotations

from airbridge.token_source import NotJoinedError, read_credential

__all__ = ["NotJoinedError", "read_credential"]
