"""Two workers, each with its own credential: what one of them holds opens nothing of the other's (A5, D5)."""

from __future__ import annotations

import base64
import json
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import jwt
import pytest
from _stack import DAG_BUCKET, ENVIRONMENT, LOG_BUCKET, until
from tests.unit.s3door.s3_requests import signed

from airbridge.credential import Credential, JoinToken
from airbridge.edge.token import request_headers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _stack import EdgeHost, Run, Stack

MINE, THEIRS = "id-mine", "id-theirs"
EDGE, OURS = "/edge_worker/v1/", "/airbridge/v1/"
MAY_END = "identity_may_end"
SECRET_VARIABLE = "identity_secret"
SECRET_CONNECTION = "identity_secret"

#: A task of each worker that runs until it is told to end, and many short ones of the first.
DAG = f"""
import time
from airflow.sdk import Variable, dag, task

@dag(schedule=None)
def identity_hold():
    def hold() -> str:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and not Variable.get("{MAY_END}", default=""):
            time.sleep(1)
        return "held"

    task(task_id="mine", queue="{MINE}")(hold)()
    task(task_id="theirs", queue="{THEIRS}")(hold)()

@dag(schedule=None)
def identity_many():
    @task(queue="{MINE}")
    def one(number: int) -> int:
        time.sleep(1)
        return number

    one.expand(number=list(range(12)))

@dag(schedule=None)
def identity_reads():
    @task(queue="{MINE}")
    def read() -> str:
        return Variable.get("{SECRET_VARIABLE}")

    read()

identity_hold(), identity_many(), identity_reads()
"""


@dataclass(frozen=True, slots=True)
class Door:
    """The edge endpoint, as somebody with an edge host's disk in hand calls it."""

    http: httpx.Client

    @classmethod
    def of(cls, stack: Stack) -> Door:
        """Trust the gateway's CA, which every edge host has."""
        context = ssl.create_default_context(cadata=stack.gateway_ca)
        return cls(
            httpx.Client(
                verify=context,
                trust_env=False,
                timeout=60,
                base_url=f"https://127.0.0.1:{stack.gateway_port}",
                headers={"Host": "host.docker.internal"},
            )
        )

    def send(self, method: str, path: str, headers: dict[str, str], body: Any = None) -> httpx.Response:
        """Send one request."""
        return self.http.request(
            method, path, headers=headers, json=body, extensions={"sni_hostname": "host.docker.internal"}
        )

    def call(
        self, who: Credential, method: str, call: str, body: Any = None, prefix: str = EDGE
    ) -> httpx.Response:
        """A call that the worker signs."""
        return self.send(method, prefix + quote(call), request_headers(who.secret, who.name, call), body)

    def execute(
        self, who: Credential, method: str, call: str, task_token: str, body: Any = None
    ) -> httpx.Response:
        """A task's call, through this worker's uplink."""
        headers = {"Authorization": f"Bearer {task_token}", "X-AirBridge-Token": who.text}
        return self.send(method, f"/execution/{call}", headers, body)

    def s3(self, who: Credential, method: str, path: str) -> httpx.Response:
        """A request to S3, signed by this worker."""
        sent = signed(
            method,
            f"/s3{quote(path, safe='/-_.~')}",
            name=who.name,
            secret=who.secret,
            host=self.http.headers["Host"],
        )
        return self.send(method, sent.target, dict(sent.headers))


@dataclass(frozen=True, slots=True)
class Pair:
    """Two workers that run a task each."""

    mine: Credential
    theirs: Credential
    host: EdgeHost
    run: Run
    task_ids: dict[str, str]
    task_tokens: dict[str, str]

    def job(self, task: str) -> str:
        """The part of a path that names a job."""
        return f"identity_hold/{task}/{self.run.run_id}/1/-1"


def _reason(answer: httpx.Response) -> str:
    return str(answer.json().get("reason", "")) if answer.status_code >= 400 else ""


@pytest.fixture(scope="module")
def door(stack: Stack) -> Door:
    return Door.of(stack)


