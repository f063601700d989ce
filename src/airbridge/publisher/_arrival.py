"""Where a release has arrived: in S3, at the DAG processor, on each live edge worker.

Both name the tree that they work with; the document of a tree (:mod:`airbridge.tree_document`) names the
releases in it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from airbridge.errors import AirbridgeError, IntegrityError, UnreachableError
from airbridge.tree_document import MAX_DOCUMENT_BYTES, TreeDocument, document_key, read_document

if TYPE_CHECKING:
    from collections.abc import Callable

    from airbridge.manifest import Manifest
    from airbridge.publisher._api import ControlPlane, ImportFault, ParsedDag
    from airbridge.publisher._s3 import Store

__all__ = ["Arrival", "FailedToParseError", "NotArrivedError", "Place", "Watcher"]

_PAUSE_SECONDS: Final = 0.5
_CLOCKS_APART: Final = timedelta(seconds=5)
"""The publisher's clock and the DAG processor's may differ so much; an older import error is not ours."""
_SETTLED: Final = timedelta(seconds=10)
"""Until then an import error may still be one of the release before, parsed once more."""


class NotArrivedError(AirbridgeError):
    """The release is published, and was not everywhere when the time was over."""

    exit_code = 6


class FailedToParseError(AirbridgeError):
    """The release is published, and the DAG processor cannot import it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Somebody who works with DAGs: the DAG processor (one row a DAG), or an edge worker."""

    name: str
    arrived: bool
    release: str
    """The release of the package that is there; empty when that is not known."""
    detail: str
    since: datetime | None = None
    """When the DAG processor parsed exactly this release; no import error after that is an older one's."""


