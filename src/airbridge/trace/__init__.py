"""The whole way of an attempt at a task, out of the logs of everything that it passed.

Each of them carries the correlation id, which is the id of Airflow's task instance: gateway, api-server,
uplink, worker, and the task's own log. ``python -m airbridge.trace`` takes what ``scripts/trace.sh`` has
collected and prints the lines of one attempt in the order of time.
"""

from __future__ import annotations

__all__: list[str] = []
