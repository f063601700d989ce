"""The courier of an edge host: between the worker and the uplink, it rides out a control plane that is away.

It looks like the edge API and the Execution API to the worker and its tasks. While the control plane answers,
it hands every call on and every answer back. While it does not, by whatever kind of failure,

* reports (states and logs of jobs; states, XComs and rendered fields of tasks) are written to a spool on this
  host's disk, acknowledged, and delivered later, in order for each job,
* heartbeats get the answer that keeps the worker and its tasks going, for a bounded time,
* a question for the next job is answered with "none",
* whatever needs an answer waits for it.

``python -m airbridge.courier``
    Runs the service.
``python -m airbridge.courier health``
    Exits 0 when the service answers and can write its spool; whether the control plane is there is no part of
    the courier's own health.

:mod:`airbridge.courier_status` is how others ask it how it is.
"""

from __future__ import annotations

__all__: list[str] = []
