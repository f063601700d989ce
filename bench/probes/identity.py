"""Runs in the api-server's container: what identity costs a request, how soon a revocation is in force.

Two ways to the same edge API, asked in turn over kept-alive connections:

* ``door``: gateway (TLS), then the middleware with a worker's credential, then the edge API;
* ``bypass``: the edge API alone, in a second process of the same image without the middleware, which believes
  the secret that the middleware signs with.

Prints one JSON document of samples in milliseconds. Arguments: requests of each kind, revocations, and the
gateway's CA as PEM.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

from airbridge.credential import Credential
from airbridge.edge.token import request_headers
from airbridge.identity.database import Database
from airbridge.identity.model import Allowance
from airbridge.identity.store import Cipher, WorkerStore

_PORT = 8099
_NAME = "bench-identity"
_QUEUE = "bench-identity"
_MS = 1000
_PROBE_S = 0.02
_READY_S = 120
_FINAL = (400, 401, 403, 422)  # waiting changes none of these
_EDGE = "/edge_worker/v1/"

# The api-server's own application, of which our plugin is no part: that was looked at before the process said
# what it is.
_BYPASS = f"""
import sys
import airbridge.controlplane.plugin
sys.argv = ["airflow", "api-server"]
import uvicorn
from airflow.api_fastapi.app import create_app
uvicorn.run(create_app(), host="127.0.0.1", port={_PORT}, log_level="info", timeout_keep_alive=60)
"""


def _store() -> WorkerStore:
    uri = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    return WorkerStore(Database.at(uri), Cipher(os.environ["AIRFLOW__CORE__FERNET_KEY"]))


def _enrolled(store: WorkerStore, name: str) -> Credential:
    if store.find(name) is not None:
        store.revoke(name)
    credential = Credential.new(name)
    store.enroll(name, Allowance((_QUEUE,), 4), credential=credential)
    return credential


class _Way:
    """A kept-alive connection, and who signs."""

    def __init__(self, connection: http.client.HTTPConnection, credential: Credential) -> None:
        self.connection = connection
        self.credential = credential

    def ask(self, verb: str, call: str, body: object, prefix: str = _EDGE) -> tuple[float, int]:
        """Return milliseconds and status."""
        headers = request_headers(self.credential.secret, self.credential.name, call)
        headers["Content-Type"] = "application/json"
        text = json.dumps(body)
        began = time.perf_counter()
        self.connection.request(verb, prefix + call, text, headers)
        answer = self.connection.getresponse()
        answer.read()
        return (time.perf_counter() - began) * _MS, answer.status


def _door(ca: str, credential: Credential) -> _Way:
    context = ssl.create_default_context(cadata=ca)
    return _Way(http.client.HTTPSConnection("gateway", 8443, context=context, timeout=30), credential)


def _until_ready(way: _Way, verb: str, call: str, body: object) -> None:
    deadline = time.monotonic() + _READY_S
    while True:
        try:
            status = way.ask(verb, call, body)[1]
        except OSError:
            status = 0
            way.connection.close()
        if status == http.client.OK:
            return
        if time.monotonic() > deadline or status in _FINAL:
            sys.exit(f"{verb} {call}: HTTP {status}")
        time.sleep(1)


def _cost(store: WorkerStore, ca: str, requests: int) -> dict[str, dict[str, list[float]]]:
    versions = {
        "airflow_version": version("apache-airflow"),
        "edge_provider_version": version("apache-airflow-providers-edge3"),
    }
    sysinfo = {"concurrency": 4, "free_concurrency": 4, **versions}
    state = {"state": "idle", "jobs_active": 0, "queues": [_QUEUE], "sysinfo": sysinfo}
    kinds = {
        "fetch": ("POST", f"jobs/fetch/{_NAME}", {"queues": [_QUEUE], "free_concurrency": 4}),
        "heartbeat": ("PATCH", f"worker/{_NAME}", state),
    }
    internal = Path("/secrets/signing/internal-edge-secret").read_text().strip()
    environment = {**os.environ, "AIRFLOW__API_AUTH__JWT_SECRET": internal}
    server = subprocess.Popen(
        [sys.executable, "-c", _BYPASS],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        door = _door(ca, _enrolled(store, _NAME))
        # Airflow's validator asks for no issuer here.
        bypass = _Way(http.client.HTTPConnection("127.0.0.1", _PORT, timeout=30), Credential(_NAME, internal))
        _until_ready(door, "POST", f"worker/{_NAME}", {**state, "state": "starting"})
        samples: dict[str, dict[str, list[float]]] = {}
        for kind, call in kinds.items():
            _until_ready(bypass, *call)
            samples[kind] = {"door": [], "bypass": []}
            for number in range(requests):
                # In turn, and each first as often as the other: what disturbs one disturbs both.
                order = (("door", door), ("bypass", bypass))
                for name, way in order if number % 2 else reversed(order):
                    took, status = way.ask(*call)
                    if status != http.client.OK:
                        sys.exit(f"{kind} through {name}: HTTP {status}")
                    samples[kind][name].append(round(took, 3))
        # So that the name can be registered again.
        _until_ready(door, "PATCH", f"worker/{_NAME}", {**state, "state": "offline"})
    finally:
        server.terminate()
        server.wait()
    return samples


def _revocations(store: WorkerStore, ca: str, count: int) -> list[float]:
    """Milliseconds from before the revocation until the first request that is refused."""
    taken = []
    for number in range(count):
        name = f"{_NAME}-{number}"
        way = _door(ca, _enrolled(store, name))
        _until_ready_version(way)
        began = time.perf_counter()
        store.revoke(name)
        while way.ask("GET", "version", None, "/airbridge/v1/")[1] == http.client.OK:
            time.sleep(_PROBE_S)
        taken.append(round((time.perf_counter() - began) * _MS, 1))
        way.connection.close()
    return taken


def _until_ready_version(way: _Way) -> None:
    """Its requests pass, the last of them just now: its enrolment is remembered as freshly as can be."""
    for _ in range(3):
        if way.ask("GET", "version", None, "/airbridge/v1/")[1] != http.client.OK:
            sys.exit("a worker that is enrolled is refused")
        time.sleep(_PROBE_S)


def _main() -> None:
    requests, revocations, ca = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    store = _store()
    cost = _cost(store, ca, requests) if requests else {}
    document = {"cost_ms": cost, "revocation_ms": _revocations(store, ca, revocations)}
    if requests:
        store.revoke(_NAME)
    print(json.dumps(document))


_main()
