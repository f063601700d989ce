"""Who may ask S3 for what: the whole table, for workers and publishers. The rest is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.controlplane.edge_requests import NEIGHBOUR, WORKER, Ledger, worker
from tests.unit.s3door.s3_requests import Sent

from airbridge.identity.jobs import Job, JobKey
from airbridge.identity.publishers import Publisher
from airbridge.s3door._deletions import Deletions
from airbridge.s3door._errors import S3Error
from airbridge.s3door._limits import Limits, Meter
from airbridge.s3door._operation import Operation
from airbridge.s3door._rules import Layout, Rules
from airbridge.s3door._upstream import passed_on

if TYPE_CHECKING:
    from airbridge.identity.model import Worker

RUN = "manual__2026-01-01T00:00:00+00:00"
LAYOUT = Layout("airbridge-dags", "airbridge-logs", "dev")
TEAM = Publisher("team-a", ("orders", "reporting"), datetime.now(UTC), secrets=("s" * 64,))
OPERATOR = Publisher("operator", ("*",), datetime.now(UTC), secrets=("s" * 64,))


@pytest.fixture
def ledger() -> Ledger:
    """north-1 runs "extract" and the third of "each", and ran "first"; south-2 runs "load"."""
    made = Ledger()
    for key, name in (
        (JobKey("etl", "extract", RUN, -1, 1), WORKER),
        (JobKey("etl", "each", RUN, 3, 2), WORKER),
        (JobKey("etl", "load", RUN, -1, 1), NEIGHBOUR),
        (JobKey("etl", "first", RUN, -1, 1), NEIGHBOUR),
    ):
        made.jobs[key] = Job(name, "running")
    made.handed.add((JobKey("etl", "first", RUN, -1, 1), WORKER))
    return made


def _asked(
    principal: Worker | Publisher, method: str, target: str, ledger: Ledger | None = None, **headers: str
) -> str:
    """Why it is refused; empty when it is not."""
    sent = Sent(method, target, tuple((name.replace("_", "-"), value) for name, value in headers.items()))
    rules = Rules(LAYOUT, ledger or Ledger())
    try:
        rules.check(principal, Operation.of(sent.read()))
    except S3Error as error:
        return error.reason
    return ""


def _all(principal: Worker | Publisher, methods: str, target: str, ledger: Ledger) -> set[str]:
    return {_asked(principal, method, target, ledger) for method in methods.split()}


LOGS = "/airbridge-logs/dev/task-logs"
ENCODED = "dag_id%3Detl/run_id%3Dmanual__2026-01-01T00%3A00%3A00%2B00%3A00/task_id%3Dextract/attempt%3D1.log"
MY_LOG = f"{LOGS}/dag_id=etl/run_id={RUN}/task_id=extract/attempt=1.log"


# --- workers --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("methods", "target"),
    [
        ("GET HEAD", "/airbridge-dags/dev/sample/dags/sample.py"),
        ("GET HEAD", "/airbridge-dags/dev/sample/metadata.json?versionId=1"),
        ("GET HEAD", "/airbridge-dags/.airbridge/dev/trees/x.json"),
        ("GET", "/airbridge-dags?list-type=2&prefix=dev%2F"),
        ("GET", "/airbridge-dags/?list-type=2&prefix=dev/sample/"),
        ("HEAD", "/airbridge-dags"),
        ("HEAD", "/airbridge-logs"),
        ("GET HEAD PUT", MY_LOG),
        ("GET HEAD PUT", f"{LOGS}/{ENCODED}?x-id=PutObject"),
        ("PUT", f"{LOGS}/dag_id=etl/run_id={RUN}/task_id=each/map_index=3/attempt=2.log"),
        ("GET PUT", f"{LOGS}/dag_id=etl/run_id={RUN}/task_id=first/attempt=1.log"),
        ("POST", f"{MY_LOG}?uploads"),
        ("PUT", f"{MY_LOG}?partNumber=1&uploadId=x"),
        ("POST GET DELETE", f"{MY_LOG}?uploadId=x"),
        ("GET HEAD PUT", f"/airbridge-logs/dev/diag/{WORKER}/probe"),
        ("GET", f"/airbridge-logs?prefix=dev/diag/{WORKER}/"),
    ],
)
def test_worker_reads_dags_and_writes_its_own_logs(ledger: Ledger, methods: str, target: str) -> None:
    assert _all(worker(), methods, target, ledger) == {""}


@pytest.mark.parametrize(
    ("methods", "target"),
    [
        ("PUT DELETE", "/airbridge-dags/dev/sample/dags/sample.py"),
        ("GET", "/airbridge-dags/prod/sample/dags/sample.py"),
        ("GET", "/airbridge-dags/.airbridge/prod/trees/x.json"),
        ("GET", "/airbridge-dags/devious/x"),
        ("GET", "/airbridge-dags"),
        ("GET", "/airbridge-dags?prefix=prod/"),
        ("GET", "/airbridge-dags?prefix="),
        ("GET", "/airbridge-dags?versions&prefix=dev/"),
        ("POST", "/airbridge-dags?delete"),
        ("GET PUT", "/other-bucket/dev/x"),
        ("HEAD", "/other-bucket"),
        ("GET PUT", f"/airbridge-logs/dev/diag/{NEIGHBOUR}/probe"),
        ("GET PUT", f"/airbridge-logs/dev/diag/{WORKER}"),
        ("GET", "/airbridge-logs?prefix=dev/task-logs/"),
        ("GET", f"/airbridge-logs?prefix=dev/diag/{WORKER}"),
        ("DELETE", MY_LOG),
        ("GET", f"{MY_LOG}?versionId=x"),
        ("GET PUT", f"{MY_LOG}.bak"),
        ("GET PUT", f"/airbridge-logs/prod/task-logs/dag_id=etl/run_id={RUN}/task_id=extract/attempt=1.log"),
        ("GET PUT", f"/airbridge-logs/dag_id=etl/run_id={RUN}/task_id=extract/attempt=1.log"),
        ("GET", "/"),
    ],
)
def test_anything_else_is_refused_to_a_worker(ledger: Ledger, methods: str, target: str) -> None:
    assert _all(worker(), methods, target, ledger) == {"s3_not_allowed"}


@pytest.mark.parametrize(
    "key", ["task_id=load/attempt=1", "task_id=extract/attempt=2", "task_id=each/attempt=2"]
)
def test_log_of_another_job_is_refused_to_read_and_to_write(ledger: Ledger, key: str) -> None:
    target = f"{LOGS}/dag_id=etl/run_id={RUN}/{key}.log"
    assert _all(worker(), "GET HEAD PUT", target, ledger) == {"job_not_yours"}


@given(st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE"]), st.text(max_size=60))
def test_no_key_below_another_workers_diag_folder_is_reached(method: str, tail: str) -> None:
    key = quote(tail.encode("utf-8", "replace"), safe="/?&=")
    assert _asked(worker(), method, f"/airbridge-logs/dev/diag/{NEIGHBOUR}/{key}") != ""


def test_worker_copies_nothing(ledger: Ledger) -> None:
    source = "airbridge-logs/dev/task-logs/dag_id=etl/run_id=x/task_id=load/attempt=1.log"
    assert _asked(worker(), "PUT", MY_LOG, ledger, x_amz_copy_source=source) == "s3_not_allowed"


# --- publishers -------------------------------------------------------------------------------------------
OWN = "/airbridge-dags/dev/orders"


@pytest.mark.parametrize(
    ("methods", "target"),
    [
        ("GET HEAD PUT DELETE", f"{OWN}/dags/a.py"),
        ("GET HEAD PUT", "/airbridge-dags/dev/reporting/metadata.json"),
        ("GET HEAD", f"{OWN}/metadata.json?versionId=v1"),
        ("GET", "/airbridge-dags?versions&prefix=dev%2Forders%2Fmetadata.json&max-keys=1000&key-marker=x"),
        ("GET", "/airbridge-dags?versions&prefix=dev/orders/"),
        ("GET", "/airbridge-dags?list-type=2&prefix=dev%2F&encoding-type=url"),
        ("GET HEAD", "/airbridge-dags/dev/foreign/dags/b.py"),
        ("GET HEAD", "/airbridge-dags/.airbridge/dev/trees/x.json.gz"),
        ("GET", "/airbridge-dags?list-type=2&prefix=.airbridge/dev/trees/"),
        ("HEAD", "/airbridge-dags"),
        ("POST", f"{OWN}/dags/big.py?uploads"),
        ("PUT", f"{OWN}/dags/big.py?partNumber=2&uploadId=u"),
        ("POST DELETE GET", f"{OWN}/dags/big.py?uploadId=u"),
        ("POST", "/airbridge-dags?delete"),
    ],
)
def test_publisher_reads_the_environment_and_writes_its_packages(methods: str, target: str) -> None:
    assert _all(TEAM, methods, target, Ledger()) == {""}


@pytest.mark.parametrize(
    ("methods", "target"),
    [
        ("PUT DELETE", "/airbridge-dags/dev/foreign/dags/a.py"),
        ("PUT DELETE", "/airbridge-dags/dev/orders2/dags/a.py"),
        ("PUT DELETE", "/airbridge-dags/dev/order/dags/a.py"),
        ("PUT DELETE", "/airbridge-dags/dev/ORDERS/dags/a.py"),
        ("PUT DELETE", "/airbridge-dags/dev/orders"),
        ("PUT DELETE", "/airbridge-dags/dev/x"),
        ("PUT DELETE", "/airbridge-dags/orders/dags/a.py"),
        ("PUT GET DELETE", "/airbridge-dags/prod/orders/dags/a.py"),
        ("PUT DELETE", "/airbridge-dags/.airbridge/dev/trees/x.json.gz"),
        ("PUT DELETE", "/airbridge-dags/.airbridge/dev/orders/x"),
        ("GET", "/airbridge-dags/dev/foreign/metadata.json?versionId=v1"),
        ("GET", "/airbridge-dags?versions&prefix=dev/"),
        ("GET", "/airbridge-dags?versions&prefix=dev/orders"),
        ("GET", "/airbridge-dags?versions&prefix=dev/foreign/"),
        ("GET", "/airbridge-dags?versions"),
        ("GET", "/airbridge-dags?list-type=2"),
        ("GET", "/airbridge-dags?prefix=prod/"),
        ("GET HEAD PUT DELETE", MY_LOG),
        ("GET PUT", "/airbridge-logs/dev/orders/x"),
        ("HEAD GET", "/airbridge-logs?prefix=dev/"),
        ("POST", "/airbridge-logs?delete"),
        ("GET PUT", "/other/dev/orders/a.py"),
        ("GET", "/"),
    ],
)
def test_anything_else_is_refused_to_a_publisher(methods: str, target: str) -> None:
    refused = _all(TEAM, methods, target, Ledger())
    assert refused <= {"s3_not_allowed", "operation_not_served"}


def test_operator_writes_any_package_and_nothing_beside() -> None:
    assert _all(OPERATOR, "GET PUT DELETE", "/airbridge-dags/dev/whatever/dags/a.py", Ledger()) == {""}
    for target in (
        "/airbridge-dags/dev//a.py",
        "/airbridge-dags/dev/x",
        "/airbridge-dags/prod/x/a.py",
        MY_LOG,
    ):
        assert _all(OPERATOR, "PUT DELETE", target, Ledger()) <= {"s3_not_allowed", "key_malformed"}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("airbridge-dags/dev/orders/dags/b.py", ""),
        ("/airbridge-dags/dev/orders/dags/b.py", ""),
        ("airbridge-dags%2Fdev%2Forders%2Fdags%2Fb.py?versionId=v1", ""),
        ("airbridge-dags/dev/foreign/dags/b.py", ""),
        ("airbridge-dags/dev/foreign/dags/b.py?versionId=v1", "s3_not_allowed"),
        ("airbridge-logs/dev/task-logs/x", "s3_not_allowed"),
        ("airbridge-dags/prod/orders/dags/b.py", "s3_not_allowed"),
        ("airbridge-dags/dev/../prod/b.py", "key_malformed"),
        ("airbridge-dags/dev/%2e%2e/prod/b.py", "key_malformed"),
        ("airbridge-dags", "copy_source_malformed"),
        ("", "copy_source_malformed"),
        ("airbridge-dags/dev/a?acl", "copy_source_malformed"),
        ("arn:aws:s3:us-east-1:1:accesspoint/x/object/y", "s3_not_allowed"),
    ],
)
def test_publisher_copies_what_it_may_read(source: str, reason: str) -> None:
    assert _asked(TEAM, "PUT", f"{OWN}/dags/a.py", x_amz_copy_source=source) == reason


def test_copy_into_a_part_of_an_upload_is_not_served() -> None:
    source = "airbridge-dags/dev/orders/dags/b.py"
    target = f"{OWN}/dags/a.py?partNumber=1&uploadId=u"
    assert _asked(TEAM, "PUT", target, x_amz_copy_source=source) == "operation_not_served"


@pytest.mark.parametrize(
    "key",
    ["orders/../foreign/a.py", "orders/./a.py", "orders//a.py", "orders/", "orders/%2e%2e/x", "orders/a%00",
     "orders/a%0a", "%2e%2e/prod/x", "orders/" + "x" * 1100],
)  # fmt: skip
def test_path_tricks_name_no_object(key: str) -> None:
    assert _asked(OPERATOR, "PUT", f"/airbridge-dags/dev/{key}") == "key_malformed"


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", f"{OWN}/a.py?acl"),
        ("PUT", f"{OWN}/a.py?acl"),
        ("PUT", f"{OWN}/a.py?tagging"),
        ("PUT", f"{OWN}/a.py?retention"),
        ("POST", f"{OWN}/a.py?select&select-type=2"),
        ("POST", f"{OWN}/a.py?restore"),
        ("POST", f"{OWN}/a.py"),
        ("DELETE", f"{OWN}/a.py?versionId=v1"),
        ("DELETE", f"{OWN}/a.py?tagging"),
        ("PUT", f"{OWN}/a.py?versionId=v1"),
        ("GET", f"{OWN}/a.py?response-content-type=text/html"),
        ("PATCH", f"{OWN}/a.py"),
        ("OPTIONS", f"{OWN}/a.py"),
        ("PUT", "/airbridge-dags"),
        ("DELETE", "/airbridge-dags"),
        ("GET", "/airbridge-dags?policy"),
        ("PUT", "/airbridge-dags?policy"),
        ("PUT", "/airbridge-dags?versioning"),
        ("GET", "/airbridge-dags?acl&prefix=dev/"),
        ("GET", "/airbridge-dags?uploads&prefix=dev/"),
        ("POST", "/airbridge-dags"),
        ("POST", "/airbridge-dags?delete&prefix=dev/"),
    ],
)
def test_other_operations_of_s3_are_not_served(method: str, target: str) -> None:
    assert _asked(OPERATOR, method, target) == "operation_not_served"


# --- deletions of many -----------------------------------------------------------------------------------
def _deletion(*keys: str, more: str = "") -> bytes:
    objects = "".join(f"<Object><Key>{key}</Key>{more}</Object>" for key in keys)
    return f'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{objects}</Delete>'.encode()


def _deleted(body: bytes, publisher: Publisher = TEAM) -> str:
    rules = Rules(LAYOUT, Ledger())
    try:
        for key in Deletions.parse(body).keys:
            rules.check_key(publisher, key)
    except S3Error as error:
        return error.reason
    return ""


def test_keys_in_the_body_of_a_deletion_are_each_checked() -> None:
    assert _deleted(_deletion("dev/orders/dags/a.py", "dev/reporting/dags/b.py")) == ""
    assert _deleted(_deletion("dev/orders/dags/a.py", "dev/foreign/dags/b.py")) == "s3_not_allowed"
    assert _deleted(_deletion("dev/orders/../foreign/a.py")) == "key_malformed"
    assert _deleted(_deletion("dev/orders/&#46;&#46;/foreign/a.py")) == "key_malformed"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "xml_malformed"),
        (b"<Delete/>", "xml_malformed"),
        (b"<Delete><Object/></Delete>", "xml_malformed"),
        (b"<Erase><Object><Key>dev/orders/a</Key></Object></Erase>", "xml_malformed"),
        (_deletion("dev/orders/a", more="<Key>dev/foreign/a</Key>"), "xml_malformed"),
        (_deletion("dev/orders/a", more="<ETag>x</ETag>"), "xml_malformed"),
        (_deletion("dev/orders/a", more="<VersionId>v1</VersionId>"), "version_deletion"),
        (_deletion("dev/orders/a", more="<VersionId></VersionId>"), ""),
        (b'<!DOCTYPE d [<!ENTITY e "x">]>' + _deletion("dev/orders/&e;"), "xml_malformed"),
        (_deletion(*[f"dev/orders/{number}" for number in range(1001)]), "xml_malformed"),
        (_deletion("dev/orders/a") + b"<Delete/>", "xml_malformed"),
    ],
)
def test_odd_deletion_is_refused(body: bytes, reason: str) -> None:
    assert _deleted(body) == reason


def test_s3_gets_the_deletion_as_it_was_understood() -> None:
    body = _deletion("dev/orders/a&amp;b.py", "dev/orders/c.py").replace(
        b"</Delete>", b"<Quiet>true</Quiet></Delete>"
    )
    first = Deletions.parse(body)
    assert (
        Deletions.parse(first.document) == first == Deletions(("dev/orders/a&b.py", "dev/orders/c.py"), True)
    )


# --- headers -----------------------------------------------------------------------------------------------
def test_headers_that_are_not_known_are_refused_and_signatures_stay_here() -> None:
    headers = {
        "authorization": "x",
        "host": "h",
        "x-amz-date": "d",
        "x-amz-meta-note": "n",
        "if-none-match": "*",
        "x-airbridge-signed-host": "uplink:9000",
        "content-encoding": "aws-chunked,gzip",
        "x-amz-acl": "private",
        "cookie": "c",
    }
    request = Sent("PUT", "/b/k", tuple(headers.items())).read()
    assert passed_on(request) == {"x-amz-meta-note": "n", "if-none-match": "*", "content-encoding": "gzip"}
    for name, value in (
        ("x-amz-acl", "public-read"),
        ("x-amz-grant-read", "everyone"),
        ("x-amz-website-redirect-location", "http://evil"),
        ("x-amz-object-lock-mode", "COMPLIANCE"),
        ("x-amz-server-side-encryption-customer-key", "k"),
        ("x-amz-tagging", "a=b"),
    ):
        with pytest.raises(S3Error, match="not served"):
            passed_on(Sent("PUT", "/b/k", ((name, value),)).read())


# --- limits ----------------------------------------------------------------------------------------------
def test_one_principals_burden_is_not_the_others() -> None:
    now = [100.0]
    meter = Meter(Limits(rate=5, in_flight=3), clock=lambda: now[0])
    for _ in range(10):  # a burst of two seconds' worth
        with meter.admitted("busy"):
            pass
    with pytest.raises(S3Error, match="reduce your request rate") as raised, meter.admitted("busy"):
        pass
    assert (raised.value.status, raised.value.code, raised.value.reason) == (503, "SlowDown", "rate_limited")
    with meter.admitted("other"):
        pass
    now[0] += 0.2
    with meter.admitted("busy"):
        pass


def test_requests_at_once_are_limited() -> None:
    meter = Meter(Limits(rate=100, in_flight=2), clock=lambda: 1.0)
    with meter.admitted("busy"), meter.admitted("busy"):
        with pytest.raises(S3Error) as raised, meter.admitted("busy"):
            pass
        with meter.admitted("other"):
            pass
    assert raised.value.reason == "in_flight_limited"
    with meter.admitted("busy"):
        pass
