"""The keys of a batch deletion (``POST /bucket?delete``), which stand in its body.

"DeleteObjects" (Amazon S3 API Reference,
https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html). What S3 gets is written anew from
what was read here, so that there is one reading of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from xml.parsers import expat
from xml.sax.saxutils import escape

from airbridge.s3door._errors import S3Error, access_denied, invalid_request
from airbridge.s3door._request import checked_key

__all__ = ["LONGEST_BODY", "Deletions"]

LONGEST_BODY: Final = 2 * 1024 * 1024
"""A thousand keys of a thousand bytes, with their tags and some escapes."""
_MOST: Final = 1000  # keys in one request, as S3 has it
_LEAVES: Final = frozenset(
    {("Delete", "Quiet"), ("Delete", "Object", "Key"), ("Delete", "Object", "VersionId")}
)
_KNOWN: Final = _LEAVES | {("Delete",), ("Delete", "Object")}


@dataclass(frozen=True, slots=True)
class Deletions:
    """Which objects are to go."""

    keys: tuple[str, ...]
    quiet: bool

    @classmethod
    def parse(cls, body: bytes) -> Deletions:
        """Read the body.

        :raises S3Error: it is malformed, or names a version: what was published can always be had again
        """
        keys: list[str] = []
        quiet = False
        path: list[str] = []
        text: list[str] = []
        seen: set[str] = set()

        def start(name: str, _attributes: dict[str, str]) -> None:
            path.append(name.rpartition(" ")[2])
            if tuple(path) not in _KNOWN:
                raise ValueError(f"<{name[:40]}> does not belong there")
            if tuple(path) == ("Delete", "Object"):
                seen.clear()
            text.clear()

        def end(_name: str) -> None:
            nonlocal quiet
            where = tuple(path)
            path.pop()
            if where in _LEAVES:
                if where[-1] in seen:
                    raise ValueError(f"<{where[-1]}> is there twice")
                seen.add(where[-1])
            value = "".join(text)
            match where:
                case ("Delete", "Object", "Key"):
                    keys.append(value)
                case ("Delete", "Object", "VersionId") if value.strip():
                    raise access_denied("Versions are not deleted here.", "version_deletion")
                case ("Delete", "Object") if "Key" not in seen:
                    raise ValueError("an <Object> has no <Key>")
                case ("Delete", "Quiet"):
                    quiet = value.strip().lower() == "true"
            text.clear()

        def doctype(*_: object) -> None:
            raise ValueError("it has a document type")

        parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = doctype  # no entities, which could blow up
        parser.StartElementHandler = start
        parser.EndElementHandler = end
        parser.CharacterDataHandler = text.append
        try:
            parser.Parse(body, True)
        except (expat.ExpatError, ValueError):
            raise _malformed() from None
        if not 1 <= len(keys) <= _MOST:
            raise _malformed()
        return cls(tuple(checked_key(key) for key in keys), quiet)

    @property
    def document(self) -> bytes:
        """The body that S3 gets."""
        objects = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in self.keys)
        quiet = "<Quiet>true</Quiet>" if self.quiet else ""
        return f'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{objects}{quiet}</Delete>'.encode()


def _malformed() -> S3Error:
    return invalid_request("The XML is not well-formed or not a deletion.", "MalformedXML", "xml_malformed")
