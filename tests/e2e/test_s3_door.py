"""S3 through the gateway, on a stack whose LocalStack nobody reaches: what passes, and what attacks get."""

from __future__ import annotations

import base64
import hashlib
import json
import time
import zlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from _attacks import attacks
from _s3_door import Principal, airbridge_command, enroll_publisher, principal
from _stack import EXAMPLES, PROJECT, EdgeHost, Stack, docker, until
from botocore.exceptions import ClientError

from airbridge.s3door._canonical import EMPTY_SHA256, Scope, signature, signing_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.unit.s3door.s3_requests import Sent

DAGS = "airbridge-dags"
LOGS = "airbridge-logs"
OWN = f"/{DAGS}/dev/orders/dags"
FOREIGN = f"/{DAGS}/dev/reporting/dags"
CHUNKED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"


@dataclass(frozen=True, slots=True)
class Cast:
    """Who takes part."""

    stack: Stack
    team: Principal
    operator: Principal
    worker: Principal
    neighbour: Principal
    host: EdgeHost


@pytest.fixture(scope="module")
def cast(_nothing_left_behind: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cast]:
    """A stack as users have it, with an edge host that joined, and a log and a package of somebody else."""
    stack = Stack.start(tmp_path_factory.mktemp("door"), f"{PROJECT}-door", raw_s3=False)
    try:
        team = enroll_publisher(stack, "team-a", "orders,mine")
        operator = enroll_publisher(stack, "operator", "*")
        credentials = [
            airbridge_command(stack, "edge", "enroll", name, "--queues", "x", "--credential")
            for name in ("north-1", "south-2")
        ]
        airbridge_command(stack, "edge", "enroll", "p", "--queues", "default")
        join = airbridge_command(stack, "edge", "join-token", "p")
        host = stack.edge("p", "default", given=join)
        s3 = operator.boto3()
        for file in (EXAMPLES / "edge_sample" / "dags").glob("*.py"):
            s3.put_object(Bucket=DAGS, Key=f"dev/edge_sample/dags/{file.name}", Body=file.read_bytes())
        s3.put_object(Bucket=DAGS, Key="dev/reporting/dags/theirs.txt", Body=b"theirs")
        cast = Cast(stack, team, operator, *(principal(stack, c) for c in credentials), host)
        cast.neighbour.boto3().put_object(Bucket=LOGS, Key="dev/diag/south-2/probe", Body=b"theirs")
        team.boto3().put_object(Bucket=DAGS, Key="dev/orders/dags/mine.txt", Body=b"mine")
        yield cast
    finally:
        stack.remove()


# --- the port -----------------------------------------------------------------------------------------
def test_no_port_of_s3_is_published(cast: Cast) -> None:
    doors = {
        (container["Name"].removeprefix(f"/{cast.stack.compose.project}-"), place["HostPort"])
        for container in cast.stack.compose.containers()
        for places in container["NetworkSettings"]["Ports"].values()
        for place in places or []
    }
    assert doors == {
        ("api-server-1", str(cast.stack.ui_port)),
        ("gateway-1", str(cast.stack.gateway_port)),
    }
    networks = docker(
        "inspect",
        "--format",
        "{{json .NetworkSettings.Networks}}",
        cast.stack.compose.container("localstack"),
    )
    assert networks.stdout.count('"NetworkID"') == 1


