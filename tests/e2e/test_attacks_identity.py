"""Somebody took an edge host over, and tries all that it holds on everything: nothing but its own opens.

One edge host that runs a task is searched; another worker is a credential and what it was handed, no host.
Each attack is counted (``_attacks``), and one that gets through fails its test.
"""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import jwt
import pytest
from _attacker import Loot, b64, claims_of_worker, forged, keys_of, loot
from _attacks import attacks
from _edge_door import EDGE, OURS, EdgeDoor, reason
from _stack import ENVIRONMENT, LOG_BUCKET, until
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from airbridge.credential import Credential, JoinToken, new_proof

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _stack import EdgeHost, Run, Stack

MINE, THEIRS = "att-mine", "att-theirs"
MAY_END = "attacks_may_end"
SECRET = "attacks_secret"
WAITING = 6

DAG = f"""
import time
from airflow.sdk import Variable, dag, task

@dag(schedule=None)
def attacks_hold():
    def hold() -> None:
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline and not Variable.get("{MAY_END}", default=""):
            time.sleep(1)

    def end() -> str:
        return "ended"

    task(task_id="ended", queue="{MINE}")(end)() >> task(task_id="mine", queue="{MINE}")(hold)()
    task(task_id="theirs", queue="{THEIRS}")(end)()

@dag(schedule=None)
def attacks_waiting():
    @task(queue="{THEIRS}")
    def one(number: int) -> int:
        return number

    one.expand(number=list(range({WAITING})))

attacks_hold(), attacks_waiting()
"""

