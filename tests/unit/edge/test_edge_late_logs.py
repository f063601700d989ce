"""When the logs that wait for S3 are sent."""

from __future__ import annotations

import dataclasses
import sys
import time
from typing import TYPE_CHECKING

import pytest
from tests.unit.edge.edge_servers import Plane, Servers, free_port

from airbridge.edge._late_logs import LateLogs

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    folder = tmp_path / "logs" / "dag_id=etl"
    folder.mkdir(parents=True)
    (folder / "attempt=1.log").write_text("line\n")
    return folder.parent


def _sender(folder: Path, *, works: bool) -> tuple[str, ...]:
    """A command that notes that it ran and, when it works, empties the list."""
    code = (
        f"import pathlib; pathlib.Path({str(folder / 'ran')!r}).open('a').write('x')\n"
        + (f"for p in pathlib.Path({str(folder / '.unsent')!r}).iterdir(): p.unlink()\n" if works else "")
        + f"raise SystemExit({0 if works else 1})"
    )
    return (sys.executable, "-c", code)


def _runs(folder: Path) -> int:
    ran = folder / "ran"
    return len(ran.read_text()) if ran.exists() else 0


def _look_until_it_ran(late: LateLogs, folder: Path) -> None:
    deadline = time.monotonic() + 30
    while not _runs(folder):
        assert time.monotonic() < deadline
        late.look()
        time.sleep(0.05)


def test_what_an_earlier_worker_left_is_sent_at_the_start(logs: Path, servers: Servers, plane: Plane) -> None:
    late = LateLogs(logs, f"http://127.0.0.1:{servers.start(plane)}", _sender(logs, works=True))
    _look_until_it_ran(late, logs)
    for _ in range(20):
        late.look()
        time.sleep(0.02)
    assert _runs(logs) == 1, "nothing is left to be sent"


def test_nothing_is_tried_while_the_control_plane_is_away(logs: Path, servers: Servers, plane: Plane) -> None:
    plane.courier = dataclasses.replace(plane.courier, away=True)
    late = LateLogs(logs, f"http://127.0.0.1:{servers.start(plane)}", _sender(logs, works=True))
    late.look()
    late.look()
    assert _runs(logs) == 0
    plane.courier = dataclasses.replace(plane.courier, away=False)
    _look_until_it_ran(late, logs)


def test_nothing_is_tried_without_a_courier(logs: Path) -> None:
    late = LateLogs(logs, f"http://127.0.0.1:{free_port()}", _sender(logs, works=True))
    late.look()
    time.sleep(0.2)
    late.look()
    assert _runs(logs) == 0


def test_sender_that_fails_rests(
    logs: Path, servers: Servers, plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.uniform", lambda _, longest: longest)
    late = LateLogs(logs, f"http://127.0.0.1:{servers.start(plane)}", _sender(logs, works=False))
    _look_until_it_ran(late, logs)
    for _ in range(20):
        late.look()
        time.sleep(0.05)
    assert _runs(logs) == 1