# What every process in the api-server's container could ask the database; here: the workload of a job.
_JOBS = """
import json, os, psycopg2
uri = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("+psycopg2", "")
with psycopg2.connect(uri) as connection, connection.cursor() as cursor:
    cursor.execute("SELECT task_id, command FROM edge_job WHERE dag_id = 'identity_hold'")
    print(json.dumps({task: json.loads(command) for task, command in cursor.fetchall()}))
"""


@pytest.fixture(scope="module")
def pair(stack: Stack) -> Iterator[Pair]:
    stack.api.post("/variables", {"key": SECRET_VARIABLE, "value": "not for edge hosts"})
    stack.api.post("/connections", {"connection_id": SECRET_CONNECTION, "conn_type": "http"})
    key = stack.put_dag("identity", "identity.py", DAG)
    host = stack.edge(MINE, MINE, connections="", variables=MAY_END, wait=False, WORKER_CONCURRENCY="4")
    # The other one joins, as a remote host does.
    join = stack.identity("enroll", THEIRS, "--queues", THEIRS, "--variables", MAY_END).stdout.strip()
    other = stack.edge(THEIRS, THEIRS, given=join)
    host.compose.wait_until_healthy("edge-worker")
    run = stack.trigger("identity_hold")
    for task in ("mine", "theirs"):
        stack.wait_for_task(run, task, ["running"])
    done = stack.exec("api-server", "airbridge-env", "python", "-c", _JOBS)
    workloads = json.loads(done.stdout.splitlines()[-1])
    yield Pair(
        Credential.parse((host.folder / "token").read_text().strip()),
        Credential.parse(other.exec("edge-worker", "cat", "/var/lib/airbridge/credential").stdout.strip()),
        host,
        run,
        {task: workload["ti"]["id"] for task, workload in workloads.items()},
        {task: workload["token"] for task, workload in workloads.items()},
    )
    if stack.api.find(f"/variables/{MAY_END}") is None:
        stack.api.post("/variables", {"key": MAY_END, "value": "yes"})
    try:
        # Refused attacks have done no harm: both tasks end well.
        stack.wait_for_run(run)
    finally:
        host.remove()
        other.remove()
        stack.unpublish([key])


# --- each its own -----------------------------------------------------------------------------------


def test_worker_serves_itself_and_not_the_other_name(door: Door, pair: Pair) -> None:
    assert door.call(pair.mine, "GET", f"workers/{MINE}", prefix=OURS).status_code == 200
    calls = [
        ("GET", f"workers/{THEIRS}", None, OURS),
        ("GET", f"enrolment/{THEIRS}", None, OURS),
        ("POST", f"jobs/fetch/{THEIRS}", {"queues": [THEIRS], "free_concurrency": 1}, EDGE),
        ("PATCH", f"worker/{THEIRS}", {"state": "offline", "jobs_active": 0, "sysinfo": {}}, EDGE),
        ("POST", f"worker/{THEIRS}", {"state": "starting", "queues": [THEIRS], "sysinfo": {}}, EDGE),
        ("PATCH", f"worker/queues/{THEIRS}", {"new_queues": [THEIRS], "remove_queues": None}, EDGE),
    ]
    for method, call, body, prefix in calls:
        answer = door.call(pair.mine, method, call, body, prefix)
        assert (answer.status_code, _reason(answer)) == (403, "name_mismatch"), call
        # Under the other's name, with its own secret.
        answer = door.call(Credential(THEIRS, pair.mine.secret), method, call, body, prefix)
        assert (answer.status_code, _reason(answer)) == (403, "token_invalid"), call


@pytest.mark.parametrize("queues", [[THEIRS], [MINE, THEIRS], [], None, ["default"]])
def test_worker_gets_no_task_of_another_queue(door: Door, pair: Pair, queues: list[str] | None) -> None:
    body = {"queues": queues, "free_concurrency": 1}
    answer = door.call(pair.mine, "POST", f"jobs/fetch/{MINE}", body)
    assert (answer.status_code, _reason(answer)) == (403, "queue_not_allowed")