_WORKLOADS = """
import json, os, psycopg2
uri = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("+psycopg2", "")
with psycopg2.connect(uri) as connection, connection.cursor() as cursor:
    cursor.execute("SELECT task_id, command FROM edge_job WHERE dag_id = 'attacks_hold'")
    print(json.dumps({task: json.loads(command) for task, command in cursor.fetchall()}))
"""
# What the whole world may know of the key that signs UI and task tokens.
_PUBLIC_KEY = """
from cryptography.hazmat.primitives import serialization as s
key = s.load_pem_private_key(open("/secrets/signing/jwt-private-key", "rb").read(), None).public_key()
print(key.public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo).decode())
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """The attacker, the victim, and what was taken."""

    stack: Stack
    door: EdgeDoor
    ui: httpx.Client
    """The door of people, which an attacker may reach where somebody published it."""
    host: EdgeHost
    mine: Credential
    theirs: Credential
    run: Run
    tasks: dict[str, str]
    """Ids of task instances."""
    tokens: dict[str, str]
    """Tokens of tasks: "mine" runs here, "theirs" runs elsewhere, "ended" has ended here."""
    loot: Loot
    public_key: str

    def job(self, task: str) -> str:
        """The part of a path that names a job."""
        return f"attacks_hold/{task}/{self.run.run_id}/1/-1"

    def edge(self, token: str, call: str = f"workers/{MINE}") -> httpx.Response:
        """A call with this for a token."""
        answer = self.door.send("GET", OURS + call, {"Authorization": token})
        assert not answer.is_server_error, "the edge door breaks instead of refusing"
        return answer

    def people(self, path: str, **headers: str) -> httpx.Response:
        """A request at the door of people."""
        return self.ui.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.fixture(scope="module")
def scene(stack: Stack) -> Iterator[Scene]:
    key = stack.put_dag("attacks", "attacks.py", DAG)
    stack.api.post("/variables", {"key": SECRET, "value": "not for edge hosts"})
    stack.api.post("/connections", {"connection_id": SECRET, "conn_type": "http"})
    host = stack.edge(MINE, MINE, connections="", variables=MAY_END, WORKER_CONCURRENCY="2")
    door = EdgeDoor.of(stack)
    enrol = ("--queues", THEIRS, "--concurrency", "1", "--credential")
    theirs = Credential.parse(stack.identity("enroll", THEIRS, *enrol).stdout.strip())
    sysinfo = {"airflow_version": "3.0.4", "edge_provider_version": "5.1.0", "concurrency": 1}
    body = {"state": "starting", "queues": [THEIRS], "jobs_active": 0, "sysinfo": sysinfo}
    assert door.call(theirs, "POST", f"worker/{THEIRS}", body).status_code == 200
    run = stack.trigger("attacks_hold")
    fetched = until(
        "the victim is handed its task",
        lambda: door.call(
            theirs, "POST", f"jobs/fetch/{THEIRS}", {"queues": [THEIRS], "free_concurrency": 1}
        ).json(),
    )
    assert fetched["task_id"] == "theirs"
    state = f"jobs/state/attacks_hold/theirs/{run.run_id}/1/-1/running"
    assert door.call(theirs, "PATCH", state).status_code == 200
    stack.wait_for_task(run, "mine", ["running"])
    done = stack.exec("api-server", "airbridge-env", "python", "-c", _WORKLOADS)
    workloads = json.loads(done.stdout.splitlines()[-1])
    public = stack.exec("api-server", "airbridge-env", "python", "-c", _PUBLIC_KEY).stdout.strip()
    mine = Credential.parse((host.folder / "token").read_text().strip())
    found = loot(host)
    # The search is worth something: it found what is there.
    assert {mine.secret, mine.text} <= found.strings
    yield Scene(
        stack,
        door,
        httpx.Client(base_url=stack.api.base, trust_env=False, timeout=60),
        host,
        mine,
        theirs,
        run,
        {task: workload["ti"]["id"] for task, workload in workloads.items()},
        {task: workload["token"] for task, workload in workloads.items()},
        found,
        public,
    )
    # The task that was under attack ends well: nothing of all this has touched it.
    stack.api.post("/variables", {"key": MAY_END, "value": "yes"})
    until("the attacked task ends", lambda: _state(stack, run, "mine") in ("success", "failed"))
    ended = _state(stack, run, "mine")
    host.remove()
    stack.identity("revoke", THEIRS)
    stack.unpublish([key])
    assert ended == "success"


def _state(stack: Stack, run: Run, task: str) -> str | None:
    return next(row.state for row in stack.tasks(run) if row.task_id == task)


def _task_claims(task_instance: str, **changes: Any) -> dict[str, Any]:
    now = int(time.time())
    made = {"sub": task_instance, "aud": "urn:airflow.apache.org:task", "iat": now, "nbf": now}
    return {**made, "exp": now + 300, "jti": "1", **changes}


def _user_claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    made = {"sub": "1", "aud": "apache-airflow", "iat": now, "nbf": now, "exp": now + 300}
    return {**made, "jti": "1", "role": "admin", "scope": ["admin"], **changes}


def _tried(name: str, answer: httpx.Response) -> None:
    """Count an attack that any error stops: Airflow's own doors answer 500 to a key id that they do not know.

    Whoever sees the secret has won, whatever the status says.
    """
    through = not answer.is_error or "not for edge hosts" in answer.text
    attacks.tried(name, through, f"HTTP {answer.status_code} {answer.text[:300]}")


# --- forging with what is there ---------------------------------------------------------------------

_ALGORITHMS = ("HS256", "HS384", "HS512")
_WORKERS = 4


def test_no_string_of_the_host_is_a_key(scene: Scene) -> None:
    """Each string found signs tokens of an admin, of a task, and of the other worker."""
    rest, call = "/api/v2/variables", f"workers/{THEIRS}"

    def attack(text: str) -> list[tuple[str, httpx.Response]]:
        tries = []
        for key in keys_of(text):
            for algorithm in _ALGORITHMS:
                user = forged(_user_claims(), key, algorithm)
                tries.append((f"UI token, {algorithm}", scene.people(rest, Authorization=f"Bearer {user}")))
                task = forged(_task_claims(scene.tasks["theirs"]), key, algorithm)
                answer = scene.door.execute(scene.mine, "GET", f"variables/{SECRET}", task)
                tries.append((f"task token, {algorithm}", answer))
                edge = forged(claims_of_worker(THEIRS, call), key, algorithm)
                tries.append((f"edge token, {algorithm}", scene.edge(edge, call)))
        return tries

    strings = sorted(scene.loot.strings - {scene.theirs.secret}, key=len)[:_MOST]
    with ThreadPoolExecutor(_WORKERS) as pool:
        for tries in pool.map(attack, [scene.mine.secret, scene.mine.text, *strings]):
            for name, answer in tries:
                _tried(f"string of the host as key: {name}", answer)


# Of the strings that a search finds; the worker's own secrets and tokens always are among those tried.
_MOST = 20


def test_no_string_of_the_host_is_a_password_or_token(scene: Scene) -> None:
    held = [scene.mine.text, scene.mine.secret, *scene.loot.tokens, *scene.tokens.values()]
    held += sorted(scene.loot.strings, key=len, reverse=True)[:_MOST]

    def attack(text: str) -> list[tuple[str, httpx.Response]]:
        if not text.isprintable() or not text.isascii():
            return []
        basic = httpx.BasicAuth("admin", text)
        return [
            ("bearer at the REST API", scene.people("/api/v2/variables", Authorization=f"Bearer {text}")),
            ("plain at the REST API", scene.people("/api/v2/variables", Authorization=text)),
            ("basic at the REST API", scene.ui.get("/api/v2/variables", auth=basic)),
            ("cookie at the REST API", scene.people("/api/v2/variables", Cookie=f"_token={text}")),
            ("session at the UI", scene.people("/ui/config", Cookie=f"session={text}; _token={text}")),
            (
                "bearer at the Execution API",
                scene.people(f"/execution/variables/{SECRET}", Authorization=f"Bearer {text}"),
            ),
            ("bearer at the edge API", scene.edge(f"Bearer {text}", f"workers/{THEIRS}")),
            ("plain at the edge API", scene.edge(text, f"workers/{THEIRS}")),
        ]

    with ThreadPoolExecutor(_WORKERS) as pool:
        for tries in pool.map(attack, dict.fromkeys(held)):
            for name, answer in tries:
                _tried(f"string of the host: {name}", answer)
    for text in (scene.mine.text, scene.mine.secret, scene.tokens["mine"]):
        answer = scene.ui.post("/auth/token", json={"username": "admin", "password": text[:128]})
        _tried("string of the host as the admin's password", answer)


def _public_forms(pem: str) -> dict[str, bytes]:
    key = serialization.load_pem_public_key(pem.encode())
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(raw)}
    return {
        "PEM": pem.encode(),
        "PEM with a line end": f"{pem}\n".encode(),
        "raw": raw,
        "DER": der,
        "base64url": b64(raw).encode(),
        "JWK": json.dumps(jwk).encode(),
        "JWKS": json.dumps({"keys": [jwk]}).encode(),
    }


@pytest.mark.parametrize("algorithm", _ALGORITHMS)
def test_public_key_is_no_secret(scene: Scene, algorithm: str) -> None:
    for form, key in _public_forms(scene.public_key).items():
        user = forged(_user_claims(), key, algorithm)
        _tried(f"public key as {form}, UI", scene.people("/api/v2/variables", Authorization=f"Bearer {user}"))
        task = forged(_task_claims(scene.tasks["mine"]), key, algorithm)
        answer = scene.door.execute(scene.mine, "GET", f"variables/{SECRET}", task)
        _tried(f"public key as {form}, task", answer)
        edge = forged(claims_of_worker(THEIRS, f"workers/{THEIRS}"), key, algorithm)
        _tried(f"public key as {form}, edge", scene.edge(edge, f"workers/{THEIRS}"))


def test_own_asymmetric_keys_are_trusted_nowhere(scene: Scene) -> None:
    ed25519 = Ed25519PrivateKey.generate()
    keys: dict[str, Any] = {"EdDSA": ed25519, "RS256": rsa.generate_private_key(65537, 2048)}
    raw = ed25519.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(raw), "kid": "mine"}
    address = "http://localhost:9/keys.json"
    headers: dict[str, dict[str, Any]] = {
        "plain": {},
        "embedded jwk": {"jwk": jwk, "kid": "mine"},
        "jku": {"jku": address, "kid": "mine"},
        "x5u": {"x5u": address},
        "x5c": {"x5c": [b64(raw)]},
    }
    for algorithm, key in keys.items():
        for kind, header in headers.items():
            user = jwt.encode(_user_claims(), key, algorithm, headers=header)
            answer = scene.people("/api/v2/variables", Authorization=f"Bearer {user}")
            _tried(f"own {algorithm} key, {kind}, UI", answer)
            task = jwt.encode(_task_claims(scene.tasks["mine"]), key, algorithm, headers=header)
            answer = scene.door.execute(scene.mine, "GET", f"variables/{SECRET}", task)
            _tried(f"own {algorithm} key, {kind}, task", answer)
            edge = jwt.encode(claims_of_worker(THEIRS, f"workers/{THEIRS}"), key, algorithm, headers=header)
            _tried(f"own {algorithm} key, {kind}, edge", scene.edge(edge, f"workers/{THEIRS}"))


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", " none", "", None, 0, ["none"]])
def test_unsigned_token_is_none(scene: Scene, algorithm: Any) -> None:
    head = b64({"alg": algorithm, "typ": "JWT"})
    for end in (".", ".AA", ""):
        user = f"{head}.{b64(_user_claims())}{end}"
        _tried(f"alg {algorithm!r}, UI", scene.people("/api/v2/variables", Authorization=f"Bearer {user}"))
        task = f"{head}.{b64(_task_claims(scene.tasks['mine']))}{end}"
        _tried(f"alg {algorithm!r}, task", scene.door.execute(scene.mine, "GET", f"variables/{SECRET}", task))
        for name in (MINE, THEIRS):
            call = f"workers/{name}"
            _tried(
                f"alg {algorithm!r}, edge",
                scene.edge(f"{head}.{b64(claims_of_worker(name, call))}{end}", call),
            )


_HEADERS: dict[str, dict[str, Any]] = {
    "kid path": {"kid": "../../../../dev/null"},
    "kid file": {"kid": "/proc/sys/kernel/hostname"},
    "kid SQL": {"kid": "x' UNION SELECT 'secret' --"},
    "kid empty": {"kid": ""},
    "kid NUL": {"kid": "a\0b"},
    "kid of another worker": {"kid": THEIRS},
    "kid no string": {"kid": {"a": 1}},
    "crit": {"crit": ["exp"], "exp": 1},
    "b64": {"crit": ["b64"], "b64": False},
    "zip": {"zip": "DEF"},
    "nested": {"cty": "JWT"},
    "another type": {"typ": "at+jwt", "kid": "none"},
    "alg twice": {"ALG": "none"},
}


@pytest.mark.parametrize("header", _HEADERS.values(), ids=_HEADERS)
def test_header_tricks_open_nothing(scene: Scene, header: dict[str, Any]) -> None:
    for key in (b"", b"\0", scene.mine.secret.encode()):
        user = forged(_user_claims(), key, **header)
        _tried("header trick, UI", scene.people("/api/v2/variables", Authorization=f"Bearer {user}"))
        task = forged(_task_claims(scene.tasks["mine"]), key, **header)
        _tried("header trick, task", scene.door.execute(scene.mine, "GET", f"variables/{SECRET}", task))
        call = f"workers/{THEIRS}"
        _tried("header trick, edge", scene.edge(forged(claims_of_worker(THEIRS, call), key, **header), call))
    # With its own secret a worker is itself, but no token of the stock worker has such a header.
    own = forged(claims_of_worker(MINE, f"workers/{MINE}"), scene.mine.secret.encode(), **header)
    _tried("header trick, own edge token", scene.edge(own))


_NOW_PLUS: dict[str, dict[str, int | float | str | list[int] | None]] = {
    "expired": {"exp": -31, "iat": -61, "nbf": -61},
    "long expired": {"exp": -3600, "iat": -3630},
    "captured a day ago": {"exp": -86_400, "iat": -86_430},
    "not yet": {"nbf": 3600},
    "from the future": {"iat": 3600, "nbf": 3600, "exp": 3630},
    "lives an hour": {"exp": 3600},
    "lives for ever": {"exp": 10**12},
    "lives a minute too long": {"exp": 61},
    "born late": {"iat": 60, "exp": 90},
}
_CLAIMS: dict[str, dict[str, Any]] = {
    "no exp": {"exp": None},
    "no iat": {"iat": None},
    "no method": {"method": None},
    "no aud": {"aud": None},
    "no iss": {"iss": None},
    "exp text": {"exp": "never"},
    "exp a list": {"exp": [9_999_999_999]},
    "exp huge": {"exp": 1e308},
    "exp negative": {"exp": -1},
    "exp false": {"exp": False},
    "iat text": {"iat": "now"},
    "nbf text": {"nbf": "tomorrow"},
    "method another": {"method": f"workers/{THEIRS}"},
    "method empty": {"method": ""},
    "method a list": {"method": [f"workers/{MINE}"]},
    "method of the server's path": {"method": f"/airbridge/v1/workers/{MINE}"},
    "method any": {"method": "*"},
    "iss another": {"iss": THEIRS},
    "iss nobody": {"iss": "nobody"},
    "iss a list": {"iss": [MINE]},
    "iss in capitals": {"iss": MINE.upper()},
    "iss with a space": {"iss": f"{MINE} "},
    "iss with NUL": {"iss": f"{MINE}\0"},
    "iss an admin": {"iss": "airflow"},
    "aud another": {"aud": "apache-airflow"},
    "aud of tasks": {"aud": "urn:airflow.apache.org:task"},
    "aud a list without it": {"aud": ["apache-airflow", "urn:airflow.apache.org:task"]},
    "aud empty": {"aud": []},
    "aud a mapping": {"aud": {"api": 1}},
}


@pytest.mark.parametrize("shifts", _NOW_PLUS.values(), ids=_NOW_PLUS)
def test_token_of_another_time_is_refused(scene: Scene, shifts: dict[str, int]) -> None:
    now = int(time.time())
    changes = {name: now + shift for name, shift in shifts.items()}
    token = forged(claims_of_worker(MINE, f"workers/{MINE}", **changes), scene.mine.secret.encode())
    _tried("another time, edge", scene.edge(token))


@pytest.mark.parametrize("changes", _CLAIMS.values(), ids=_CLAIMS)
def test_token_with_other_claims_is_refused(scene: Scene, changes: dict[str, Any]) -> None:
    token = forged(claims_of_worker(MINE, f"workers/{MINE}", **changes), scene.mine.secret.encode())
    _tried("other claims, edge", scene.edge(token))


def test_workers_token_is_worth_nothing_at_the_other_doors(scene: Scene) -> None:
    """Whatever audience and subject its own secret signs."""
    secret = scene.mine.secret.encode()
    for aud in ("apache-airflow", ["api", "apache-airflow"], "api", None):
        for sub in ("1", "admin", MINE, None):
            user = forged(_user_claims(aud=aud, sub=sub, iss=MINE), secret)
            answer = scene.people("/api/v2/variables", Authorization=f"Bearer {user}")
            _tried("own secret, UI", answer)
            _tried("own secret, cookie", scene.people("/api/v2/variables", Cookie=f"_token={user}"))
    for task in scene.tasks.values():
        for aud in ("urn:airflow.apache.org:task", ["urn:airflow.apache.org:task", "api"], "api"):
            token = forged(_task_claims(task, aud=aud, iss=MINE), secret)
            answer = scene.door.execute(scene.mine, "GET", f"variables/{SECRET}", token)
            _tried("own secret, task", answer)
            answer = scene.people(f"/execution/variables/{SECRET}", Authorization=f"Bearer {token}")
            _tried("own secret, task, door of people", answer)


def test_captured_token_is_good_for_its_own_call_only(scene: Scene) -> None:
    token = forged(claims_of_worker(MINE, f"jobs/fetch/{MINE}"), scene.mine.secret.encode())
    for method, path in (
        ("GET", f"{OURS}workers/{MINE}"),
        ("GET", f"{OURS}enrolment/{MINE}"),
        ("GET", f"{OURS}version"),
        ("POST", f"{EDGE}worker/{MINE}"),
        ("PATCH", f"{EDGE}worker/{MINE}"),
        ("POST", f"{EDGE}jobs/fetch/{THEIRS}"),
        ("PATCH", f"{EDGE}jobs/state/{quote(scene.job('mine'))}/failed"),
        ("GET", f"{EDGE}logs/logfile_path/{quote(scene.job('mine'))}"),
    ):
        body = {"queues": [MINE], "free_concurrency": 1, "state": "idle", "jobs_active": 0, "sysinfo": {}}
        answer = scene.door.send(method, path, {"Authorization": token}, body)
        _tried(f"captured token, {method} {path}", answer)


# --- what belongs to others -------------------------------------------------------------------------


def test_other_workers_calls_are_not_mine(scene: Scene) -> None:
    theirs, job = THEIRS, scene.job("theirs")
    registration = {"state": "starting", "jobs_active": 0, "queues": [theirs], "sysinfo": {}}
    chunk = {"log_chunk_time": "2026-01-01T00:00:00Z", "log_chunk_data": "forged"}
    fetch = {"queues": [theirs], "free_concurrency": 1}
    calls: list[tuple[str, str, Any, str]] = [
        ("GET", f"workers/{theirs}", None, OURS),
        ("GET", f"enrolment/{theirs}", None, OURS),
        ("POST", f"worker/{theirs}", registration, EDGE),
        ("PATCH", f"worker/{theirs}", {**registration, "state": "offline"}, EDGE),
        ("PATCH", f"worker/queues/{theirs}", {"new_queues": [MINE], "remove_queues": [theirs]}, EDGE),
        ("POST", f"jobs/fetch/{theirs}", fetch, EDGE),
        ("POST", f"jobs/fetch/{MINE}", fetch, EDGE),
        ("POST", f"jobs/fetch/{MINE}", {"queues": [MINE, theirs], "free_concurrency": 1}, EDGE),
        ("POST", f"jobs/fetch/{MINE}", {"queues": [], "free_concurrency": 1}, EDGE),
        ("POST", f"jobs/fetch/{MINE}", {"queues": None, "free_concurrency": 1}, EDGE),
        ("POST", f"jobs/fetch/{MINE}", {"queues": [MINE], "free_concurrency": 99}, EDGE),
        ("PATCH", f"worker/queues/{MINE}", {"new_queues": [theirs], "remove_queues": None}, EDGE),
        *(("PATCH", f"jobs/state/{job}/{state}", None, EDGE) for state in ("success", "failed", "running")),
        *(
            ("PATCH", f"jobs/state/{scene.job('mine')}/{state}", None, EDGE)
            for state in ("queued", "removed")
        ),
        ("POST", f"logs/push/{job}", chunk, EDGE),
        ("GET", f"logs/logfile_path/{job}", None, EDGE),
    ]
    for method, call, body, prefix in calls:
        _tried(f"not mine: {method} {call}", scene.door.call(scene.mine, method, call, body, prefix))
        impostor = Credential(theirs, scene.mine.secret)
        answer = scene.door.call(impostor, method, call, body, prefix)
        _tried(f"not mine, under its name: {method} {call}", answer)


def test_other_tasks_and_their_data_are_not_mine(scene: Scene) -> None:
    run, mine, theirs = quote(scene.run.run_id), scene.tasks["mine"], scene.tasks["theirs"]
    beat = {"hostname": MINE, "pid": 1}
    failed = {"state": "failed", "end_date": "2026-01-01T00:00:00Z"}
    started = {
        "state": "running",
        "hostname": "x",
        "unixname": "x",
        "pid": 1,
        "start_date": failed["end_date"],
    }
    touch: list[tuple[str, str, Any]] = [
        ("PUT", f"task-instances/{theirs}/heartbeat", beat),
        ("PATCH", f"task-instances/{theirs}/state", failed),
        ("PATCH", f"task-instances/{theirs}/run", started),
        ("GET", f"task-instances/{theirs}/previous-successful-dagrun", None),
        ("PATCH", f"task-instances/{theirs}/skip-downstream", {"tasks": ["mine"]}),
    ]
    data: list[tuple[str, str, Any]] = [
        ("GET", f"variables/{SECRET}", None),
        ("PUT", f"variables/{SECRET}", {"value": "forged"}),
        ("DELETE", f"variables/{SECRET}", None),
        ("GET", f"connections/{SECRET}", None),
        ("GET", "connections/airbridge_s3", None),
        ("GET", "xcoms/attacks_hold/another_run/ended/return_value", None),
        ("GET", f"xcoms/edge_sample_dag/{run}/start/return_value", None),
        ("POST", f"xcoms/attacks_hold/{run}/ended/return_value", "forged"),
        ("DELETE", f"xcoms/attacks_hold/{run}/ended/return_value", None),
    ]
    for method, call, body in (*touch, *data):
        own = scene.door.execute(scene.mine, method, call, scene.tokens["mine"], body)
        _tried(f"own task token: {method} {call}", own)
    # Tokens that were seen somewhere: of a task elsewhere, and of one that has ended here.
    others = [(m, c.replace(theirs, mine), b) for m, c, b in touch]
    for owner in ("theirs", "ended"):
        token = scene.tokens[owner]
        for method, call, body in (*touch, *others, *data, ("GET", f"variables/{MAY_END}", None)):
            answer = scene.door.execute(scene.mine, method, call, token, body)
            _tried(f"token of the task '{owner}': {method} {call}", answer)


def test_stolen_task_token_opens_nothing_at_the_door_of_people(scene: Scene) -> None:
    for owner, token in scene.tokens.items():
        for call in (f"variables/{SECRET}", f"connections/{SECRET}", f"variables/{MAY_END}"):
            answer = scene.people(f"/execution/{call}", Authorization=f"Bearer {token}")
            _tried(f"token of the task '{owner}' at the door of people: {call}", answer)


# --- more than its share ----------------------------------------------------------------------------


def test_worker_gets_no_more_tasks_than_it_is_enrolled_for(scene: Scene) -> None:
    """The victim's credential, enrolled for one task, which it has: many fetches at once get none."""
    stack = scene.stack
    run = stack.trigger("attacks_waiting")
    until(
        "the tasks wait for a worker",
        lambda: sum(task.state == "queued" for task in stack.tasks(run)) == WAITING,
    )
    fetch = {"queues": [THEIRS], "free_concurrency": 1}
    # A word about its task, which otherwise counts as dropped after a minute.
    state = f"jobs/state/{scene.job('theirs')}/running"
    assert scene.door.call(scene.theirs, "PATCH", state).status_code == 200

    def ask(_: int) -> Any:
        return scene.door.call(scene.theirs, "POST", f"jobs/fetch/{THEIRS}", fetch).json()

    with ThreadPoolExecutor(8) as pool:
        for handed in pool.map(ask, range(24)):
            attacks.tried("more tasks than the enrolment allows", handed is not None, handed)
    # With room for two more, two of many at once get one.
    stack.identity("update", THEIRS, "--concurrency", "3")
    time.sleep(1)
    with ThreadPoolExecutor(8) as pool:
        handed = [job for job in pool.map(ask, range(24)) if job]
    attacks.tried("two fetches for one place", len(handed) > 2, len(handed))
    assert len(handed) == 2


