"""A flood takes its sender's share and nobody else's: of one worker, of made-up names, of slow clients."""

from __future__ import annotations

import contextlib
import secrets
import socket
import statistics
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx
import pytest
from _attacks import attacks
from _raw_door import NAME, RawDoor
from _stack import until

from airbridge.credential import Credential, JoinToken
from airbridge.edge.token import request_headers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _strict import Door

    from airbridge.client_certificate import ClientCertificate

SNI = {"sni_hostname": NAME}
#: Requests of a flood at most, over all of its connections.
_MOST = 6000
_CONNECTIONS = 16
_SAMPLES = 30


@dataclass
class Worker:
    """An enrolled worker with a connection of its own."""

    who: Credential
    held: ClientCertificate
    http: httpx.Client
    sysinfo: dict[str, object] = field(default_factory=dict)

    def call(self, method: str, call: str, body: object = None) -> httpx.Response:
        """One call of the edge API."""
        headers = request_headers(self.who.secret, self.who.name, call)
        return self.http.request(
            method, f"/edge_worker/v1/{call}", headers=headers, json=body, extensions=SNI
        )

    def fetch(self) -> httpx.Response:
        """Ask for work."""
        return self.call(
            "POST", f"jobs/fetch/{self.who.name}", {"queues": [self.who.name], "free_concurrency": 1}
        )

    def heartbeat(self) -> httpx.Response:
        """Say that it lives."""
        body = {"state": "idle", "jobs_active": 0, "queues": [self.who.name], "sysinfo": self.sysinfo}
        return self.call("PATCH", f"worker/{self.who.name}", body)

    def p95_ms(self) -> tuple[float, Counter[int]]:
        """95th percentile of its calls now, and how they were answered."""
        taken, answers = [], Counter[int]()
        for number in range(_SAMPLES):
            began = time.perf_counter()
            answer = self.fetch() if number % 2 else self.heartbeat()
            taken.append((time.perf_counter() - began) * 1000)
            answers[answer.status_code] += 1
            time.sleep(0.25)  # more often than a worker asks
        return statistics.quantiles(taken, n=20)[-1], answers


