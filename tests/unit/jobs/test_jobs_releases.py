"""A package is published when it is ours and has something new to say; people's decisions stand."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from airbridge.jobs._releases import TOOL, RemotePackage, Verdict, content_of, judge
from airbridge.manifest import Manifest, ManifestFile, new_release_id, now


def hashes(text: str) -> dict[str, str]:
    return {"dags/sales_load.py": hashlib.sha256(text.encode()).hexdigest()} if text else {}


def manifest(text: str, *, tool: str = TOOL) -> Manifest:
    time = now()
    files = tuple(ManifestFile(path, digest, 1, "e", "v") for path, digest in hashes(text).items())
    return Manifest(
        package="sales",
        release=new_release_id(time, hashes(text)),
        published_at=time,
        published_by="job-sync",
        activated_at=time,
        activated_by="job-sync",
        files=files,
        tool=tool,
    )


def rolled_back(text: str) -> Manifest:
    return replace(manifest(text), activated_at="2999-01-01T00:00:00.000Z", activated_by="ana@laptop")


PAST = frozenset(content_of(hashes(text)) for text in ("one", "two", ""))


@pytest.mark.parametrize(
    ("wanted", "remote", "verdict"),
    [
        ("one", None, Verdict.PUBLISH),
        ("", None, Verdict.ABSENT),
        ("one", RemotePackage(manifest("one")), Verdict.UNCHANGED),
        ("two", RemotePackage(manifest("one")), Verdict.PUBLISH),
        ("", RemotePackage(manifest("one")), Verdict.PUBLISH),
        ("", RemotePackage(manifest("")), Verdict.UNCHANGED),
        ("one", RemotePackage(manifest("")), Verdict.PUBLISH),
        # Of a team that publishes by itself, or copies plain files.
        ("one", RemotePackage(manifest("one", tool="airflow-dag-publisher/0.1.0")), Verdict.FOREIGN),
        ("one", RemotePackage(manifest("two", tool="")), Verdict.FOREIGN),
        ("one", RemotePackage(None), Verdict.FOREIGN),
        ("", RemotePackage(manifest("one", tool="airflow-dag-publisher/0.1.0")), Verdict.ABSENT),
        ("", RemotePackage(None), Verdict.ABSENT),
        # A release of an older version of this program is ours.
        ("two", RemotePackage(manifest("one", tool="airflow-control-plane/0.0.1")), Verdict.PUBLISH),
        # Rolled back from "two" to "one" by a person: "two" does not come back by itself, "three" is new.
        ("two", RemotePackage(rolled_back("one"), PAST), Verdict.HELD),
        ("one", RemotePackage(rolled_back("one"), PAST), Verdict.UNCHANGED),
        ("three", RemotePackage(rolled_back("one"), PAST), Verdict.PUBLISH),
        ("", RemotePackage(rolled_back("one"), PAST), Verdict.HELD),
        # Back to an earlier state by the package's own files, without a rollback.
        ("one", RemotePackage(manifest("two"), PAST), Verdict.PUBLISH),
    ],
)
def test_verdict(wanted: str, remote: RemotePackage | None, verdict: Verdict) -> None:
    assert judge(hashes(wanted), remote) is verdict