# --- joining ----------------------------------------------------------------------------------------

_GUESSES = 200


def _refusals(scene: Scene, kind: str) -> float:
    text = scene.people("/airbridge/v1/metrics").text
    found = re.search(rf'airbridge_edge_refusals_total{{reason="{kind}"}} ([0-9.e+]+)', text)
    return float(found[1]) if found else 0


def test_guessed_join_tokens_are_refused_and_counted(scene: Scene) -> None:
    before = _refusals(scene, "join_token_unknown")
    names = (MINE, THEIRS, "nobody", "admin")

    def guess(number: int) -> httpx.Response:
        token = JoinToken.new(names[number % len(names)]).text
        return scene.door.send("POST", f"{OURS}join", body={"token": token, "proof": new_proof()})

    with ThreadPoolExecutor(_WORKERS) as pool:
        answers = list(pool.map(guess, range(_GUESSES)))
    for answer in answers:
        _tried("guessed join token", answer)
        assert "credential" not in answer.text
    # What a limit of the rate has let through was looked at, and counted.
    asked = sum(reason(answer) == "join_refused" for answer in answers)
    assert asked > 0
    assert _refusals(scene, "join_token_unknown") - before == asked


_MALFORMED = ["", "join_", "join_x", "join_att-mine.", "join_att-mine.short", "x" * 70_000, None, 7, [], {}]


