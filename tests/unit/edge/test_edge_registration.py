"""Who may take a registered name: against a real control plane's answers, with a clock of our own."""

from __future__ import annotations

import time

import pytest
from tests.unit.edge.edge_servers import VERSIONS, WORKER

from airbridge.edge._control_plane import ControlPlane
from airbridge.edge._presence import Presence, _boot_clock
from airbridge.edge._registration import claim_name
from airbridge.edge.settings import load_settings
from airbridge.errors import RefusedError

HEARTBEAT_S = 10


@pytest.fixture
def joined(edge_host, servers, plane):
    edge_host(UPLINK_URL=f"http://127.0.0.1:{servers.start(plane)}")
    return plane


@pytest.fixture
def presence(tmp_path):
    made = Presence(tmp_path, WORKER)
    made.acquire()
    yield made
    made.release()


def _last_heartbeat_left(folder, seconds_ago):
    boot, now = _boot_clock()
    (folder / f"{WORKER}.heartbeat").write_text(f"{boot} {now - seconds_ago}")


def _last_heartbeat_left_before_a_reboot(folder, seconds_ago):
    wall = time.time() - seconds_ago
    (folder / f"{WORKER}.heartbeat").write_text(f"00000000-0000-0000-0000-000000000000 5.0 {wall}")


def _claim(presence, between=lambda _: None):
    """Claim the name; ``between`` runs in every pause with its number. Return the number of pauses."""
    pauses = []

    def sleep(_seconds):
        pauses.append(1)
        assert len(pauses) < 10, "waits for ever"
        between(len(pauses))

    with ControlPlane(load_settings(), VERSIONS) as control_plane:
        claim_name(control_plane, presence, name=WORKER, heartbeat_interval=HEARTBEAT_S, sleep=sleep)
    return len(pauses)


def _was_ours(presence):
    """Claim the name, and return whether the one before was this host's own."""
    with ControlPlane(load_settings(), VERSIONS) as control_plane:
        return claim_name(
            control_plane, presence, name=WORKER, heartbeat_interval=HEARTBEAT_S, sleep=lambda _: None
        )


def _verbs(plane):
    return {verb for verb, _ in plane.requests}


def test_unregistered_name_is_free(joined, presence):
    assert _claim(presence) == 0


@pytest.mark.parametrize("state", ["offline", "unknown", "offline maintenance"])
def test_name_that_was_given_back_is_free(joined, presence, state):
    joined.heartbeat(state=state)
    assert _claim(presence) == 0
    assert _verbs(joined) == {"GET"}


def test_own_killed_worker_is_signed_off(joined, presence, tmp_path):
    joined.heartbeat(age=25)
    _last_heartbeat_left(tmp_path, 25.3)
    assert _claim(presence) == 1
    assert joined.workers[WORKER]["state"] == "offline"
    assert presence.mark_age() is None


@pytest.mark.parametrize(
    ("age", "left", "ours"),
    [
        (25, 25.3, True),
        (25, 33, True),
        (25, None, False),
        (25, 100, False),
        (25, 36, False),
        (300, 300, True),
    ],
    ids=[
        "own",
        "own, long on its way",
        "nobody knows",
        "another host's",
        "another host's soon",
        "own, given up",
    ],
)
def test_it_is_known_whether_the_one_before_was_of_this_host(joined, presence, tmp_path, age, left, ours):
    joined.heartbeat(age=age, state="unknown" if age > 50 or not ours else "running")
    if left is not None:
        _last_heartbeat_left(tmp_path, left)
    assert _was_ours(presence) is ours


@pytest.mark.parametrize(
    ("age", "left", "ours"),
    [(300, 301, True), (300, 309, True), (300, 200, True), (300, 315, False), (300, -50, False)],
    ids=["own", "own, long on its way", "own, cut off before", "another's", "no clock"],
)
def test_after_a_reboot_it_is_known_whether_the_one_before_was_of_this_host(
    joined, presence, tmp_path, age, left, ours
):
    joined.heartbeat(age=age, state="unknown")
    _last_heartbeat_left_before_a_reboot(tmp_path, left)
    assert _was_ours(presence) is ours