# --- what passes --------------------------------------------------------------------------------------
def test_boto3_does_all_that_publishing_needs(cast: Cast) -> None:
    s3, key = cast.team.boto3(), "dev/orders/dags/b c+ü.txt"
    first = s3.put_object(Bucket=DAGS, Key=key, Body=b"1", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket=DAGS, Key=key, Body=b"2", IfNoneMatch="*")
    digest = base64.b64encode(hashlib.sha256(b"2").digest()).decode()
    second = s3.put_object(Bucket=DAGS, Key=key, Body=b"2", IfMatch=first["ETag"], ChecksumSHA256=digest)
    assert s3.get_object(Bucket=DAGS, Key=key)["Body"].read() == b"2"
    old = s3.get_object(Bucket=DAGS, Key=key, VersionId=first["VersionId"])
    assert old["Body"].read() == b"1"
    versions = s3.list_object_versions(Bucket=DAGS, Prefix=key)["Versions"]
    assert [v["VersionId"] for v in versions] == [second["VersionId"], first["VersionId"]]
    s3.copy_object(Bucket=DAGS, Key="dev/mine/x.txt", CopySource={"Bucket": DAGS, "Key": key})
    assert s3.get_object(Bucket=DAGS, Key="dev/mine/x.txt", Range="bytes=0-0")["Body"].read() == b"2"
    done = s3.delete_objects(Bucket=DAGS, Delete={"Objects": [{"Key": key}, {"Key": "dev/mine/x.txt"}]})
    assert {row["Key"] for row in done["Deleted"]} == {key, "dev/mine/x.txt"}
    assert not s3.list_objects_v2(Bucket=DAGS, Prefix="dev/mine/").get("Contents")


def test_aws_cli_copies_in_one_part_and_in_many_lists_and_deletes(cast: Cast, tmp_path: Path) -> None:
    (tmp_path / "big.bin").write_bytes(b"0123456789abcdef" * 700_000)  # 11 MB: two parts
    target = f"s3://{DAGS}/dev/orders/cli/"
    for arguments in (
        ("s3", "cp", str(tmp_path / "big.bin"), target),
        ("s3", "cp", f"{target}big.bin", str(tmp_path / "back.bin")),
        ("s3", "rm", f"{target}big.bin"),
    ):
        done = cast.team.run("aws", *arguments)
        assert done.code == 0, done.output
    assert (tmp_path / "back.bin").read_bytes() == (tmp_path / "big.bin").read_bytes()
    assert "PRE dags/" in cast.team.run("aws", "s3", "ls", f"s3://{DAGS}/dev/orders/").stdout


def test_rclone_syncs(cast: Cast, tmp_path: Path) -> None:
    for name in ("a.txt", "with space.txt", "sub/b.txt"):
        (tmp_path / "sub").mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    remote = f"airbridge:{DAGS}/dev/orders/rclone"
    for command in ("copy", "check"):
        done = cast.team.run("rclone", command, str(tmp_path), remote)
        assert done.code == 0, done.output
    (tmp_path / "a.txt").unlink()
    assert cast.team.run("rclone", "sync", str(tmp_path), remote).code == 0
    listed = cast.team.run("rclone", "lsf", "-R", "--files-only", remote).stdout.splitlines()
    assert sorted(listed) == ["sub/b.txt", "with space.txt"]


def test_dag_publisher_publishes_lists_and_rolls_back_through_the_gateway(cast: Cast, tmp_path: Path) -> None:
    package = tmp_path / "mine"
    (package / "dags").mkdir(parents=True)
    body = "from airflow.sdk import DAG\nwith DAG('mine_hello', schedule=None, tags=['{}']):\n    pass\n"
    releases = []
    for release in ("one", "two"):
        (package / "dags" / "mine_hello.py").write_text(body.format(release))
        done = cast.team.run("airflow-dag-publisher", "publish", package.name, cwd=package)
        assert done.code == 0, done.output
        releases.append(_current_release(cast))
    listed = cast.team.run("airflow-dag-publisher", "list")
    assert listed.code == 0, listed.output
    assert releases[1] in listed.stdout
    back = cast.team.run("airflow-dag-publisher", "rollback", "--package-name", "mine", "--to-previous")
    assert back.code == 0, back.output
    assert _current_release(cast) == releases[0]


def _current_release(cast: Cast) -> str:
    """The release that the manifest of "mine" names."""
    answer = cast.team.boto3().get_object(Bucket=DAGS, Key="dev/mine/metadata.json")
    return str(json.loads(answer["Body"].read())["release"])


