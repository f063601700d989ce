"""One live worker a name: waits for a dead one's registration, refuses beside a living one.

The edge API refuses to register a name until its last owner signed off or was silent for five
heartbeats. A worker that was killed therefore finds its own name taken. Three cases, told apart by
watching the heartbeat the control plane saw last:

* it moves: another worker is alive under this name. Refused; its registration is never touched.
* it stands still and is this host's own (see :mod:`airbridge.edge._presence`): the predecessor is
  dead beyond doubt, and is signed off after two silent heartbeats.
* it stands still and is somebody else's, or nobody can tell: the control plane decides, after five.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from airbridge.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airbridge.edge._control_plane import Registration
    from airbridge.edge._presence import Presence

__all__ = ["Registry", "claim_name"]

# In heartbeat intervals: silence after which the control plane frees the name (edge3: lifeless workers) ...
_UNKNOWN_AFTER: Final = 5
# ... and after which a predecessor that is proven dead is signed off. More than one, so that the living
# original of a copied disk shows itself by its next heartbeat.
_PROOF_AFTER: Final = 2
# The same for how much older a heartbeat may be here than there: it leaves late when its worker starts many
# tasks, or on a busy host. Nobody else can have taken the name of a worker that was killed so soon after it.
_ON_ITS_WAY: Final = 1
_POLL_S: Final = 1.0
_REMIND_S: Final = 60.0

_log = structlog.get_logger("airbridge.edge.launch")


class Registry(Protocol):
    """What claiming a name needs of the control plane."""

    def registration(self) -> Registration | None:
        """Return what is registered under this worker's name."""

    def sign_off(self, state: str) -> None:
        """Report this worker's name as offline."""


def _offline_for(state: str) -> str:
    """Return the offline state that keeps a maintenance request alive."""
    return "offline maintenance" if state.startswith("maintenance") else "offline"


def claim_name(
    registry: Registry,
    presence: Presence,
    *,
    name: str,
    heartbeat_interval: float,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Return when the name may be registered by this process. ``presence`` must hold its lock.

    Returns whether the last one under this name was this host's own, and so is dead beyond doubt, with all
    that it ran.

    :param heartbeat_interval: seconds, as configured on both sides
    :raises RefusedError: another worker lives under this name
    """
    first = current = registry.registration()
    on_its_way = _ON_ITS_WAY * heartbeat_interval
    was_ours = first is not None and _is_ours(first, presence, on_its_way)
    waited_since = reminded = time.monotonic()
    while current is not None and not current.free:
        if first is not None and current.last_update != first.last_update:
            raise RefusedError(
                f"another worker named {name} is alive: its heartbeat reached the control plane "
                f"{current.age_s:.1f} s ago",
                fix="stop it, or give this worker a WORKER_NAME of its own",
            )
        # Looked at again: after a reboot, the host's time may be put right meanwhile.
        ours = _is_ours(current, presence, on_its_way)
        was_ours = was_ours or ours
        if ours and current.age_s >= _PROOF_AFTER * heartbeat_interval:
            registry.sign_off(_offline_for(current.state))
            presence.forget()
            _log.info("signed off the worker that was killed", worker=name, silent_s=round(current.age_s, 1))
        elif current is first or time.monotonic() - reminded >= _REMIND_S:
            reminded = time.monotonic()
            limit = (_PROOF_AFTER if ours else _UNKNOWN_AFTER) * heartbeat_interval
            _log.info(
                "waiting: this name is still registered by a worker that did not sign off",
                worker=name,
                state=current.state,
                last_heartbeat_s=round(current.age_s, 1),
                free_in_s=round(max(0.0, limit - current.age_s), 1),
            )
        sleep(_POLL_S)
        current = registry.registration()
    if first is not None and not first.free:
        _log.info("name is free", worker=name, waited_s=round(time.monotonic() - waited_since, 1))
    return was_ours


def _is_ours(registration: Registration, presence: Presence, on_its_way: float) -> bool:
    """Return whether the control plane's last heartbeat came from a worker of this host.

    :param on_its_way: seconds between the mark of a heartbeat and its arrival, at most
    """
    own_age = presence.mark_age()
    if own_age is None:
        # The host's time may be wrong after a reboot. By less than it takes until the name is free, that
        # decides nothing wrong: nobody else can have had the name so soon after this host.
        own_age = presence.age_across_boots()
    return own_age is not None and registration.age_s >= own_age - on_its_way
