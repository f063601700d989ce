from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sync_peer import Peer
from sync_rig import Rig, make_rig

from airbridge.sync._settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.stop()


@pytest.fixture
def environment(peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """dag-sync's environment, set for this process too."""
    store = tmp_path / "store"
    store.mkdir()
    values = {
        "DAG_BUCKET": peer.bucket,
        "ENVIRONMENT": "dev",
        "S3_ENDPOINT_URL": peer.url,
        "DAG_STORE": str(store),
        "AWS_ACCESS_KEY_ID": "edge-1",
        "AWS_SECRET_ACCESS_KEY": "correct-horse-battery",
        "AWS_DEFAULT_REGION": "eu-west-3",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return values


@pytest.fixture
def settings(environment: dict[str, str]) -> Settings:
    return load_settings()


@pytest.fixture
def rig(peer: Peer, settings: Settings) -> Iterator[Rig]:
    rig = make_rig(peer, settings)
    yield rig
    rig.store.close()
