"""The collector against S3 over HTTP; what it asks of Postgres is tried in the integration tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from tests.unit.sync.sync_peer import Peer, error

from airbridge.controlplane import _collector as collector_module
from airbridge.controlplane._collector import Collector
from airbridge.controlplane._rounds import check_collector, note_round
from airbridge.controlplane._settings import CollectorSettings, load_collector_settings
from airbridge.errors import AirbridgeError, RefusedError, SettingsError, UnreachableError
from airbridge.sync.s3 import Bucket
from airbridge.tree_document import document_key, read_references, references_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
KEY = references_key("dev")


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.stop()


@pytest.fixture
def environment(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    values = {
        "DAG_BUCKET": peer.bucket,
        "ENVIRONMENT": "dev",
        "S3_ENDPOINT_URL": peer.url,
        "AWS_ACCESS_KEY_ID": "airbridge",
        "AWS_SECRET_ACCESS_KEY": "airbridge",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return values


class Runs:
    """The needed trees, as the test says."""

    def __init__(self, settings: CollectorSettings) -> None:
        self.needed: set[str] = set()
        self.said: list[str] = []
        self.collector = Collector(
            settings, Bucket(settings), lambda: frozenset(self.needed), self.said.append
        )

    def need(self, *trees: str) -> None:
        self.needed = set(trees)
        self.collector.round()


@pytest.fixture
def runs(environment: dict[str, str]) -> Runs:
    return Runs(load_collector_settings())


def puts(peer: Peer) -> int:
    return sum(request.operation == "put" for request in peer.requests)


def written(peer: Peer) -> set[str]:
    return set(read_references(peer.objects[KEY].body).trees)


def document(peer: Peer, tree: str, days: float) -> str:
    """Put the document of a tree as it was written ``days`` ago."""
    key = document_key("dev", tree)
    at = datetime.now(UTC) - timedelta(days=days)
    peer.put(key, "document", modified=at.strftime("%Y-%m-%dT%H:%M:%S.000Z"))
    return key


def test_what_is_needed_is_written_when_it_changes_and_only_then(peer: Peer, runs: Runs) -> None:
    runs.need(A)
    assert written(peer) == {A}
    for _ in range(3):
        runs.need(A)
    assert puts(peer) == 1
    runs.need(A, B)
    assert written(peer) == {A, B}
    runs.need()
    assert written(peer) == set()
    assert puts(peer) == 3
    assert runs.said == [
        "1 trees are needed, 1 more, 0 less",
        "2 trees are needed, 1 more, 0 less",
        "0 trees are needed, 0 more, 2 less",
    ]


def test_a_sign_of_life_is_written_when_nothing_changes(
    peer: Peer, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.need(A)
    before = datetime.now(UTC)
    monkeypatch.setattr(collector_module, "_HEARTBEAT_SECONDS", 0.0)
    runs.need(A, B)
    runs.need(A, B)
    assert puts(peer) == 3
    at = datetime.fromisoformat(read_references(peer.objects[KEY].body).written_at)
    assert abs(at - before) < timedelta(minutes=1)


def test_no_version_of_the_references_stays_behind(peer: Peer, environment: dict[str, str]) -> None:
    Runs(load_collector_settings()).need(A)
    again = Runs(load_collector_settings())  # a restart
    again.need(B)
    again.need(C)
    assert [version.body for (key, _), version in peer.versions.items() if key == KEY] == [
        peer.objects[KEY].body
    ]
    assert written(peer) == {C}


def test_documents_go_when_they_are_old_and_nobody_needs_their_tree(peer: Peer, runs: Runs) -> None:
    old, needed, young = document(peer, A, 31), document(peer, B, 400), document(peer, C, 29)
    stranger = ".airbridge/dev/trees/readme.txt"
    peer.put(stranger, "x", modified="2020-01-01T00:00:00.000Z")
    other = document_key("prod", A)
    peer.put(other, "x", modified="2020-01-01T00:00:00.000Z")
    runs.need(B)
    assert set(peer.objects) == {needed, young, stranger, other, KEY}
    assert not [key for key, _ in peer.versions if key == old]
    assert f"document of tree {A} removed, 31 days old" in runs.said


def test_documents_are_not_looked_at_in_every_round(peer: Peer, runs: Runs) -> None:
    runs.need(A)
    document(peer, C, 100)
    for _ in range(3):
        runs.need(A)
    assert peer.count("list") == 1
    assert document_key("dev", C) in peer.objects


def test_a_document_that_was_written_again_meanwhile_stays(peer: Peer, runs: Runs) -> None:
    key = document(peer, A, 31)
    body = peer.listing({"prefix": ".airbridge/dev/trees/"})
    peer.put(key, "another document")
    peer.fault = lambda request: (200, {}, body) if request.operation == "list" else None
    runs.need()
    assert key in peer.objects


def test_a_database_that_fails_changes_nothing_in_s3(peer: Peer, environment: dict[str, str]) -> None:
    settings = load_collector_settings()

    def fail() -> frozenset[str]:
        raise UnreachableError("Postgres cannot be used")

    collector = Collector(settings, Bucket(settings), fail)
    with pytest.raises(UnreachableError, match="Postgres"):
        collector.round()
    assert peer.requests == []


def test_a_write_that_was_refused_is_tried_again(peer: Peer, runs: Runs) -> None:
    peer.fault = lambda request: (403, {}, error("AccessDenied")) if request.operation == "put" else None
    with pytest.raises(RefusedError, match=r"write \.airbridge/dev/references\.json"):
        runs.need(A)
    peer.fault = lambda _request: None
    runs.need(A)
    assert written(peer) == {A}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AIRBRIDGE_KEEP_TREE_DOCUMENTS_DAYS", "0"),
        ("AIRBRIDGE_KEEP_TREE_DOCUMENTS_DAYS", "soon"),
        ("AIRBRIDGE_COLLECT_INTERVAL", "0"),
        ("DAG_BUCKET", "Not_A_Bucket"),
        ("DAG_BUCKET", ""),
        ("ENVIRONMENT", "../x"),
        ("S3_ENDPOINT_URL", "localstack"),
    ],
)
def test_a_malformed_setting_of_the_collector_is_named(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        load_collector_settings()


def test_defaults_of_the_collector_are_those_of_the_manual(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3_ENDPOINT_URL", "")
    settings = load_collector_settings()
    assert (settings.airbridge_collect_interval, settings.airbridge_keep_tree_documents_days) == (10, 30)
    assert settings.s3_endpoint_url == ""


def test_health_is_the_age_of_the_last_round(tmp_path: Path) -> None:
    file = tmp_path / "round"
    with pytest.raises(UnreachableError, match="has not finished a round yet"):
        check_collector(file)
    note_round(10, file)
    assert check_collector(file).startswith("collector: last round 0.")
    file.write_text(f"{time.monotonic() - 61} 10\n")
    with pytest.raises(AirbridgeError, match="last round 61 s ago"):
        check_collector(file)
    file.write_text(f"{time.monotonic() - 61} 30\n")
    assert "61" in check_collector(file)


def test_without_a_database_the_collector_says_so_and_stops_at_once_when_told(
    environment: dict[str, str],
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "airbridge.controlplane", "collect"],
        env={
            **os.environ,
            **environment,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://airflow:x@127.0.0.1:9/airflow",
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "waiting for Postgres" in process.stdout.readline()
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert time.monotonic() - started < 2