def test_worker_says_nothing_about_the_others_job(door: Door, pair: Pair) -> None:
    chunk = {"log_chunk_time": "2026-01-01T00:00:00Z", "log_chunk_data": "forged"}
    calls = [
        ("PATCH", f"jobs/state/{pair.job('theirs')}/success", None),
        ("PATCH", f"jobs/state/{pair.job('theirs')}/failed", None),
        ("POST", f"logs/push/{pair.job('theirs')}", chunk),
        ("GET", f"logs/logfile_path/{pair.job('theirs')}", None),
    ]
    for method, call, body in calls:
        answer = door.call(pair.mine, method, call, body)
        assert (answer.status_code, _reason(answer)) == (403, "job_not_yours"), call
    assert door.call(pair.mine, "GET", f"logs/logfile_path/{pair.job('mine')}").status_code == 200


def test_worker_touches_no_log_of_the_other_in_s3(door: Door, pair: Pair) -> None:
    folder = f"/{LOG_BUCKET}/{ENVIRONMENT}/task-logs/dag_id=identity_hold/run_id={pair.run.run_id}"
    for method in ("GET", "HEAD", "PUT"):
        path = f"{folder}/task_id=theirs/attempt=1.log"
        assert door.s3(pair.mine, method, path).status_code == 403
        assert (
            door.s3(pair.mine, method, f"/{LOG_BUCKET}/{ENVIRONMENT}/diag/{THEIRS}/probe").status_code == 403
        )
    # Its own is there to be asked for, and not written yet.
    assert door.s3(pair.mine, "GET", f"{folder}/task_id=mine/attempt=1.log").status_code == 404
    assert door.s3(pair.mine, "PUT", f"/{DAG_BUCKET}/{ENVIRONMENT}/identity/dags/evil.py").status_code == 403


def test_token_of_the_others_task_is_worth_nothing_here(door: Door, pair: Pair) -> None:
    """As if a task's token had been seen in a log: it works from the host that runs the task only."""
    stolen, task = pair.task_tokens["theirs"], pair.task_ids["theirs"]
    calls = [
        ("PUT", f"task-instances/{task}/heartbeat", {"hostname": THEIRS, "pid": 1}),
        ("PATCH", f"task-instances/{task}/state", {"state": "failed", "end_date": "2026-01-01T00:00:00Z"}),
        ("GET", f"variables/{MAY_END}", None),
        ("GET", f"xcoms/identity_hold/{quote(pair.run.run_id)}/mine/return_value", None),
    ]
    for method, call, body in calls:
        answer = door.execute(pair.mine, method, call, stolen, body)
        assert (answer.status_code, _reason(answer)) == (403, "task_not_yours"), call
    assert door.execute(pair.theirs, "GET", f"variables/{MAY_END}", stolen).status_code == 404


def test_own_task_acts_for_no_other_task(door: Door, pair: Pair) -> None:
    own, other = pair.task_tokens["mine"], pair.task_ids["theirs"]
    answer = door.execute(
        pair.mine, "PUT", f"task-instances/{other}/heartbeat", own, {"hostname": "x", "pid": 1}
    )
    assert (answer.status_code, _reason(answer)) == (403, "task_not_yours")


def test_task_token_forged_with_the_workers_secret_is_refused_by_airflow_itself(
    door: Door, pair: Pair
) -> None:
    now = int(time.time())
    claims = {"sub": pair.task_ids["mine"], "aud": "urn:airflow.apache.org:task", "iat": now, "exp": now + 60}
    forged = jwt.encode({**claims, "nbf": now, "iss": MINE}, pair.mine.secret, algorithm="HS512")
    assert door.execute(pair.mine, "GET", f"variables/{MAY_END}", forged).status_code == 403


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (f"variables/{SECRET_VARIABLE}", "variable_not_enrolled"),
        (f"connections/{SECRET_CONNECTION}", "connection_not_enrolled"),
        ("connections/airbridge_s3", "connection_not_enrolled"),
        ("xcoms/identity_hold/other_run/mine/return_value", "xcom_not_yours"),
        ("xcoms/edge_sample_dag/any/start/return_value", "xcom_not_yours"),
    ],
)
def test_task_reads_only_what_its_worker_is_enrolled_for(
    door: Door, pair: Pair, call: str, reason: str
) -> None:
    """Airflow 3.0.4 itself would answer each of these to any task."""
    answer = door.execute(pair.mine, "GET", call, pair.task_tokens["mine"])
    assert (answer.status_code, _reason(answer)) == (403, reason)
    assert "not for edge hosts" not in answer.text


