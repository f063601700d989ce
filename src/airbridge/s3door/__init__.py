"""The door in front of S3: who asks, proved by the request's signature, and whether they may.

LocalStack verifies no signature and no policy, so nothing but this service reaches it from outside. An edge
worker or a publisher signs each request as it would for AWS (Signature Version 4), with its name as access
key id and the secret of its credential. The door verifies that, looks at what is asked for, and only then
asks S3 itself, with a request that it writes anew from what it understood: S3 never reads anything that the
door read differently.

* ``_canonical`` and ``_signature`` are Signature Version 4, ``_chunks`` and ``_body`` what it says of bodies;
* ``_operation`` tells which of S3's operations a request is, ``_rules`` who may ask for it;
* ``_directory`` looks up who is enrolled, ``_limits`` keeps one of them from being a burden to the others;
* ``_server`` puts these together, ``_upstream`` asks S3.
"""

from __future__ import annotations

__all__: list[str] = []