def test_dag_publisher_of_another_team_is_refused_in_one_line(cast: Cast, tmp_path: Path) -> None:
    package = tmp_path / "edge_sample_two"
    (package / "dags").mkdir(parents=True)
    (package / "dags" / "edge_sample_two_x.py").write_text(
        "from airflow.sdk import DAG\nwith DAG('edge_sample_two_x', schedule=None):\n    pass\n"
    )
    done = cast.team.run("airflow-dag-publisher", "publish", package.name, cwd=package)
    attacks.tried("publish of another team's package", done.code == 0, done.output)
    assert done.code == 4
    assert "AccessDenied" in done.stderr
    assert "Traceback" not in done.output


def test_edge_host_that_joined_reads_dags_runs_and_sends_its_log(cast: Cast) -> None:
    stack = cast.stack
    finished = stack.wait_for_run(stack.trigger("edge_sample_dag"))
    log = until(
        "the log is in S3",
        lambda: [
            line
            for line in stack.request_log(finished.run, "start").json()["content"]
            if isinstance(line, dict) and any("s3://" in source for source in line.get("sources") or [])
        ],
        timeout=60,
    )
    assert log
    done = cast.host.exec("edge-worker", "diag")
    assert "PASS    s3 read" in done.stdout
    assert "PASS    s3 write" in done.stdout
    held = (
        cast.host.exec("edge-worker", "cat", "/var/lib/airbridge/credential").stdout.strip().partition(".")[2]
    )
    environment = cast.host.exec("edge-worker", "sh", "-c", "cat /proc/[0-9]*/environ", check=False).stdout
    assert held
    assert held not in environment


def test_uplink_signs_for_nobody(cast: Cast) -> None:
    """Whoever reaches it on the edge host's network has no more than what he can sign."""
    script = (
        "import boto3, sys\nfrom botocore.config import Config\n"
        "s = boto3.client('s3', endpoint_url='http://uplink:9000', region_name='us-east-1',"
        " aws_access_key_id='p', aws_secret_access_key='x' * 64,"
        " config=Config(s3={'addressing_style': 'path'}, retries={'total_max_attempts': 1}))\n"
        "try:\n    s.list_objects_v2(Bucket='airbridge-dags', Prefix='dev/')\n    print('got through')\n"
        "except Exception as error:\n    print(error)\n"
    )
    said = cast.host.exec("dag-sync", "python", "-c", script).stdout
    attacks.tried("uplink without the worker's secret", "got through" in said, said)
    assert "SignatureDoesNotMatch" in said


# --- attacks: signatures ------------------------------------------------------------------------------
def _bearer(sent: Sent, who: Principal) -> Sent:
    return sent.header("authorization", f"Bearer {who.name}.{who.secret}")


def _tampered(sent: Sent, header: str) -> Sent:
    value = sent.value(header)
    return sent.header(header, value[:-1] + ("0" if value[-1] != "0" else "1"))


def _get(cast: Cast, **options: Any) -> Sent:
    return cast.team.sign("GET", f"{OWN}/mine.txt", **options)


