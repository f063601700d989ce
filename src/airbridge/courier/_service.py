"""The courier's HTTP service: what the worker and its tasks talk to."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiohttp import web

from airbridge.courier._answers import Answer, Meaning, is_repeat_of
from airbridge.courier._calls import (
    EDGE_API,
    Call,
    Kind,
    held_s,
    job_of,
    jobs_of,
    read_call,
    task_instance_of,
)
from airbridge.courier._link import Link
from airbridge.courier._sender import Sender
from airbridge.courier._signature import is_signed_by
from airbridge.courier._spool import Report, Spool, SpoolFullError
from airbridge.courier._store import Store
from airbridge.courier._upstream import CHUNK_HEADER, FETCH_HEADER, Upstream, end_to_end
from airbridge.courier_status import STATUS_PATH, CourierStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from airbridge.courier._settings import CourierSettings

__all__ = ["make_app", "serve"]

# A task's client gives up after 5 s (httpx's default, which the Task SDK keeps): answers come before.
_TASK_PATIENCE_S: Final = 4.0
# The worker's client waits for minutes, but its main loop stands still meanwhile.
_WORKER_PATIENCE_S: Final = 8.0
# A registration may wait: nothing runs yet.
_REGISTRATION_PATIENCE_S: Final = 60.0
# On top of the time that the worker lets its question for jobs be held: a slow control plane still answers.
_HELD_PATIENCE_S: Final = 20.0
# A question is signed for half a minute. One that waits for the control plane to come back must not grow old.
_LONGEST_HELD_HERE_S: Final = 15.0
# The gateway takes bodies of 10 MB.
_LONGEST_BODY: Final = 16 * 1024 * 1024
_POLL_S: Final = 0.25
_SHORT_POLL_S: Final = 0.05
_SHUTDOWN_S: Final = 5.0
_SECRETS_KNOWN: Final = 2

_log = structlog.get_logger("airbridge.courier")


def _error(status: int, detail: object) -> web.Response:
    return web.json_response({"detail": detail}, status=status)


def _no_jobs() -> web.Response:
    return web.json_response({"jobs": []})


def _hung_up(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _handed_on(answer: Answer) -> web.Response:
    return web.Response(status=answer.status, headers=dict(answer.headers), body=answer.body)


class _Courier:
    """What the handlers share."""

    def __init__(self, settings: CourierSettings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._spool = Spool(settings.spool, settings.spool_bytes)
        self._store = Store(self._spool)
        self._upstream = Upstream(settings.uplink_url, environ)
        self._link = Link(self._upstream.probe, self._spool)
        self._sender = Sender(self._store, self._upstream, self._link, settings.absence_limit_s)
        self._fetching = asyncio.Lock()
        self._turns: dict[str, asyncio.Lock] = {}
        self._worker: dict[str, Any] = {}
        """The last answer to a heartbeat."""
        self._unheard: dict[str, float] = {}
        """Since when a running task's heartbeats did not arrive."""
        self._full_since: float | None = None
        self._secrets: tuple[str, ...] = ()
        """Those that the worker may sign with, the newest first."""
        self._note_secret()  # before another takes its place

    async def run(self, _: web.Application) -> AsyncIterator[None]:
        """Deliver and watch for as long as the application runs."""
        async with self._upstream:
            jobs = [asyncio.create_task(self._link.watch()), asyncio.create_task(self._sender.run())]
            for job in jobs:
                job.add_done_callback(_end_if_broken)
            totals = await self._store.totals()
            _log.info("courier is ready", worker=self._settings.worker_name, waiting=totals.count)
            yield
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)
        self._spool.close()

    # --- calls ------------------------------------------------------------------------------------

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one call of the worker or of a task."""
        target = request.raw_path
        call = read_call(request.method, target)
        if call is None:
            return _error(404, "the courier knows no such path")
        body = await request.read()
        headers = end_to_end(request.headers)
        report = Report(self._stream_of(call, headers), request.method, target, headers, body)
        own_way = {
            Kind.FETCH: self._fetch,
            Kind.HEARTBEAT: self._heartbeat,
            Kind.TASK_HEARTBEAT: self._task_heartbeat,
        }
        if handle := own_way.get(call.kind):
            return await handle(report)
        if call.kind is Kind.JOBS:
            return await self._jobs(request, report)
        if call.kind.is_report:
            return await self._report(call, report)
        return await self._ask(request, call, report)

    def _stream_of(self, call: Call, headers: Mapping[str, str]) -> str:
        if call.job or call.api == EDGE_API:
            return call.job
        return self._store.stream_of(task_instance_of(headers.get("Authorization", "")))

    async def _send(self, report: Report, timeout: float, **headers: str) -> Answer:
        answer = await self._upstream.send(
            report.verb, report.target, {**report.headers, **headers}, report.body, timeout=timeout
        )
        if answer.meaning is Meaning.AWAY:
            self._link.suspect(answer)
        return answer

    async def _fetch(self, report: Report) -> web.Response:
        nothing = web.json_response(None)
        # What this host has to say comes first: a slot that is free here may not be free there yet.
        if not self._link.is_there or self._sender.is_busy or self._fetching.locked():
            return nothing
        async with self._fetching:
            number = await self._store.fetch_id()
            answer = await self._send(report, _WORKER_PATIENCE_S, **{FETCH_HEADER: number})
            if answer.meaning in (Meaning.AWAY, Meaning.TROUBLE):
                return nothing  # a job that was in it is given again under the same id
            given = job_of(answer.body) if answer.meaning is Meaning.DONE else None
            if given is not None:
                await self._store.took(*given)
            return _handed_on(answer)

    async def _jobs(self, request: web.Request, report: Report) -> web.Response:
        """Hand the question for jobs on, once the control plane is there and has heard what this host knows.

        A job whose start it has not heard of it would hand out again.
        """
        held = held_s(report.body)
        deadline = time.monotonic() + min(max(held, _POLL_S), _LONGEST_HELD_HERE_S)
        while not self._link.is_there or self._sender.is_busy:
            if time.monotonic() >= deadline or _hung_up(request):
                # The worker asks again: at once where it was held, after a pause where it was not.
                return _no_jobs() if held else _error(503, "the control plane is away")
            await asyncio.sleep(_SHORT_POLL_S)
        sending = asyncio.create_task(self._send(report, held + _HELD_PATIENCE_S))
        try:
            # A line that was cut may never say so: other calls notice first, and the worker asks anew.
            while not sending.done() and self._link.is_there and not _hung_up(request):
                await asyncio.wait((sending,), timeout=_POLL_S)
        finally:
            if not sending.done():
                sending.cancel()  # so that the control plane gives jobs to nobody who is gone
        if not sending.done():
            return _no_jobs()
        answer = sending.result()
        if given := jobs_of(answer.body) if answer.meaning is Meaning.DONE else None:
            await self._store.assign(given)
        if answer.status == 0:
            return _error(503, answer.reason)
        return _handed_on(answer)

    async def _heartbeat(self, report: Report) -> web.Response:
        if self._link.is_there:
            answer = await self._send(report, _WORKER_PATIENCE_S)
            if answer.meaning is Meaning.DONE:
                with contextlib.suppress(ValueError):
                    self._worker = dict(json.loads(answer.body))
                return _handed_on(answer)
            if answer.is_version_mismatch:
                return _handed_on(answer)
            if answer.meaning is Meaning.NO and answer.status == 404:
                await self._register_again(report)
        elif self._link.last.is_version_mismatch:
            return _handed_on(self._link.last)  # the worker drains, and is refused when it starts again
        try:
            said = json.loads(report.body)
            state, queues = said["state"], said.get("queues")
        except (ValueError, TypeError, KeyError):
            return _error(400, "no heartbeat")
        known = {"queues": queues, "versions_match": True, **self._worker}
        # Its own state, so that it does not take the difference for an order.
        return web.json_response({**known, "state": state})

    async def _register_again(self, heartbeat: Report) -> None:
        """Somebody deleted the worker there, or brought back an older database: no reason to end it here."""
        answer = await self._upstream.send(
            "POST",
            heartbeat.target,
            heartbeat.headers,
            heartbeat.body,
            timeout=_WORKER_PATIENCE_S,
            sign=True,
        )
        _log.warning("the control plane did not know this worker: registered again", answer=answer.status)

    async def _task_heartbeat(self, report: Report) -> web.Response:
        if self._link.is_there:
            answer = await self._send(report, _TASK_PATIENCE_S)
            if answer.meaning in (Meaning.DONE, Meaning.NO):
                self._unheard.pop(report.stream, None)
                return _handed_on(answer)
        now = time.monotonic()
        silence = max(now - self._unheard.setdefault(report.stream, now), self._link.away_s)
        if silence <= self._settings.absence_limit_s:
            # A supervisor that has to try again stands still, and its task with it.
            return web.Response(status=204)
        # From here on the control plane may start the task elsewhere. The Task SDK ends a task on this.
        limit = f"{self._settings.absence_limit_s:.0f} s (EDGE_ABSENCE_LIMIT)"
        return _error(
            409,
            {
                "reason": "control_plane_away",
                "message": f"the control plane was away for more than {limit} and may run this task again",
            },
        )

    def _note_secret(self) -> None:
        credential = self._upstream.credential()
        if credential is not None and credential.secret not in self._secrets:
            self._secrets = (credential.secret, *self._secrets[: _SECRETS_KNOWN - 1])

    def _is_of_worker(self, token: str, method: str) -> bool:
        """Return whether this host's worker signed a call.

        With the credential of now, or the one before: until it is started again, the worker has the one that
        it was started with. Whether that is still good is for the control plane to say.
        """
        self._note_secret()
        return any(is_signed_by(secret, token, method) for secret in self._secrets)

    async def _report(self, call: Call, report: Report) -> web.Response:
        token = report.headers.get("Authorization", "")
        if call.api == EDGE_API and not self._is_of_worker(token, call.path):
            return _error(401, "only this host's worker may report here")
        if call.kind is Kind.LOG:
            with contextlib.suppress(ValueError, TypeError, KeyError):
                time_of = str(json.loads(report.body)["log_chunk_time"])
                report = Report(
                    report.stream,
                    report.verb,
                    report.target,
                    {**report.headers, CHUNK_HEADER: time_of},
                    report.body,
                )
        turn = self._turns.setdefault(report.stream, asyncio.Lock())
        async with turn:
            response = await self._deliver_or_keep(call, report)
        if call.ends_job:
            self._turns.pop(report.stream, None)
            self._unheard.pop(report.stream, None)
        return response

    async def _deliver_or_keep(self, call: Call, report: Report) -> web.Response:
        if self._link.is_there and not self._store.has(report.stream):
            patience = _WORKER_PATIENCE_S if call.api == EDGE_API else _TASK_PATIENCE_S
            answer = await self._send(report, patience)
            meaning = answer.meaning
            if meaning in (Meaning.DONE, Meaning.NO):
                if call.ends_job:
                    await self._store.ended(report.stream)
                if meaning is Meaning.NO and call.api == EDGE_API:
                    # The worker would forget a job that runs, and there is nothing else it could do about it.
                    self._sender.note_refusal(report.verb, report.target, report.body, answer)
                    return self._accepted(call)
                if meaning is Meaning.NO and is_repeat_of(report.body, answer):
                    return self._accepted(
                        call
                    )  # the task tries again what a courier that was killed had sent
                return _handed_on(answer)
        try:
            # A log is in S3 as well when its task has ended: it makes room for what is nowhere else.
            await self._store.add(report, may_use_reserve=call.kind is not Kind.LOG)
        except SpoolFullError as error:
            return self._no_room(call, error)
        self._full_since = None
        return self._accepted(call)

    def _no_room(self, call: Call, error: SpoolFullError) -> web.Response:
        if self._full_since is None:
            self._full_since = time.monotonic()
            _log.error("spool is full", error=error.what, fix=error.fix)
        if call.kind is Kind.LOG:
            self._sender.lost += 1
            return self._accepted(call)
        return _error(503, str(error))  # tried again by who sent it

    @staticmethod
    def _accepted(call: Call) -> web.Response:
        if call.api == EDGE_API:
            return web.json_response(None)
        return web.Response(status=call.accepted)

    async def _ask(self, request: web.Request, call: Call, report: Report) -> web.StreamResponse:
        patience = _REGISTRATION_PATIENCE_S if call.kind is Kind.REGISTRATION else _TASK_PATIENCE_S
        deadline = time.monotonic() + patience
        last = self._link.last
        while (left := deadline - time.monotonic()) > 0:
            # What the task has said must be there before it asks.
            if self._link.is_there and not self._store.has(report.stream):
                got = await self._upstream.relay(request, report.headers, report.body, timeout=left)
                if isinstance(got, web.StreamResponse):
                    return got
                if got.meaning is not Meaning.AWAY or got.is_version_mismatch or request.transport is None:
                    return _handed_on(got)
                last = got
                self._link.suspect(got)
            elif call.kind is Kind.REGISTRATION and self._link.last.is_version_mismatch:
                return _handed_on(self._link.last)
            await asyncio.sleep(min(_POLL_S, max(0.0, left)))
        # Both clients try again after this one, and only after a few others.
        return _error(503, f"the control plane is away: {last.reason}")

    # --- status -----------------------------------------------------------------------------------

    async def status(self, _: web.Request) -> web.Response:
        """Say how it is."""
        totals = await self._store.totals()
        now = CourierStatus(
            away=not self._link.is_there and self._link.is_away,
            away_s=round(self._link.away_s, 1),
            reason=self._link.last.reason if self._link.is_away else "",
            waiting=totals.count,
            waiting_bytes=totals.size,
            oldest_s=round(max(0.0, time.time() - totals.oldest), 1) if totals.oldest is not None else 0.0,
            delivered=self._sender.delivered,
            refused=self._sender.refused,
            lost=self._sender.lost,
            limit_bytes=self._settings.spool_bytes,
        )
        return web.json_response({name: getattr(now, name) for name in CourierStatus.__slots__})


def _end_if_broken(job: asyncio.Task[None]) -> None:
    """A courier without its sender would keep everything for ever; started again, it has what it kept."""
    if not job.cancelled() and job.exception() is not None:
        _log.error("ended by an error that nobody expected", exc_info=job.exception())
        os.kill(os.getpid(), signal.SIGTERM)


def make_app(settings: CourierSettings, environ: Mapping[str, str]) -> web.Application:
    """Return the service.

    :param environ: where the worker's credential comes from
    :raises AirbridgeError: the spool cannot be used
    """
    courier = _Courier(settings, environ)
    app = web.Application(client_max_size=_LONGEST_BODY)
    app.router.add_get(STATUS_PATH, courier.status)
    app.router.add_route("*", "/{path:.*}", courier.handle)
    app.cleanup_ctx.append(courier.run)
    return app


def _configure_logging() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(file=sys.stdout),
    )


def serve(settings: CourierSettings) -> None:
    """Serve until SIGTERM or SIGINT.

    :raises AirbridgeError: the spool cannot be used
    """
    _configure_logging()
    app = make_app(settings, os.environ)
    gc.freeze()
    web.run_app(
        app, host=settings.host, port=settings.port, access_log=None, print=None, shutdown_timeout=5.0
    )
