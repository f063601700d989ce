"""Task log files: each line is sent once, whoever else writes or sends, and files go only when they may."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from airbridge.edge._log_files import (
    is_sent,
    list_unsent,
    put_on_list,
    send_listed,
    send_rest,
    sweep,
    waits_for_s3,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a task's attempts log."""
    made = tmp_path / "dag_id=etl" / "task_id=load"
    made.mkdir(parents=True)
    return made


def _age(*files: Path, hours: float = 24) -> None:
    then = time.time() - hours * 3600
    for file in files:
        os.utime(file, (then, then))


def _takes(into: list[str]) -> object:
    def send(text: str) -> bool:
        into.append(text)
        return True

    return send


def test_second_part_of_a_task_sends_only_what_it_wrote(folder: Path) -> None:
    log, sent = folder / "attempt=1.log", []
    log.write_text("first part\n")
    assert send_rest(log, _takes(sent))
    with log.open("a") as file:
        file.write("second part\n")
    assert send_rest(log, _takes(sent))
    assert send_rest(log, _takes(sent))
    assert sent == ["first part\n", "second part\n"]


def test_a_log_is_known_to_be_sent_only_when_all_of_it_is(folder: Path) -> None:
    log = folder / "attempt=1.log"
    assert not is_sent(log)
    log.write_text("line\n")
    assert not is_sent(log)
    assert send_rest(log, lambda _: True)
    assert is_sent(log)
    with log.open("a") as file:
        file.write("another\n")
    assert not is_sent(log)


def test_what_could_not_be_sent_is_sent_next_time(folder: Path) -> None:
    log, sent = folder / "attempt=1.log", []
    log.write_text("line\n")
    assert not send_rest(log, lambda _: False)
    assert send_rest(log, _takes(sent))
    assert sent == ["line\n"]


def test_sending_that_raises_leaves_everything_to_be_sent(folder: Path) -> None:
    log, sent = folder / "attempt=1.log", []
    log.write_text("line\n")

    def breaks(_: str) -> bool:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        send_rest(log, breaks)
    assert send_rest(log, _takes(sent))
    assert sent == ["line\n"]


def test_end_of_one_attempt_leaves_the_log_of_the_next_alone(folder: Path) -> None:
    first, second = folder / "attempt=1.log", folder / "attempt=2.log"
    first.write_text("failed\n")
    second.write_text("works on it\n")
    assert send_rest(first, lambda _: True)
    assert second.read_text() == "works on it\n"
    assert sweep(folder.parents[1]) == 0
    assert first.exists()


def test_two_parts_that_end_at_the_same_time_send_nothing_twice(folder: Path) -> None:
    log = folder / "attempt=1.log"
    log.write_text("line\n" * 1000)
    sent: list[str] = []

    def slow(text: str) -> bool:
        time.sleep(0.05)
        sent.append(text)
        return True

    # flock() is between open files, so threads are as good as processes here.
    threads = [threading.Thread(target=send_rest, args=(log, slow)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sent == ["line\n" * 1000]


@pytest.mark.parametrize("mark", [b"", b"12x", b"\x00\x00"])
def test_mark_that_a_crash_spoiled_makes_lines_come_twice_and_none_be_lost(folder: Path, mark: bytes) -> None:
    log, sent = folder / "attempt=1.log", []
    log.write_text("line\n")
    (folder / ".attempt=1.log.sent").write_bytes(mark)
    assert send_rest(log, _takes(sent))
    assert sent == ["line\n"]


def test_bytes_that_are_no_text_do_not_keep_a_log_from_s3(folder: Path) -> None:
    log, sent = folder / "attempt=1.log", []
    log.write_bytes(b"\xff\xfe\n")
    assert send_rest(log, _takes(sent))
    assert sent == ["\\xff\\xfe\n"]


def test_log_that_is_not_there_has_nothing_to_send(folder: Path) -> None:
    assert send_rest(folder / "attempt=1.log", lambda _: False)
    assert list(folder.iterdir()) == []


def test_old_log_that_was_sent_is_swept_with_its_mark_and_its_empty_folders(folder: Path) -> None:
    root = folder.parents[1]
    log = folder / "attempt=1.log"
    log.write_text("line\n")
    assert send_rest(log, lambda _: True)
    _age(log)
    assert sweep(root) == 1
    assert list(root.iterdir()) == []


def test_log_that_is_young_or_not_all_sent_is_kept(folder: Path) -> None:
    root = folder.parents[1]
    young, unsent, grown = (folder / f"attempt={number}.log" for number in (1, 2, 3))
    for log in (young, unsent, grown):
        log.write_text("line\n")
    assert send_rest(young, lambda _: True)
    assert not send_rest(unsent, lambda _: False)
    assert send_rest(grown, lambda _: True)
    grown.write_text("line\nanother line\n")
    _age(unsent, grown)
    assert sweep(root) == 0
    assert all(log.exists() for log in (young, unsent, grown))


def test_line_that_is_being_written_is_left_to_its_writer(folder: Path) -> None:
    log, sent = folder / "attempt=1.log", []
    log.write_text("first part\nsecond pa")
    assert send_rest(log, _takes(sent), whole_lines=True)
    with log.open("a") as file:
        file.write("rt\n")
    assert send_rest(log, _takes(sent), whole_lines=True)
    assert sent == ["first part\n", "second part\n"]


def test_log_that_could_not_be_sent_is_sent_from_the_list(folder: Path, tmp_path: Path) -> None:
    log, sent = folder / "attempt=1.log", []
    log.write_text("line\n")
    assert not waits_for_s3(tmp_path)
    put_on_list(tmp_path, log)
    put_on_list(tmp_path, log)
    assert waits_for_s3(tmp_path)
    assert send_listed(tmp_path, lambda _: False) == 1
    assert send_listed(tmp_path, lambda found: send_rest(found, _takes(sent))) == 0
    assert not waits_for_s3(tmp_path)
    assert sent == ["line\n"]


def test_logs_of_a_worker_that_was_killed_are_put_on_the_list(folder: Path, tmp_path: Path) -> None:
    whole, half, new = (folder / f"attempt={number}.log" for number in (1, 2, 3))
    for log in (whole, half):
        log.write_text("line\n")
        assert send_rest(log, lambda _: True)
    half.open("a").write("and what came after\n")
    new.write_text("line\n")
    (tmp_path / "other.log").write_text("no task's\n")
    assert list_unsent(tmp_path) == 2
    sent: list[str] = []
    send_listed(tmp_path, lambda log: send_rest(log, _takes(sent)))
    assert sorted(sent) == ["and what came after\n", "line\n"]


def test_logs_that_nobody_takes_stand_before_no_other(folder: Path, tmp_path: Path) -> None:
    logs = [folder / f"attempt={number}.log" for number in range(6)]
    for log in logs:
        log.write_text("line\n")
        put_on_list(tmp_path, log)
    tried: list[Path] = []

    def send(log: Path) -> bool:
        tried.append(log)
        return False

    assert send_listed(tmp_path, send) == 6
    assert len(tried) == 3, "the others need not be tried when S3 is away"
    assert send_listed(tmp_path, send) == 6
    assert set(tried) == set(logs)


def test_log_that_is_too_old_to_be_taken_leaves_the_list(folder: Path, tmp_path: Path) -> None:
    log = folder / "attempt=1.log"
    log.write_text("line\n")
    put_on_list(tmp_path, log)
    _age(log, hours=8 * 24)
    assert send_listed(tmp_path, lambda _: False) == 0