def test_quick_reboot_signs_off_the_worker_that_it_ended(joined, presence, tmp_path):
    joined.heartbeat(age=25)
    _last_heartbeat_left_before_a_reboot(tmp_path, 26)
    assert _claim(presence) == 1
    assert joined.workers[WORKER]["state"] == "offline"


def test_clock_that_is_put_right_while_the_name_is_waited_for_decides(joined, presence, tmp_path):
    joined.heartbeat(age=25)
    _last_heartbeat_left_before_a_reboot(tmp_path, -3600)

    def between(_):
        _last_heartbeat_left_before_a_reboot(tmp_path, 26)  # the same mark, for a clock that is right

    assert _claim(presence, between) == 2
    assert joined.workers[WORKER]["state"] == "offline"


def test_living_original_of_a_disk_that_was_copied_is_left_alone(joined, presence, tmp_path):
    """The copy boots seconds after the heartbeat that both know of."""
    joined.heartbeat(age=5)
    _last_heartbeat_left_before_a_reboot(tmp_path, 5)
    with pytest.raises(RefusedError, match="is alive"):
        _claim(presence, lambda pause: joined.heartbeat(age=0) if pause == 2 else None)
    assert _verbs(joined) == {"GET"}


def test_killed_worker_whose_last_heartbeat_was_long_on_its_way_is_signed_off(joined, presence, tmp_path):
    """It was starting eight tasks at once, on a busy host."""
    joined.heartbeat(age=21.5)
    _last_heartbeat_left(tmp_path, 26)
    assert _claim(presence) == 1
    assert joined.workers[WORKER]["state"] == "offline"


def test_own_worker_in_maintenance_stays_in_maintenance(joined, presence, tmp_path):
    joined.heartbeat(age=25, state="maintenance mode")
    _last_heartbeat_left(tmp_path, 25.3)
    _claim(presence)
    assert joined.workers[WORKER]["state"] == "offline maintenance"


def test_own_killed_worker_is_not_signed_off_before_two_silent_heartbeats(joined, presence, tmp_path):
    joined.heartbeat(age=15)
    _last_heartbeat_left(tmp_path, 15)
    states = []

    def between(pause):
        states.append(joined.workers[WORKER]["state"])
        if pause == 3:
            joined.workers[WORKER]["state"] = "unknown"

    _claim(presence, between)
    assert states == ["idle"] * 3
    assert _verbs(joined) == {"GET"}


def test_registration_younger_than_our_last_heartbeat_is_not_ours(joined, presence, tmp_path):
    """Another host took the name after our predecessor died, and fell silent itself."""
    joined.heartbeat(age=25)
    _last_heartbeat_left(tmp_path, 60)

    def between(pause):
        if pause == 4:
            joined.workers[WORKER]["state"] = "unknown"

    assert _claim(presence, between) == 4
    assert _verbs(joined) == {"GET"}


def test_registration_without_any_trace_here_is_left_to_the_control_plane(joined, presence, capsys):
    joined.heartbeat(age=40)

    def between(pause):
        if pause == 4:
            joined.workers[WORKER]["state"] = "unknown"

    assert _claim(presence, between) == 4
    assert _verbs(joined) == {"GET"}
    assert capsys.readouterr().out.count("waiting: ") == 1


@pytest.mark.parametrize("mark", [None, 12.0])
def test_heartbeat_that_moves_is_another_living_worker(joined, presence, tmp_path, mark):
    joined.heartbeat(age=12)
    if mark is not None:
        _last_heartbeat_left(tmp_path, mark)  # as on a copied disk
    with pytest.raises(RefusedError, match="another worker named north-1 is alive"):
        _claim(presence, lambda _: joined.heartbeat())
    assert _verbs(joined) == {"GET"}


def test_name_is_claimed_when_the_registration_was_deleted_meanwhile(joined, presence):
    joined.heartbeat()
    assert _claim(presence, lambda _: joined.workers.clear()) == 1
