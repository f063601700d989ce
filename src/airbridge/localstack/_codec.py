"""Values of LocalStack's S3 models to JSON text and back.

JSON instead of pickle, so that a data directory can be inspected, does not depend on class layouts, and
cannot run code when it is read. What JSON lacks is tagged: ``{"$": <type>, "v": <value>}``.
"""

from __future__ import annotations

import base64
import datetime
import json
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from airbridge.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Codec"]

_TAG = "$"


class Codec:
    """Encodes and decodes state.

    ``constants`` are objects that LocalStack compares by identity (``is``); they are stored by name, so that
    the comparison still holds after a restart.
    """

    def __init__(self, constants: Mapping[str, Any] | None = None) -> None:
        self._constants = dict(constants or {})

    def dumps(self, state: Mapping[str, Any]) -> str:
        """Return the JSON text of a mapping of attribute names to values.

        :raises TypeError: a value has a type that could not be read back.
        """
        encoded = {name: self._encode_attribute(value) for name, value in state.items()}
        return json.dumps(encoded, separators=(",", ":"), ensure_ascii=False, sort_keys=True)

    def loads(self, text: str) -> dict[str, Any]:
        """Return what :meth:`dumps` was given.

        :raises IntegrityError: the text is not what :meth:`dumps` writes.
        """
        try:
            return {name: self._decode(value) for name, value in json.loads(text).items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(
                f"stored S3 state is not readable: {error!r} in {text[:80]!r}",
                fix="restore the S3 volume from a backup",
            ) from error

    def _encode_attribute(self, value: Any) -> Any:
        for name, constant in self._constants.items():
            if value is constant:
                return {_TAG: "constant", "v": name}
        return self._encode(value)

    def _encode(self, value: Any) -> Any:  # noqa: PLR0911 - one return a type reads best
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return str(value)
        if isinstance(value, list | tuple):
            return [self._encode(item) for item in value]
        if isinstance(value, dict):
            if _TAG not in value and all(isinstance(key, str) for key in value):
                return {str(key): self._encode(item) for key, item in value.items()}
            return {
                _TAG: "map",
                "v": [[self._encode(key), self._encode(item)] for key, item in value.items()],
            }
        if isinstance(value, datetime.datetime):
            if not isinstance(value.tzinfo, ZoneInfo):
                return {_TAG: "datetime", "v": value.isoformat()}
            local = value.replace(tzinfo=None).isoformat()
            return {_TAG: "datetime", "v": local, "zone": value.tzinfo.key, "fold": value.fold}
        if isinstance(value, bytes):
            return {_TAG: "bytes", "v": base64.b64encode(value).decode()}
        raise TypeError(f"cannot store a {type(value).__name__}: {value!r}")

    def _decode(self, value: Any) -> Any:  # noqa: PLR0911 - one return a type reads best
        if isinstance(value, list):
            return [self._decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        if _TAG not in value:
            return {key: self._decode(item) for key, item in value.items()}
        kind, content = value[_TAG], value["v"]
        if kind == "datetime":
            moment = datetime.datetime.fromisoformat(content)
            if "zone" not in value:
                return moment
            return moment.replace(tzinfo=ZoneInfo(value["zone"]), fold=value["fold"])
        if kind == "map":
            return {self._decode(key): self._decode(item) for key, item in content}
        if kind == "bytes":
            return base64.b64decode(content)
        if kind == "constant":
            return self._constants[content]
        raise ValueError(f"unknown type {kind!r}")
