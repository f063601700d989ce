"""Waits at the control plane for jobs: one held request, over one kept connection.

The call is described in :mod:`airbridge.controlplane._dispatch`. No Airflow in here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

import httpx
import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, stop_never, wait_random_exponential

from airbridge.edge.token import API_PREFIX, request_headers
from airbridge.retry_log import retry_warning

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

__all__ = ["HELD_S", "AttemptKey", "JobFeed"]

AttemptKey = tuple[str, str, str, int, int]
"""DAG id, task id, run id, map index, try number."""

HELD_S: Final = 50.0
"""How long a call is held while there is no job. Load balancers cut a connection that is silent for 60 s."""

# Longer than the call is held, by what a slow control plane may need to answer.
_TIMEOUT: Final = httpx.Timeout(HELD_S + 30.0, connect=5.0)
_RETRY_FIRST_S: Final = 0.5
_RETRY_LONGEST_S: Final = 15.0
_SHOWN: Final = 300  # characters, of an answer that was none

_log = structlog.get_logger("airbridge.edge.jobs")


class _NotNowError(Exception):
    """The control plane did not answer, or said that it cannot."""


class JobFeed:
    """Asks for jobs until it is answered. Use it as an async context manager.

    Args:
        courier: ``http://host:port`` of the courier, which knows what this host has not reported yet.
        worker: the worker's name.
        secret: the worker's secret, which signs each call.
    """

    def __init__(self, courier: str, worker: str, secret: str) -> None:
        self._url = f"{courier}{API_PREFIX}jobs/{worker}"
        self._worker = worker
        self._secret = secret
        self._client = httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False)
        self._retrying = AsyncRetrying(
            retry=retry_if_exception_type(_NotNowError),
            wait=wait_random_exponential(multiplier=_RETRY_FIRST_S, max=_RETRY_LONGEST_S),
            stop=stop_never,
            before_sleep=retry_warning(_log, "no answer to the question for jobs"),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def jobs(
        self, queues: Sequence[str], slots: int, holding: Iterable[AttemptKey], held_s: float = HELD_S
    ) -> list[dict[str, Any]]:
        """Return jobs of these queues, each as ``EdgeJobFetched``; an empty list when there was none.

        Goes on asking while the control plane is away or refuses: with backoff and jitter, for ever.

        :param slots: tasks that may run here at once; which of them are free the control plane knows
        :param holding: attempts that this worker has; what it was handed beside these is sent again
        :param held_s: seconds that the call may be held
        """
        body = {"queues": list(queues), "slots": slots, "wait": held_s, "holding": list(holding)}
        answer: list[dict[str, Any]] = await self._retrying(self._ask, body, "jobs")
        return answer

    async def lost(self, queues: Sequence[str]) -> list[AttemptKey]:
        """Return the attempts that ran on the worker in whose place this one is.

        Goes on asking as :meth:`jobs` does.
        """
        body = {"queues": list(queues), "slots": 0, "restarted": True}
        answer: list[list[Any]] = await self._retrying(self._ask, body, "lost")
        return [(dag, task, run, index, number) for dag, task, run, index, number in answer]

    async def _ask(self, body: dict[str, Any], wanted: str) -> list[Any]:
        headers = request_headers(self._secret, self._worker, f"jobs/{self._worker}")
        try:
            response = await self._client.post(self._url, json=body, headers=headers)
            if response.status_code != httpx.codes.OK:
                raise _NotNowError(f"HTTP {response.status_code}: {response.text[:_SHOWN]}")
            answer: list[Any] = response.json()[wanted]
            return answer
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise _NotNowError(str(error) or type(error).__name__) from error