@dataclass(slots=True)
class Arrival:
    """The release that counts, and where it is."""

    package: str
    release: str
    processor: list[Place] = field(default_factory=list)
    workers: list[Place] = field(default_factory=list)
    faults: list[ImportFault] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether it is everywhere."""
        return all(place.arrived for place in (*self.processor, *self.workers))

    def summary(self) -> str:
        """Return one line."""
        parsed = sum(place.arrived for place in self.processor)
        workers = sum(place.arrived for place in self.workers)
        waiting = [place for place in (*self.processor, *self.workers) if not place.arrived]
        text = f"DAGs parsed {parsed}/{len(self.processor)}, edge workers {workers}/{len(self.workers)}"
        return f"{text}; {waiting[0].name}: {waiting[0].detail}" if waiting else text

    def to_json(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        rows = {
            name: [
                {
                    "name": place.name,
                    "arrived": place.arrived,
                    "release": place.release,
                    "detail": place.detail,
                }
                for place in places
            ]
            for name, places in (("dag_processor", self.processor), ("edge_workers", self.workers))
        }
        return {
            "package": self.package,
            "release": self.release,
            "complete": self.complete,
            **rows,
            "import_errors": [
                {"file": fault.file, "message": fault.message, "at": fault.timestamp.isoformat()}
                for fault in self.faults
            ],
        }


class Watcher:
    """Looks where the release of ``manifest`` is; the documents of trees are read once."""

    def __init__(self, store: Store, control_plane: ControlPlane, manifest: Manifest) -> None:
        self._store = store
        self._control_plane = control_plane
        self._manifest = manifest
        self._documents: dict[str, TreeDocument] = {}

    def look(self) -> Arrival:
        """Look once."""
        package = self._manifest.package
        arrival = Arrival(package, self._manifest.release)
        dags = self._control_plane.dags(package)
        defining = {dag.file for dag in dags.values()}
        for dag_id in self._manifest.dags:
            arrival.processor.append(self._judge_dag(dag_id, dags.get(dag_id), defining))
        since = datetime.fromisoformat(self._manifest.activated_at) - _CLOCKS_APART
        ours = {f"{package}/{file.path}" for file in self._manifest.files}
        arrival.faults = [
            fault
            for fault in self._control_plane.import_errors(package)
            if fault.file in ours
            and (
                self._release_of(fault) == self._manifest.release if fault.tree else fault.timestamp >= since
            )
        ]
        for worker in self._control_plane.workers():
            if worker.live:
                arrival.workers.append(self._judge_worker(worker.name, worker.tree))
        return arrival

    def wait(
        self, *, seconds: float, on_look: Callable[[Arrival], None], pause: float = _PAUSE_SECONDS
    ) -> Arrival:
        """Look until the release is everywhere.

        Raises :class:`FailedToParseError` when it cannot be imported, :class:`NotArrivedError` after
        ``seconds``. A control plane that does not answer for a while is waited for.
        """
        until = time.monotonic() + seconds
        last = "nothing was seen yet"
        while True:
            try:
                arrival = self.look()
            except UnreachableError as error:
                last = error.what
            else:
                on_look(arrival)
                last = arrival.summary()
                if (fault := self._certain(arrival)) is not None:
                    raise FailedToParseError(
                        f"release {arrival.release} is published, and the DAG processor cannot import "
                        f"{fault.file}: {fault.message}",
                        fix="publish a corrected file, or: airflow-dag-publisher rollback --to-previous",
                    )
                if arrival.complete:
                    return arrival
            if time.monotonic() >= until:
                raise NotArrivedError(
                    f"release {self._manifest.release} is published, and not everywhere after {seconds:g} s: "
                    f"{last}",
                    fix=f"airflow-dag-publisher status {self._manifest.package}; see the logs of dag-sync "
                    "and dag-processor",
                )
            time.sleep(pause)

    def _certain(self, arrival: Arrival) -> ImportFault | None:
        """Return an import error that must be of this release, if there is one."""
        settled = datetime.fromisoformat(self._manifest.activated_at) + _SETTLED
        parsed = [place.since for place in arrival.processor if place.since is not None]
        settled = min([settled, *parsed])
        return next((fault for fault in arrival.faults if fault.tree or fault.timestamp >= settled), None)

    def _release_of(self, fault: ImportFault) -> str:
        document = self._document(fault.tree)
        return document.releases.get(self._manifest.package, "") if document is not None else ""

    def _judge_dag(self, dag_id: str, dag: ParsedDag | None, defining: set[str]) -> Place:
        name = f"DAG {dag_id}"
        if dag is None:
            return Place(name, False, "", "not parsed yet")
        document = self._document(dag.tree)
        if document is None:
            return Place(
                name, False, "", f"parsed from tree {dag.tree[:12] or 'unknown'}, which is not known"
            )
        release = document.releases.get(self._manifest.package, "")
        if release == self._manifest.release:
            since = datetime.fromisoformat(dag.parsed_at) if dag.parsed_at else None
            return Place(name, True, release, f"parsed at {dag.parsed_at}", since)
        # A file that did not change is parsed again only every now and then. It counts when the tree that it
        # was parsed from has the same content of the file, and of everything that is no other DAG's file.
        others = defining - {dag.file}
        if self._content(document, others) == self._wanted(others):
            return Place(name, True, self._manifest.release, f"parsed at {dag.parsed_at}, unchanged since")
        return Place(name, False, release, f"parsed from release {release or 'none'}")

    def _judge_worker(self, name: str, tree: str) -> Place:
        shown = f"edge worker {name}"
        if not tree:
            return Place(shown, False, "", "does not say which tree it has")
        document = self._document(tree)
        if document is None:
            return Place(shown, False, "", f"has tree {tree[:12]}, which is not known")
        release = document.releases.get(self._manifest.package, "")
        return Place(shown, release == self._manifest.release, release, f"has release {release or 'none'}")

    def _content(self, document: TreeDocument, without: set[str]) -> dict[str, str]:
        folder = f"{self._manifest.package}/dags/"
        return {
            file.path: file.sha256
            for file in document.files
            if file.path.startswith(folder) and file.path not in without
        }

    def _wanted(self, without: set[str]) -> dict[str, str]:
        paths = {f"{self._manifest.package}/{file.path}": file.sha256 for file in self._manifest.files}
        return {path: sha256 for path, sha256 in paths.items() if path not in without}

    def _document(self, tree: str) -> TreeDocument | None:
        if not tree:
            return None
        if tree not in self._documents:
            key = document_key(self._store.settings.environment, tree)
            try:
                found = self._store.get(key, limit=MAX_DOCUMENT_BYTES)
                if found is None:
                    return None
                self._documents[tree] = read_document(found[0], tree)
            except IntegrityError:
                return None
        return self._documents[tree]