@pytest.mark.parametrize("token", _MALFORMED, ids=lambda value: str(value)[:16] or "empty")
def test_malformed_join_token_is_refused(scene: Scene, token: Any) -> None:
    for proof in ("", "short", None, ["x"], "x" * 4096):
        answer = scene.door.send("POST", f"{OURS}join", body={"token": token, "proof": proof})
        _tried("malformed join token", answer)


def test_used_join_token_is_worthless_without_the_proof_and_its_replay_is_reported(scene: Scene) -> None:
    stack, name = scene.stack, "att-joins"
    token = stack.identity("enroll", name, "--queues", "none").stdout.strip()
    proof = new_proof()

    def join(with_proof: str) -> httpx.Response:
        return scene.door.send("POST", f"{OURS}join", body={"token": token, "proof": with_proof})

    first = join(proof)
    assert first.status_code == 200
    # The answer was lost: the same host asks again, and gets the same.
    assert join(proof).json() == first.json()
    before = _refusals(scene, "join_token_replayed")
    replays = ["", *(new_proof() for _ in range(5)), proof.swapcase(), proof[:-1]]
    for other in replays:
        _tried("join token replayed", join(other))
    # A proof of the wrong length is none, so that there is nothing to compare.
    assert _refusals(scene, "join_token_replayed") - before == len(replays) - 1
    joined = Credential.parse(first.json()["credential"])
    assert scene.door.call(joined, "GET", f"workers/{name}", prefix=OURS).status_code == 404  # not registered
    stack.identity("revoke", name)
    _tried("join token of a worker that was revoked", join(proof))