THEIRS = f"{DAGS}/dev/reporting/dags/theirs.txt"
SIGNATURES: dict[str, Callable[[Cast], Sent]] = {
    "no signature": lambda c: _get(c).header("authorization", None),
    "bearer instead of a signature": lambda c: _bearer(_get(c), c.team),
    "credential in the uplink's header": lambda c: c.worker.sign("GET", f"{OWN}/mine.txt")
    .header("authorization", None)
    .header("X-AirBridge-Token", f"{c.worker.name}.{c.worker.secret}"),
    "signature version 2": lambda c: _get(c).header("authorization", "AWS team-a:c2ln"),
    "LocalStack's own keys": lambda c: _get(c, name="airbridge", secret="airbridge"),
    "name that nobody has": lambda c: _get(c, name="nobody"),
    "another's secret": lambda c: _get(c, secret=c.operator.secret),
    "another's name": lambda c: _get(c, name="operator"),
    "tampered signature": lambda c: _tampered(_get(c), "authorization"),
    "stale signature": lambda c: _get(c, at=datetime.now(UTC) - timedelta(minutes=16)),
    "signature of the future": lambda c: _get(c, at=datetime.now(UTC) + timedelta(minutes=16)
    ),
    "other region": lambda c: _get(c, region="eu-central-1"),
    "replayed to another key": lambda c: replace(_get(c), target=f"/s3/{THEIRS}"),
    "replayed as a DELETE": lambda c: replace(_get(c), method="DELETE"),
    "replayed with a version": lambda c: replace(_get(c), target=f"/s3{OWN}/mine.txt?versionId=1"),
    "stripped header": lambda c: _get(c, headers={"x-amz-meta-a": "1"}).header(
        "x-amz-meta-a", None
    ),
    "unsigned copy source": lambda c: c.team.sign("PUT", f"{OWN}/copy.txt").header(
        "x-amz-copy-source", THEIRS
    ),
    "signed for another host": lambda c: _get(c, host="s3.amazonaws.com").header(
        "Host", c.team.host
    ),
    "certificate name from outside, another's": lambda c: _get(c, secret="x" * 64
    ).header("X-AirBridge-Client-Name", "team-a"),
    "two hosts": lambda c: replace(
        s := _get(c), headers=(*s.headers, ("Host", "evil"))
    ),
    "two signatures": lambda c: replace(
        s := _get(c, secret="x" * 64),
        headers=(*s.headers, ("Authorization", _get(c).value("authorization"))),
    ),
    "presigned, another key": lambda c: replace(
        s := _get(c, expires=60), target=s.target.replace("mine.txt", "other.txt")
    ),
    "presigned, another method": lambda c: replace(_get(c, expires=60), method="DELETE"),
    "presigned, longer life": lambda c: replace(
        s := _get(c, expires=60), target=s.target.replace("Expires=60", "Expires=600000")
    ),
    "presigned, expired": lambda c: _get(c, expires=60, at=datetime.now(UTC) - timedelta(seconds=90)
    ),
    "presigned, for ever": lambda c: _get(c, expires=604_801),
    "presigned, from the future": lambda c: _get(c, expires=604_800, at=datetime.now(UTC) + timedelta(days=1)
    ),
    "presigned, copy": lambda c: c.team.sign("PUT", f"{OWN}/copy.txt", expires=60).header(
        "x-amz-copy-source", THEIRS
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", SIGNATURES)
def test_signature_that_does_not_hold_opens_nothing(cast: Cast, attack: str) -> None:
    answer = cast.team.send(SIGNATURES[attack](cast))
    attacks.tried(attack, answer.got_through, answer)
    assert answer.status in (400, 403), answer


def test_same_request_with_its_signature_passes(cast: Cast) -> None:
    """Else the attacks above would prove nothing."""
    assert cast.team.ask("GET", f"{OWN}/mine.txt").body == b"mine"
    assert cast.team.send(cast.team.sign("GET", f"{OWN}/mine.txt", expires=60)).body == b"mine"


def test_strangers_learn_no_names(cast: Cast) -> None:
    answers = {
        (answer.status, answer.body.partition(b"<RequestId>")[0])
        for answer in (
            cast.team.ask("GET", f"{OWN}/mine.txt", name="nobody"),
            cast.team.ask("GET", f"{OWN}/mine.txt", secret="x" * 64),
            cast.team.ask("GET", f"{OWN}/mine.txt", name="NOT.A.NAME"),
        )
    }
    attacks.tried("names guessed by the answers", len(answers) != 1, answers)


# --- attacks: bodies ----------------------------------------------------------------------------------
def _chunks(who: Principal, sent: Sent, *parts: bytes) -> bytes:
    timestamp = sent.value("x-amz-date")
    scope = Scope(timestamp[:8], "us-east-1")
    previous, wire = sent.value("authorization").rpartition("Signature=")[2], b""
    for part in (*parts, b""):
        rest = f"{EMPTY_SHA256}\n{hashlib.sha256(part).hexdigest()}"
        text = f"AWS4-HMAC-SHA256-PAYLOAD\n{timestamp}\n{scope.text}\n{previous}\n{rest}"
        previous = signature(signing_key(who.secret, scope), text)
        wire += f"{len(part):x};chunk-signature={previous}\r\n".encode() + part + b"\r\n"
    return wire


CONTENT = b"content that was signed. " * 8000  # several pieces on the wire


def _chunked(cast: Cast, key: str) -> tuple[Sent, bytes]:
    headers = {
        "x-amz-decoded-content-length": str(len(CONTENT)),
        "content-encoding": "aws-chunked",
    }
    sent = cast.team.sign("PUT", f"{OWN}/{key}", headers=headers, payload=CHUNKED)
    return sent, _chunks(cast.team, sent, CONTENT[:100_000], CONTENT[100_000:])


def test_chunked_upload_with_right_signatures_passes(cast: Cast) -> None:
    sent, wire = _chunked(cast, "chunked.txt")
    assert cast.team.send(sent, wire).status == 200
    assert cast.team.ask("GET", f"{OWN}/chunked.txt").body == CONTENT


@pytest.mark.parametrize(
    "attack",
    ["first chunk", "last chunk", "chunk signature", "end cut off", "whole body", "trailing checksum"],
)
def test_tampered_body_is_never_seen(cast: Cast, attack: str) -> None:
    key = f"tampered-{attack.replace(' ', '-')}.txt"
    if attack == "whole body":
        sent = cast.team.sign("PUT", f"{OWN}/{key}", body=CONTENT)
        wire = CONTENT[:-1] + b"!"
    elif attack == "trailing checksum":
        crc = base64.b64encode(zlib.crc32(CONTENT).to_bytes(4, "big")).decode()
        headers = {
            "x-amz-decoded-content-length": str(len(CONTENT)),
            "x-amz-trailer": "x-amz-checksum-crc32",
        }
        payload = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
        sent = cast.team.sign("PUT", f"{OWN}/{key}", headers=headers, payload=payload)
        changed = CONTENT[:-1] + b"!"
        wire = (
            f"{len(changed):x}\r\n".encode()
            + changed
            + f"\r\n0\r\nx-amz-checksum-crc32:{crc}\r\n\r\n".encode()
        )
    else:
        sent, whole = _chunked(cast, key)
        wire = {
            "first chunk": whole.replace(b"content", b"CONTENT", 1),
            "last chunk": b"forged".join(whole.rsplit(b"signed", 1)),
            "chunk signature": whole.replace(
                b"chunk-signature=", b"chunk-signature=" + b"0" * 64 + b"\r\n", 1
            ),
            "end cut off": whole[: whole.rindex(b"0;chunk")],
        }[attack]
        assert wire != whole
    answer = cast.team.send(sent.header("content-length", str(len(wire))), wire)
    there = cast.team.ask("GET", f"{OWN}/{key}")
    attacks.tried(
        f"tampered body: {attack}", answer.got_through or there.status != 404, (answer, there.status)
    )
    assert answer.status in (400, 403), answer


# --- attacks: what is asked for -----------------------------------------------------------------------
ASKED: dict[str, tuple[str, str, str]] = {
    "team writes another package": ("team", "PUT", f"{FOREIGN}/x.txt"),
    "team deletes from another package": ("team", "DELETE", f"{FOREIGN}/theirs.txt"),
    "team writes beside the packages": ("team", "PUT", f"/{DAGS}/dev/x.txt"),
    "team writes another environment": ("team", "PUT", f"/{DAGS}/prod/orders/dags/x.txt"),
    "team writes tree documents": ("team", "PUT", f"/{DAGS}/.airbridge/dev/trees/x.json.gz"),
    "team reads logs": ("team", "GET", f"/{LOGS}/dev/diag/south-2/probe"),
    "team lists logs": ("team", "GET", f"/{LOGS}?list-type=2&prefix=dev%2F"),
    "team lists another environment": ("team", "GET", f"/{DAGS}?list-type=2&prefix=prod%2F"),
    "team lists everything": ("team", "GET", f"/{DAGS}?list-type=2"),
    "team lists another package's versions": ("team", "GET", f"/{DAGS}?versions&prefix=dev%2Freporting%2F"),
    "team reads another package's version": ("team", "GET", f"{FOREIGN}/theirs.txt?versionId=null"),
    "team deletes a version": ("team", "DELETE", f"{OWN}/mine.txt?versionId=null"),
    "buckets are listed": ("operator", "GET", "/"),
    "other bucket": ("operator", "GET", "/other-bucket/dev/x"),
    "bucket is made": ("operator", "PUT", "/evil-bucket"),
    "bucket is deleted": ("operator", "DELETE", f"/{DAGS}"),
    "bucket policy is read": ("operator", "GET", f"/{DAGS}?policy"),
    "bucket policy is written": ("operator", "PUT", f"/{DAGS}?policy"),
    "versioning is suspended": ("operator", "PUT", f"/{DAGS}?versioning"),
    "object is made public": ("operator", "PUT", f"{OWN}/mine.txt?acl"),
    "path with dots": ("team", "GET", f"{OWN}/../../reporting/dags/theirs.txt"),
    "path with encoded dots": ("team", "PUT", f"{OWN}/%2e%2e/%2e%2e/reporting/dags/x.txt"),
    "path with an encoded slash": ("team", "PUT", f"{OWN}%2f..%2f..%2freporting%2fx.txt"),
    "path with empty segments": ("team", "PUT", f"/{DAGS}//dev/reporting/x.txt"),
    "path with a NUL": ("team", "PUT", f"/{DAGS}/dev/orders%00/x.txt"),
    "path in capitals": ("team", "PUT", f"/{DAGS}/dev/REPORTING/x.txt"),
    "LocalStack's own pages": ("operator", "GET", f"/{DAGS}/../_localstack/health"),
    "worker writes a DAG": ("worker", "PUT", f"{OWN}/evil.py"),
    "worker deletes a DAG": ("worker", "DELETE", f"{OWN}/mine.txt"),
    "worker reads a neighbour's diag": ("worker", "GET", f"/{LOGS}/dev/diag/south-2/probe"),
    "worker writes a neighbour's diag": ("worker", "PUT", f"/{LOGS}/dev/diag/south-2/probe"),
    "worker writes a log that is not its own": (
        "worker",
        "PUT",
        f"/{LOGS}/dev/task-logs/dag_id=edge_sample_dag/run_id=x/task_id=start/attempt=1.log",
    ),
    "worker lists logs": ("worker", "GET", f"/{LOGS}?list-type=2&prefix=dev%2Ftask-logs%2F"),
    "worker lists other environments": ("worker", "GET", f"/{DAGS}?prefix=prod%2F"),
}


@pytest.mark.parametrize("attack", ASKED)
def test_nobody_gets_what_is_not_theirs(cast: Cast, attack: str) -> None:
    who, method, path = ASKED[attack]
    sender: Principal = getattr(cast, who)
    answer = sender.ask(method, path, b"evil" if method == "PUT" else b"")
    attacks.tried(attack, answer.got_through, answer)
    assert answer.status in (400, 403), answer


COPIES: dict[str, tuple[str, str, str]] = {
    "team copies a log": ("team", f"{OWN}/copy.txt", f"{LOGS}/dev/diag/south-2/probe"),
    "team copies from another environment": ("team", f"{OWN}/copy.txt", f"{DAGS}/prod/x"),
    "team copies into another package": ("team", f"{FOREIGN}/copy.txt", f"{DAGS}/dev/orders/dags/mine.txt"),
    "team copies with a path trick": ("team", f"{OWN}/copy.txt", f"{DAGS}/dev/%2e%2e/prod/x"),
    "worker copies a log": ("worker", f"/{LOGS}/dev/diag/north-1/x", f"{LOGS}/dev/diag/south-2/probe"),
}


@pytest.mark.parametrize("attack", COPIES)
def test_copies_read_nothing_that_their_sender_may_not(cast: Cast, attack: str) -> None:
    who, path, source = COPIES[attack]
    sender: Principal = getattr(cast, who)
    answer = sender.ask("PUT", path, headers={"x-amz-copy-source": source})
    attacks.tried(attack, answer.got_through, answer)


@pytest.mark.parametrize("more", ["", "<VersionId>null</VersionId>"])
def test_deletion_of_many_names_only_own_keys(cast: Cast, more: str) -> None:
    key = "dev/orders/dags/mine.txt" if more else "dev/reporting/dags/theirs.txt"
    body = f"<Delete><Object><Key>{key}</Key>{more}</Object></Delete>".encode()
    answer = cast.team.ask("POST", f"/{DAGS}?delete", body)
    attacks.tried(f"deletion of many {more}", answer.got_through, answer)
    assert cast.operator.ask("GET", f"/{DAGS}/{key}").status == 200


def test_version_of_another_key_is_not_given_out(cast: Cast) -> None:
    theirs = cast.operator.boto3().head_object(Bucket=DAGS, Key="dev/reporting/dags/theirs.txt")["VersionId"]
    answer = cast.team.ask("GET", f"{OWN}/mine.txt?versionId={theirs}")
    attacks.tried("version of another key", answer.got_through or b"theirs" in answer.body, answer)


# --- limits, revocation, the record -------------------------------------------------------------------
def _revoked(ask: Callable[[], int]) -> float:
    started = time.monotonic()
    while ask() == 200:
        assert time.monotonic() - started < 5
        time.sleep(0.02)
    return time.monotonic() - started


def test_revocation_is_in_force_within_a_second(cast: Cast) -> None:
    gone = enroll_publisher(cast.stack, "gone", "orders")
    presigned = gone.sign("GET", f"{OWN}/mine.txt", expires=3600)
    assert gone.send(presigned).status == 200
    airbridge_command(cast.stack, "publisher", "revoke", "gone")
    assert _revoked(lambda: gone.ask("GET", f"{OWN}/mine.txt").status) < 1
    attacks.tried("presigned by who was revoked", gone.send(presigned).got_through)


def test_rotation_leaves_the_old_secret_good_for_a_while(cast: Cast) -> None:
    before = enroll_publisher(cast.stack, "turning", "orders")
    rotated = airbridge_command(cast.stack, "publisher", "rotate", "turning", "--overlap", "2s")
    after = principal(cast.stack, rotated)
    time.sleep(0.6)  # longer than an enrolment is remembered
    assert before.ask("GET", f"{OWN}/mine.txt").status == 200
    assert after.ask("GET", f"{OWN}/mine.txt").status == 200
    _revoked(lambda: before.ask("GET", f"{OWN}/mine.txt").status)
    assert after.ask("GET", f"{OWN}/mine.txt").status == 200


def test_name_is_one_principals_alone(cast: Cast) -> None:
    done = cast.stack.exec(
        "api-server",
        "airbridge-env",
        "airbridge",
        "publisher",
        "enroll",
        "north-1",
        "--packages",
        "x",
        check=False,
    )
    assert done.code == 4
    assert "a worker is called 'north-1'" in done.stderr


def test_refusals_are_on_the_record_and_counted(cast: Cast) -> None:
    cast.team.ask("PUT", f"{FOREIGN}/on-the-record.txt", b"x")
    said = until(
        "the record",
        lambda: [line for line in cast.stack.compose.logs("s3-door").splitlines() if "on-the-record" in line],
        timeout=20,
    )
    for part in ('"reason": "s3_not_allowed"', '"worker": "team-a"', '"logger": "airbridge.audit"'):
        assert part in said[0]
    script = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8081/metrics').read().decode())"
    counts = cast.stack.exec("s3-door", "python", "-c", script).stdout
    assert 'airbridge_s3_refusals_total{reason="s3_not_allowed"}' in counts
    assert 'airbridge_s3_requests_total{operation="PutObject",status="200"}' in counts
    assert cast.team.secret not in cast.stack.compose.logs("s3-door", "gateway")


def test_door_is_small(cast: Cast) -> None:
    used = docker(
        "stats", "--no-stream", "--format", "{{.MemUsage}}", cast.stack.compose.container("s3-door")
    ).stdout
    number, unit = used.split("/")[0].strip()[:-3], used.split("/")[0].strip()[-3:]
    assert unit == "MiB"
    assert float(number) < 90
