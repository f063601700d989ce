"""Write down what each tree is made of (:mod:`airbridge.tree_document`), before anyone starts to use it.

Only the control plane's dag-sync does, because DAG runs start there: an edge host that was away while a tree
was current makes it from its document (:mod:`airbridge.sync._on_demand`).
"""

from __future__ import annotations

import email.utils
import time
from typing import TYPE_CHECKING, Final

from airbridge.errors import AirbridgeError, IntegrityError
from airbridge.sync._parallel import in_parallel
from airbridge.tree_document import TreeDocument, TreeFile, document_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import structlog

    from airbridge.sync._index import Index
    from airbridge.sync._releases import Release
    from airbridge.sync._settings import Settings
    from airbridge.sync._trees import Entry
    from airbridge.sync.s3 import Bucket

__all__ = ["Documents"]

_RETRY_SECONDS: Final = 5.0  # after the first failure, doubled for each one after
_LONGEST_RETRY_SECONDS: Final = 60.0
_FRESH_SECONDS: Final = 12 * 3600
"""A document that is older is written again, so that the collector, which goes by age, leaves it alone."""


class Documents:
    """Sees to it that the current tree has its document in S3."""

    def __init__(
        self,
        settings: Settings,
        bucket: Bucket,
        index: Index,
        *,
        log: structlog.typing.FilteringBoundLogger,
        count: Callable[[str], None],
    ) -> None:
        """Write nothing yet; ``count`` is told ``written`` or ``failed``."""
        self._settings = settings
        self._bucket = bucket
        self._index = index
        self._log = log
        self._count = count
        self._done = ""
        self._try_at = 0.0
        self._failures = 0
        self.trouble = ""
        """Why the current tree has no document, or ""."""

    def due(self, tree_hash: str) -> bool:
        """Tell whether the document of ``tree_hash`` is to be written, or tried again, now."""
        return (
            self._settings.dag_sync_publish_trees
            and tree_hash != self._done
            and (not self.trouble or time.monotonic() >= self._try_at)
        )

    def write(self, tree_hash: str, files: Mapping[str, Entry], releases: Mapping[str, Release]) -> None:
        """Write the document of a tree of ``files``; a failure is logged, counted, and tried again later."""
        try:
            if not self._is_there(tree_hash):
                body = self._document(tree_hash, files, releases).to_bytes()
                self._bucket.put(document_key(self._settings.environment, tree_hash), body, _TYPE)
                self._count("written")
                self._log.info("tree document written", tree=tree_hash, bytes=len(body))
        except AirbridgeError as error:
            self.trouble = error.what
            pause = min(_LONGEST_RETRY_SECONDS, _RETRY_SECONDS * 2.0 ** min(self._failures, 16))
            self._try_at = time.monotonic() + pause
            self._failures += 1
            self._count("failed")
            self._log.warning(
                "tree document not written",
                tree=tree_hash,
                reason=error.what,
                fix=error.fix or "it is tried again; until then no host can fetch this tree on demand",
            )
        else:
            self._done, self.trouble, self._failures = tree_hash, "", 0

    def _is_there(self, tree_hash: str) -> bool:
        head = self._bucket.head(document_key(self._settings.environment, tree_hash))
        if head is None:
            return False
        try:
            written = email.utils.parsedate_to_datetime(head.last_modified).timestamp()
        except ValueError:
            return False
        return time.time() - written < _FRESH_SECONDS

    def _document(
        self, tree_hash: str, files: Mapping[str, Entry], releases: Mapping[str, Release]
    ) -> TreeDocument:
        versions = self._versions(files, releases)
        return TreeDocument(
            tree=tree_hash,
            files=tuple(
                TreeFile(path, entry.sha256, entry.size, versions[path])
                for path, entry in sorted(files.items())
            ),
            releases={package: release.id for package, release in sorted(releases.items())},
        )

    def _versions(self, files: Mapping[str, Entry], releases: Mapping[str, Release]) -> dict[str, str]:
        """Return the S3 version of every file; asked for only where neither manifest nor index knows."""
        found: dict[str, str] = {}
        unknown: list[str] = []
        for path, entry in files.items():
            release = releases.get(path.partition("/")[0])
            named = release.files.get(path) if release else None
            is_manifest = path.count("/") == 1  # which does not name itself
            if named and named.entry == entry and (named.version or not is_manifest):
                found[path] = named.version
            elif (version := self._index.versions.get((path, entry.sha256))) is not None:
                found[path] = version
            else:
                unknown.append(path)

        def ask(path: str) -> str:
            fact = self._index.facts.get(path)
            head = self._bucket.head(self._settings.prefix + path)
            if (
                fact is None
                or head is None
                or fact.sha256 != files[path].sha256
                or (head.etag, head.size) != (fact.listed.etag, fact.listed.size)
            ):
                raise IntegrityError(f"the S3 version of {path} is not known: it changed meanwhile")
            return head.version

        for path, version in in_parallel(ask, unknown):
            found[path] = self._index.versions[path, files[path].sha256] = version
        return found


_TYPE: Final = "application/gzip"
