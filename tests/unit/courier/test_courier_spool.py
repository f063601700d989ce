"""The spool: one order, nothing lost by a crash, bounds that hold."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from airbridge.courier._spool import Report, Spool, SpoolFullError, Waiting
from airbridge.errors import AirbridgeError

LIMIT = 64 * 1024
STREAMS = ("a/1", "b/1", "c/1")


def _report(stream: str = "a/1", body: bytes = b"{}", target: str = "/edge_worker/v1/x") -> Report:
    return Report(stream, "POST", target, {"Authorization": "t"}, body)


class Crashes(RuleBasedStateMachine):
    """Adds, delivers and crashes in any order; a list in memory says what must be there."""

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="spool-"))
        self.spool = Spool(self.folder, LIMIT)
        self.kept: list[tuple[str, bytes]] = []
        self.given = self.spool.fetch_id
        self.count = 0

    def teardown(self) -> None:
        self.spool.close()
        shutil.rmtree(self.folder)

    @rule(stream=st.sampled_from(STREAMS), size=st.integers(0, 20_000))
    def add(self, stream: str, size: int) -> None:
        self.count += 1
        body = f"{self.count}:".encode() + b"x" * size
        try:
            self.spool.add(_report(stream, body))
        except SpoolFullError:
            assert sum(len(kept) for _, kept in self.kept) + len(body) > LIMIT // 2
        else:
            self.kept.append((stream, body))

    @precondition(lambda self: self.kept)
    @rule(which=st.integers(0, len(STREAMS) - 1), again=st.booleans())
    def deliver(self, which: int, again: bool) -> None:
        heads = self.spool.first(most=len(STREAMS))
        head = heads[which % len(heads)]
        self.spool.remove(head)
        if again:
            self.spool.remove(head)  # as when two deliveries of it were under way
        self.kept.remove((head.report.stream, head.report.body))

    @rule()
    def take_job(self) -> None:
        self.spool.took("task-1", "a/1")
        assert self.spool.fetch_id != self.given
        self.given = self.spool.fetch_id

    @rule()
    def crash(self) -> None:
        """What is on the disk now, opened by another process: the first one never closes its files."""
        copy = Path(tempfile.mkdtemp(prefix="spool-"))
        for file in self.folder.iterdir():
            shutil.copy(file, copy / file.name)
        self.spool.close()
        shutil.rmtree(self.folder)
        self.folder, self.spool = copy, Spool(copy, LIMIT)

    @invariant()
    def heads_are_the_oldest_of_their_streams(self) -> None:
        oldest: dict[str, bytes] = {}
        for stream, body in self.kept:
            oldest.setdefault(stream, body)
        heads = self.spool.first(most=len(STREAMS))
        assert [(head.report.stream, head.report.body) for head in heads] == list(oldest.items())
        assert self.spool.streams == frozenset(oldest)

    @invariant()
    def totals_say_what_is_there(self) -> None:
        totals = self.spool.totals()
        assert totals.count == len(self.kept)
        assert (totals.oldest is None) == (not self.kept)
        assert totals.size <= LIMIT
        assert self.spool.fetch_id == self.given


TestCrashes = Crashes.TestCase
TestCrashes.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


def _all(spool: Spool) -> list[Waiting]:
    return spool.first(most=100)


def test_streams_that_rest_are_left_out(tmp_path: Path) -> None:
    spool = Spool(tmp_path, LIMIT)
    for stream in ("a/1", "b/1", "a/1"):
        spool.add(_report(stream))
    assert [head.report.stream for head in spool.first(without={"a/1"}, most=9)] == ["b/1"]


def test_full_spool_refuses_and_takes_again_when_there_is_room(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10_000)
    spool.add(_report(body=b"x" * 8000))
    with pytest.raises(SpoolFullError, match="COURIER_SPOOL_MB"):
        spool.add(_report(body=b"x" * 8000))
    spool.remove(_all(spool)[0])
    spool.add(_report(body=b"x" * 8000))


def test_last_room_is_for_what_is_nowhere_else(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 20_000)
    spool.add(_report(body=b"x" * 17_000))
    with pytest.raises(SpoolFullError):
        spool.add(_report(body=b"log"), may_use_reserve=False)
    spool.add(_report(body=b"state"))


def test_file_shrinks_as_it_empties(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 8 * 1024 * 1024)
    for _ in range(20):
        spool.add(_report(body=b"x" * 100_000))
    for _ in range(20):
        spool.remove(_all(spool)[0])
    spool.close()
    assert (tmp_path / "spool.db").stat().st_size < 200_000


def test_nobody_else_reads_the_tokens_in_it(tmp_path: Path) -> None:
    Spool(tmp_path, LIMIT).add(_report())
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("spool.db", "spool.db-wal", "spool.db-shm"), 0o600)


def test_task_and_job_are_one_stream_until_the_job_ends(tmp_path: Path) -> None:
    spool = Spool(tmp_path, LIMIT)
    assert spool.stream_of("task-1") == "task-1"
    spool.took("task-1", "etl/extract/r/1/-1")
    spool.close()
    again = Spool(tmp_path, LIMIT)
    assert again.stream_of("task-1") == "etl/extract/r/1/-1"
    again.ended("etl/extract/r/1/-1")
    assert again.stream_of("task-1") == "task-1"


def test_notes_outlive_the_process(tmp_path: Path) -> None:
    spool = Spool(tmp_path, LIMIT)
    assert spool.noted("away since") == ""
    spool.note("away since", "boot 1.5")
    spool.close()
    assert Spool(tmp_path, LIMIT).noted("away since") == "boot 1.5"


def test_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AirbridgeError, match=r"spool .* cannot be used: .*fix: make COURIER_SPOOL a volume"):
        Spool(tmp_path / "file", LIMIT)


def test_damaged_file_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "spool.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(AirbridgeError, match=r"file is not a database.*may be moved away"):
        Spool(tmp_path, LIMIT)


def test_headers_come_back_as_they_were(tmp_path: Path) -> None:
    spool = Spool(tmp_path, LIMIT)
    report = Report(
        "a", "PATCH", "/execution/x?a=%2F", {"Airflow-API-Version": "2025", "X": "ä"}, b"\x00\xff"
    )
    spool.add(report)
    assert _all(spool)[0].report == report
    rows = sqlite3.connect(tmp_path / "spool.db").execute("SELECT headers FROM report").fetchall()
    assert json.loads(rows[0][0]) == report.headers
