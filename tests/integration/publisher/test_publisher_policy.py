"""The IAM policy of a package allows every request that its publisher makes, and not one of others'."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from airbridge.publisher._arrival import Watcher
from airbridge.publisher._catalog import read_catalog
from airbridge.publisher._diff import Side, compare
from airbridge.publisher._history import find_release, read_content, releases
from airbridge.publisher._policy import make_policy
from airbridge.publisher._rollback import rollback
from airbridge.tree_document import TreeDocument, document_key

if TYPE_CHECKING:
    from publisher_bucket import Team

    from airbridge.publisher._s3 import Store

#: What IAM asks for each operation, and whether a version that is named asks for another right.
ACTIONS = {
    "ListObjectsV2": ("s3:ListBucket", "s3:ListBucket"),
    "ListObjectVersions": ("s3:ListBucketVersions", "s3:ListBucketVersions"),
    "GetObject": ("s3:GetObject", "s3:GetObjectVersion"),
    "HeadObject": ("s3:GetObject", "s3:GetObjectVersion"),
    "PutObject": ("s3:PutObject", "s3:PutObject"),
    "DeleteObject": ("s3:DeleteObject", "s3:DeleteObjectVersion"),
}


@dataclass(frozen=True)
class Request:
    """A request, as IAM sees it."""

    action: str
    resource: str
    prefix: str | None = None


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def allows(policy: dict[str, Any], request: Request) -> bool:
    """Evaluate a policy of Allow statements with StringLike conditions on s3:prefix, as IAM does."""
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        if request.action not in as_list(statement["Action"]):
            continue
        if not any(fnmatchcase(request.resource, pattern) for pattern in as_list(statement["Resource"])):
            continue
        condition = statement.get("Condition", {})
        assert set(condition) <= {"StringLike"}
        wanted = condition.get("StringLike", {}).get("s3:prefix")
        if wanted is None or (
            request.prefix is not None and any(fnmatchcase(request.prefix, p) for p in as_list(wanted))
        ):
            return True
    return False


def record(store: Store, requests: set[Request]) -> Store:
    """Note what really goes to S3."""

    def note(request: Any, event_name: str, **_: object) -> None:
        operation = event_name.rpartition(".")[2]
        parts = urlsplit(request.url)
        bucket, _slash, key = unquote(parts.path.lstrip("/")).partition("/")
        query = parse_qs(parts.query, keep_blank_values=True)
        plain, versioned = ACTIONS[operation]
        requests.add(
            Request(
                versioned if "versionId" in query else plain,
                f"arn:aws:s3:::{bucket}" + (f"/{key}" if key else ""),
                query.get("prefix", [None])[0],  # type: ignore[list-item]
            )
        )

    store.client.meta.events.register("before-send.s3", note)
    return store


class Nobody:
    """A control plane without DAGs and workers, whose trees are looked up all the same."""

    def __init__(self, tree: str) -> None:
        self._tree = tree

    def dags(self, _package: str) -> dict[str, Any]:
        return {}

    def import_errors(self, _package: str) -> list[Any]:
        return []

    def workers(self) -> list[Any]:
        from airbridge.publisher._api import Worker

        return [Worker("w", "idle", True, self._tree, 1.0)]


@pytest.fixture
def requests(team: Team, other_team: Team) -> set[Request]:
    """Every request of a package's life: publish, heal, roll back, list, diff, status."""
    made: set[Request] = set()
    other_team.publish()
    team.bucket.put("plain/dags/plain_x.py", "x = 1\n")
    team.bucket.put("sales/dags/old.py", "x = 1\n")
    for note in ("one", "two"):
        team.write("daily", note=note)
        team.publish(record(team.bucket.store(), made), take_over=True)
    team.write("more")
    team.publish(record(team.bucket.store(), made))
    team.remove("more")
    team.publish(record(team.bucket.store(), made))
    store = record(team.bucket.store(), made)
    rollback(store, "sales", None, activated_by="bob")
    read_catalog(store)
    assert len(list(releases(store, "sales"))) > 2
    sides = []
    for name in ("current", "previous"):
        manifest = find_release(store, "sales", name).manifest
        files = {file.path: file for file in manifest.files}
        hashes = {path: file.sha256 for path, file in files.items()}
        sides.append(Side(name, hashes, lambda path, m=manifest, f=files: read_content(store, m, f[path])))
    compare(*sides)
    tree = "a" * 64
    team.bucket.client.put_object(
        Bucket=team.bucket.name, Key=document_key("dev", tree), Body=TreeDocument(tree, ()).to_bytes()
    )
    Watcher(store, Nobody(tree), find_release(store, "sales", "current").manifest).look()  # type: ignore[arg-type]
    return made


def test_policy_allows_every_request_that_the_publisher_makes(team: Team, requests: set[Request]) -> None:
    policy = make_policy(team.bucket.settings(), "sales")
    assert {request.action for request in requests} == {
        action for pair in ACTIONS.values() for action in pair
    } - {"s3:DeleteObjectVersion"}
    assert [request for request in requests if not allows(policy, request)] == []


def test_every_statement_of_the_policy_is_needed(team: Team, requests: set[Request]) -> None:
    policy = make_policy(team.bucket.settings(), "sales")
    for statement in policy["Statement"]:
        rest = {**policy, "Statement": [other for other in policy["Statement"] if other is not statement]}
        assert [request for request in requests if not allows(rest, request)], statement["Sid"]


def test_policy_of_another_package_allows_no_write_of_this_one(team: Team, requests: set[Request]) -> None:
    policy = make_policy(team.bucket.settings(), "crm")
    writes = [request for request in requests if request.action in {"s3:PutObject", "s3:DeleteObject"}]
    assert writes
    assert [request for request in writes if allows(policy, request)] == []


def test_policy_keeps_to_its_prefix(team: Team) -> None:
    policy = make_policy(team.bucket.settings(), "sales")
    bucket = f"arn:aws:s3:::{team.bucket.name}"
    forbidden = [
        Request("s3:PutObject", f"{bucket}/dev/sales_eu/dags/x.py"),
        Request("s3:PutObject", f"{bucket}/dev/crm/metadata.json"),
        Request("s3:PutObject", f"{bucket}/dev/sales/other.txt"),
        Request("s3:PutObject", f"{bucket}/prod/sales/dags/x.py"),
        Request("s3:PutObject", f"{bucket}/.airbridge/dev/trees/x.json.gz"),
        Request("s3:DeleteObject", f"{bucket}/dev/sales/metadata.json"),
        Request("s3:DeleteObjectVersion", f"{bucket}/dev/sales/dags/x.py"),
        Request("s3:GetObject", f"{bucket}/prod/sales/dags/x.py"),
        Request("s3:GetObjectVersion", f"{bucket}/dev/crm/dags/x.py"),
        Request("s3:ListBucket", bucket, "prod/"),
        Request("s3:ListBucket", bucket, None),
        Request("s3:ListBucketVersions", bucket, "dev/"),
        Request("s3:PutBucketVersioning", bucket),
    ]
    assert [request for request in forbidden if allows(policy, request)] == []