def test_task_whose_worker_may_not_read_a_variable_fails_and_says_so(stack: Stack, pair: Pair) -> None:
    run = stack.trigger("identity_reads")
    stack.wait_for_run(run, "failed")
    assert "not for edge hosts" not in stack.log_from_s3(run, "read")
    # In force within a second, without a restart of anything.
    stack.identity("update", MINE, "--variables", f"{MAY_END},{SECRET_VARIABLE}")
    try:
        time.sleep(1)
        stack.wait_for_run(stack.trigger("identity_reads"))
    finally:
        stack.identity("update", MINE, "--variables", MAY_END)


# --- forgeries --------------------------------------------------------------------------------------


def _b64(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_forged_tokens_are_refused_alike(door: Door, pair: Pair) -> None:
    call = f"workers/{MINE}"
    now = int(time.time())
    claims = {"iss": MINE, "aud": "api", "iat": now, "nbf": now, "exp": now + 30, "method": call}
    secret = pair.mine.secret

    def signed(key: str = secret, headers: dict[str, Any] | None = None, **changes: Any) -> str:
        return jwt.encode({**claims, **changes}, key, algorithm="HS512", headers=headers)

    good = signed()
    forgeries = {
        "none": f"{_b64({'alg': 'none', 'typ': 'JWT'})}.{_b64(claims)}.",
        "None": f"{_b64({'alg': 'None', 'typ': 'JWT'})}.{_b64(claims)}.",
        "HS256": jwt.encode(claims, secret, algorithm="HS256"),
        "HS384": jwt.encode(claims, secret, algorithm="HS384"),
        "kid": signed(headers={"kid": "../../dev/null"}),
        "no secret": signed("\0" * 64),
        "the other worker's secret": signed(pair.theirs.secret),
        "the other worker's name": signed(iss=THEIRS),
        "nobody's name": signed(iss="nobody"),
        "another call": signed(method="version"),
        "another audience": signed(aud="urn:airflow.apache.org:task"),
        "long-lived": signed(exp=now + 3600),
        "cut off": good.rpartition(".")[0] + ".",
        "a task's": pair.task_tokens["mine"],
        "the credential itself": pair.mine.text,
    }
    for kind, forged in forgeries.items():
        answer = door.send("GET", OURS + call, {"Authorization": forged})
        assert (answer.status_code, _reason(answer)) == (403, "token_invalid"), kind
        assert secret not in answer.text
    assert door.send("GET", OURS + call, {"Authorization": good}).status_code == 200


@pytest.mark.parametrize("shift", [-3600, -90, 90, 3600])
def test_token_of_another_time_is_refused(door: Door, pair: Pair, shift: int) -> None:
    call = f"workers/{MINE}"
    now = int(time.time()) + shift
    claims = {"iss": MINE, "aud": "api", "iat": now, "nbf": now, "exp": now + 30, "method": call}
    forged = jwt.encode(claims, pair.mine.secret, algorithm="HS512")
    answer = door.send("GET", OURS + call, {"Authorization": forged})
    assert (answer.status_code, _reason(answer)) == (403, "token_expired")


def test_what_a_worker_holds_opens_neither_ui_nor_rest_api(stack: Stack, pair: Pair) -> None:
    held = [pair.mine.text, pair.mine.secret, pair.task_tokens["mine"]]
    now = int(time.time())
    claims = {"sub": "1", "iat": now, "nbf": now, "exp": now + 300, "aud": "apache-airflow"}
    held.append(jwt.encode(claims, pair.mine.secret, algorithm="HS512"))
    for value in held:
        for header in (value, f"Bearer {value}"):
            answer = httpx.get(
                f"{stack.api.base}/api/v2/variables", headers={"Authorization": header}, trust_env=False
            )
            assert answer.status_code in (401, 403)


def test_refusals_are_on_the_record(stack: Stack, door: Door, pair: Pair) -> None:
    door.call(pair.mine, "GET", f"workers/{THEIRS}", prefix=OURS)

    def recorded() -> bool:
        lines = stack.compose.logs("api-server", tail=400).splitlines()
        return any("name_mismatch" in line and MINE in line for line in lines)

    until("the refusal is in the api-server's log", recorded, 10)
    metrics = httpx.get(f"{stack.api.base}/airbridge/v1/metrics", trust_env=False).text
    assert 'airbridge_edge_refusals_total{reason="name_mismatch"}' in metrics


# --- joining ----------------------------------------------------------------------------------------


def test_join_token_that_was_used_is_worthless(stack: Stack, door: Door, pair: Pair) -> None:
    used = stack.edges[THEIRS].folder / "token"
    answer = door.send("POST", f"{OURS}join", {}, {"token": used.read_text().strip()})
    assert (answer.status_code, _reason(answer)) == (403, "join_refused")
    assert "credential" not in answer.json()
    # The one who joined is not touched by the attempt.
    assert door.call(pair.theirs, "GET", f"workers/{THEIRS}", prefix=OURS).status_code == 200
    logs = stack.compose.logs("api-server", tail=200)
    assert "join_token_replayed" in logs
    invented = JoinToken.new(THEIRS)
    answer = door.send("POST", f"{OURS}join", {}, {"token": invented.text})
    assert (answer.status_code, _reason(answer)) == (403, "join_refused")


# --- ending and changing ----------------------------------------------------------------------------


def test_revoked_worker_is_out_within_a_second(stack: Stack, door: Door) -> None:
    held = Credential.parse(stack.ensure("id-revoked", "none"))
    reads = f"/{DAG_BUCKET}/{ENVIRONMENT}/edge_sample/dags/edge_sample_dag.py"

    def is_in() -> set[int]:
        return {
            door.call(held, "GET", "version", prefix=OURS).status_code,
            door.s3(held, "GET", reads).status_code,
        }

    assert is_in() == {200}
    stack.identity("revoke", "id-revoked")
    revoked = time.monotonic()
    while is_in() != {403}:
        assert time.monotonic() - revoked < 1
    assert _reason(door.call(held, "GET", "version", prefix=OURS)) == "worker_revoked"


def test_rotation_loses_no_task(stack: Stack, pair: Pair) -> None:
    run = stack.trigger("identity_many")

    def ended() -> int:
        return sum(task.state == "success" for task in stack.tasks(run))

    until("some tasks have ended", lambda: ended() >= 2)
    # A stop waits for every task, and this one would go on for minutes.
    stack.api.post("/variables", {"key": MAY_END, "value": "yes"})
    new = stack.identity("rotate", MINE, "--overlap", "10m").stdout.strip()
    token = pair.host.folder / "token"
    token.chmod(0o600)
    token.write_text(f"{new}\n")
    token.chmod(0o400)
    # As docs/operations.md says: the worker ends its tasks first, while the uplink still serves it.
    pair.host.compose("stop", "edge-worker")
    said = pair.host.compose.logs("edge-worker")
    assert "state refused" not in said, said  # with the old secret, and the new one in its place already
    pair.host.compose("up", "--detach", "--no-build", "--force-recreate", "--wait")
    finished = stack.wait_for_run(run)
    assert [task.try_number for task in finished.of("one")] == [1] * 12
    # The old secret is good to the end of its overlap, and the new one is in use.
    assert Credential.parse(new).secret != pair.mine.secret
    held = pair.host.exec("uplink", "cat", "/run/secrets/control_plane_token").stdout.strip()
    assert held == new