# --- the wrong door ---------------------------------------------------------------------------------

_PEOPLE_PATHS = [
    "/",
    "/login/",
    "/auth/token",
    "/auth/login",
    "/api/v2/dags",
    "/api/v2/variables",
    "/api/v2/monitor/health",
    "/ui/config",
    "/docs",
    "/openapi.json",
    "/static/pin_32.png",
    "/execution/docs",
    "/execution/openapi.json",
    "/execution/health",
    "/edge_worker/v1/docs",
    "/edge_worker/v1/health",
    "/edge_worker/ui/worker",
    "/airbridge/v1/workers",
    "/airbridge/v1/metrics",
    "/airbridge/v1/s3-auth",
    "/metrics",
    "/.well-known/jwks.json",
]


@pytest.mark.parametrize("path", _PEOPLE_PATHS)
def test_people_are_not_served_at_the_edge_door(scene: Scene, path: str) -> None:
    """Not even an admin, with a good token."""
    admin = str(scene.stack.api.http.headers["Authorization"])
    secret = {"X-AirBridge-Token": scene.mine.text, "Authorization": admin}
    for method in ("GET", "HEAD", "POST"):
        for headers in ({}, {"Authorization": admin}, secret):
            _tried(f"edge door: {method} {path}", scene.door.send(method, path, headers))


