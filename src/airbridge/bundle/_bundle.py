"""A versioned :class:`airflow.dag_processing.bundles.base.BaseDagBundle` on the store of dag-sync."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import structlog
from airflow.dag_processing.bundles.base import BaseDagBundle

from airbridge.errors import AirbridgeError
from airbridge.sync.client import request_tree
from airbridge.sync.store import TREES, current_tree, is_tree_hash, tree

__all__ = ["AirbridgeDagBundle"]

_DEFAULT_STORE = "/store"
# How long a task waits for the tree its DAG run started with. An edge host's dag-sync is a poll behind the
# control plane's, so a run that starts right after a publish may be ahead of the files; one that was away
# makes the tree when it is asked.
_DEFAULT_PATIENCE_S = 60.0
_PAUSE_S = 0.2
# Between requests to dag-sync, which cost it one of S3: doubled after each, as what failed will for a while.
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 5.0
_NO_TREE = "none"  # can never be the name of a tree

log = structlog.get_logger(__name__)


class AirbridgeDagBundle(BaseDagBundle):  # type: ignore[misc]
    """DAGs of one whole tree of the store.

    Without ``version`` (DAG processor): the current tree, as of the last :meth:`refresh`. With ``version``
    (a task of a DAG run): that tree, which dag-sync is asked for when the store lacks it; if it does not
    arrive in time, the current one, with a warning, because running on newer code loses less than failing the
    task.

    Args:
        store: root folder of the store, see :mod:`airbridge.sync.store`; empty means ``DAG_STORE``.
        patience_s: seconds to wait for a tree that is not there yet.
        dag_sync_url: dag-sync's address; empty means ``DAG_SYNC_URL``. With neither, nobody is asked.
    """

    supports_versioning = True

    def __init__(
        self,
        *,
        store: str = "",
        patience_s: float = _DEFAULT_PATIENCE_S,
        dag_sync_url: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._dag_sync_url = dag_sync_url or os.environ.get("DAG_SYNC_URL", "")
        self._store = Path(store or os.environ.get("DAG_STORE", _DEFAULT_STORE))
        self._patience_s = patience_s
        self._tree: tuple[str, Path] | None = None

    def initialize(self) -> None:
        """Choose the tree; waits for a version that is not in the store yet."""
        if self.version:
            self._tree = self._await_version(self.version)
        else:
            self.refresh()
        super().initialize()

    def refresh(self) -> None:
        """Look at the current tree from now on. A store that is still empty is an empty bundle."""
        if self.version:
            return
        self._tree = current_tree(self._store)

    def get_current_version(self) -> str | None:
        """Return the hash of the tree that :attr:`path` lies in; ``None`` before the first sync."""
        return self._tree[0] if self._tree else None

    @property
    def path(self) -> Path:
        """Folder with one sub-folder a package; one that does not exist while nothing was synced.

        Airflow asks for it before :meth:`initialize` when it queues a callback: that gets the tree that
        :meth:`initialize` would choose now.
        """
        found = self._tree
        if not found and not self.version and not self.is_initialized:
            found = current_tree(self._store)
        return found[1] if found else self._store / TREES / (self.version or _NO_TREE)

    def _await_version(self, version: str) -> tuple[str, Path] | None:
        deadline = time.monotonic() + self._patience_s
        ask_at, pause, refused = time.monotonic(), _FIRST_PAUSE_S, ""
        while True:
            if path := tree(self._store, version):
                return version, path
            left = deadline - time.monotonic()
            if left <= 0:
                break
            if self._dag_sync_url and is_tree_hash(version) and time.monotonic() >= ask_at:
                try:
                    request_tree(self._dag_sync_url, version, left)
                    refused = ""
                except AirbridgeError as error:
                    refused = error.what
                ask_at, pause = time.monotonic() + pause, min(2 * pause, _LONGEST_PAUSE_S)
                if not refused:
                    continue
            time.sleep(_PAUSE_S)
        newest = current_tree(self._store)
        log.warning(
            "dag bundle version is not in the store, using the current one",
            wanted=version,
            using=newest[0] if newest else None,
            waited_s=self._patience_s,
            store=str(self._store),
            dag_sync=refused or self._dag_sync_url or "DAG_SYNC_URL is not set",
            fix="raise DAG_SYNC_KEEP_TREES, or check dag-sync on this host",
        )
        return newest
