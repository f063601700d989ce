"""A courier before a control plane that fails as it is told; all on loopback, no container."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.integration.courier.courier_peer import Courier, Peer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.close()


@pytest.fixture
def courier(peer: Peer, tmp_path: Path) -> Iterator[Courier]:
    courier = Courier(peer, tmp_path / "spool")
    courier.start()
    courier.wait_until(away=False)
    yield courier
    if courier.process.poll() is None:
        courier.kill()