@dataclass
class Flood:
    """Threads that send as fast as they are let, until they are stopped."""

    send: Callable[[httpx.Client], httpx.Response]
    client: Callable[[], httpx.Client]
    answers: Counter[int] = field(default_factory=Counter)
    waits: set[str] = field(default_factory=set)

    def _run(self, stop: threading.Event) -> None:
        with self.client() as http:
            for _ in range(_MOST // _CONNECTIONS):
                if stop.is_set():
                    return
                try:
                    answer = self.send(http)
                except httpx.HTTPError:
                    self.answers[0] += 1
                    continue
                self.answers[answer.status_code] += 1
                if "Retry-After" in answer.headers:
                    self.waits.add(answer.headers["Retry-After"])

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Flood while the block runs."""
        stop = threading.Event()
        threads = [threading.Thread(target=self._run, args=(stop,)) for _ in range(_CONNECTIONS)]
        for thread in threads:
            thread.start()
        try:
            time.sleep(2)  # what a full bucket holds is used up by then
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def _worker(door: Door, name: str) -> Worker:
    who, held = door.enrolled(name)
    versions = door.ask(held, who).json()
    sysinfo = {
        "airflow_version": versions["airflow"],
        "edge_provider_version": versions["edge_provider"],
        "concurrency": 1,
        "free_concurrency": 1,
    }
    worker = Worker(who, held, door.client(held), sysinfo)
    body = {"state": "starting", "jobs_active": 0, "queues": [name], "sysinfo": sysinfo}
    answer = worker.call("POST", f"worker/{name}", body)
    assert answer.is_success, answer.text
    return worker


@pytest.fixture(scope="module")
def quiet(strict: Door) -> Worker:
    """The worker that goes about its work."""
    return _worker(strict, "flood-quiet")


@pytest.fixture(scope="module")
def loud(strict: Door) -> Worker:
    """The worker that does not."""
    return _worker(strict, "flood-loud")


def _compare(what: str, quiet: Worker, trouble: contextlib.AbstractContextManager[None]) -> None:
    """Measured, not judged: how busy the machine is counts for more. Whom a limit refuses is judged."""
    before, answers = quiet.p95_ms()
    assert set(answers) == {200}, answers
    with trouble:
        during, answers = quiet.p95_ms()
    attacks.note(
        f"{what}: p95 of another worker {before:.0f} ms before, {during:.0f} ms during: "
        f"{during / before:.1f} times"
    )
    attacks.tried(f"{what} keeps another worker out", set(answers) != {200}, dict(answers))


def test_flood_of_one_worker_takes_only_its_own_share(strict: Door, quiet: Worker, loud: Worker) -> None:
    flood = Flood(lambda http: Worker(loud.who, loud.held, http).fetch(), lambda: strict.client(loud.held))
    _compare("flood of one worker", quiet, flood.running())
    attacks.note(f"  the flood got {dict(flood.answers)}")
    # Later, in the words that the stock worker and the Task SDK understand; never a 4xx, which they die of.
    assert set(flood.answers) <= {200, 503}
    assert flood.answers[503]
    assert flood.waits
    until("it is let in again", lambda: loud.fetch().status_code == 200, 30)


def test_flood_of_made_up_names_keeps_nobody_out(strict: Door, quiet: Worker, loud: Worker) -> None:
    """From inside the mutual TLS, with the certificate of a worker: strangers do not even get so far."""

    def send(http: httpx.Client) -> httpx.Response:
        made_up = Credential.new(f"nobody-{secrets.token_hex(6)}")
        return Worker(made_up, loud.held, http).fetch()

    flood = Flood(send, lambda: strict.client(loud.held))

    @contextlib.contextmanager
    def with_an_enrolment() -> Iterator[None]:
        with flood.running():
            text = strict.stack.identity(
                "enroll", "flood-new", "--queues", "x", "--credential"
            ).stdout.strip()
            _, held = strict.enrolled_certificate(Credential.parse(text))
            began = time.monotonic()
            until(
                "a new enrolment is usable",
                lambda: strict.ask(held, Credential.parse(text)).is_success,
                10,
                every=0.05,
            )
            attacks.note(
                f"  a new enrolment was usable {time.monotonic() - began:.2f} s after the flood met it"
            )
            yield

    _compare("flood of made-up names", quiet, with_an_enrolment())
    attacks.note(f"  the flood got {dict(flood.answers)}")
    assert set(flood.answers) <= {403, 503}
    assert flood.answers[503]


def test_flood_of_join_attempts_is_told_to_wait(strict: Door, quiet: Worker) -> None:
    def send(http: httpx.Client) -> httpx.Response:
        body = {"token": JoinToken.new(f"nobody-{secrets.token_hex(6)}").text}
        return http.post("/airbridge/v1/join", json=body, extensions=SNI)

    flood = Flood(send, lambda: strict.client(None))
    _compare("flood of join attempts", quiet, flood.running())
    assert set(flood.answers) <= {403, 429}
    assert flood.answers[429]
    # A few: guesses a minute, of 384 random bits.
    attacks.tried("brute force of join tokens", flood.answers[403] > 40, dict(flood.answers))


def test_flood_does_not_fill_the_log(strict: Door) -> None:
    """After the floods above: hundreds of refusals, and a few lines for each kind of them."""
    lines = [
        line for line in strict.stack.compose.logs("api-server").splitlines() if "airbridge.audit" in line
    ]
    metrics = httpx.get(f"http://127.0.0.1:{strict.stack.ui_port}/airbridge/v1/metrics", trust_env=False).text
    refused = sum(
        float(line.rpartition(" ")[2])
        for line in metrics.splitlines()
        if line.startswith("airbridge_edge_refusals_total")
    )
    limited = [line for line in metrics.splitlines() if 'reason="limit_' in line and "_total" in line]
    attacks.note(f"refusals {refused:.0f}, lines in the record {len(lines)}")
    assert {"limit_rate", "limit_failures", "limit_joins"} <= {line.split('"')[1] for line in limited}
    assert any("more of the same" in line for line in lines)
    assert len(lines) < refused / 2


def test_slow_clients_are_cut_off_and_hold_up_nobody(strict: Door, quiet: Worker) -> None:
    raw = RawDoor.of(strict.stack)
    slow: list[socket.socket] = []

    @contextlib.contextmanager
    def holding() -> Iterator[None]:
        for _ in range(100):
            slow.append(raw.connect())
            slow[-1].sendall(b"GET /airbridge/v1/version HTTP/1.1\r\nHost: x\r\nX-A: ")
        for _ in range(50):
            slow.append(raw.connect())
            head = f"POST /airbridge/v1/join HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 60000\r\n\r\n{{"
            slow[-1].sendall(head.encode())
        for _ in range(50):
            # Not even a TLS handshake.
            slow.append(socket.create_connection(("127.0.0.1", raw.port), timeout=10))
        yield

    try:
        _compare("200 slow clients", quiet, holding())
        for connection, what in ((slow[0], "half a header"), (slow[-1], "no handshake")):
            # A drop of data now and then does not keep it open: the header as a whole has its time.
            connection.settimeout(20)
            try:
                got = connection.recv(4096)
            except TimeoutError:
                got = b"still open"
            except OSError:
                got = b""
            attacks.tried(f"slow client with {what} stays", got == b"still open", got)
    finally:
        for connection in slow:
            connection.close()


def test_bodies_longer_than_their_call_needs_are_refused(strict: Door, loud: Worker) -> None:
    for call, size in (("worker/flood-loud", 70_000), ("logs/push/d/t/r/1/-1", 5_000_000)):
        headers = request_headers(loud.who.secret, loud.who.name, call)
        with strict.client(loud.held) as http:
            for kind, content in (("with its length", b"x" * size), ("in chunks", iter([b"x" * size]))):
                try:
                    status = http.post(
                        f"/edge_worker/v1/{call}", headers=headers, content=content, extensions=SNI
                    ).status_code
                except httpx.WriteError:
                    status = 413  # hung up in the middle of it
                # Refused for its length, or before anybody read it: the job is not this worker's.
                attacks.tried(f"body of {size} bytes {kind}: {call}", status < 400, status)