def test_workers_are_not_served_at_the_door_of_people_without_a_proof(scene: Scene) -> None:
    admin = str(scene.stack.api.http.headers["Authorization"])
    calls = [
        ("POST", f"{EDGE}jobs/fetch/{MINE}"),
        ("PATCH", f"{EDGE}worker/{MINE}"),
        ("POST", f"{EDGE}worker/{MINE}"),
        ("GET", f"{OURS}version"),
        ("GET", f"{OURS}workers/{MINE}"),
        ("GET", "/airbridge/v1/s3-auth"),
        ("GET", f"/execution/variables/{SECRET}"),
    ]
    body = {"queues": [MINE], "free_concurrency": 1, "state": "idle", "jobs_active": 0, "sysinfo": {}}
    for method, path in calls:
        for headers in (
            {},
            {"Authorization": admin},
            {"X-AirBridge-Token": scene.mine.text},
            {"X-AirBridge-Token": scene.mine.text, "Authorization": admin},
            {"X-AirBridge-Door": "edge", "Authorization": admin},
            {"X-AirBridge-Worker": MINE},
        ):
            answer = scene.ui.request(method, path, headers=headers, json=body)
            _tried(f"door of people: {method} {path}", answer)


def test_log_of_the_other_worker_is_not_mine(scene: Scene) -> None:
    folder = f"/{LOG_BUCKET}/{ENVIRONMENT}/task-logs/dag_id=attacks_hold/run_id={quote(scene.run.run_id)}"
    for method in ("GET", "HEAD", "PUT"):
        answer = scene.door.send(
            method, f"/s3{folder}/task_id=theirs/attempt=1.log", {"X-AirBridge-Token": scene.mine.text}
        )
        _tried(f"log of the other worker: {method}", answer)
