"""Whether the control plane is there: who asks, how often, and what is written down."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
import structlog
from tenacity import AsyncRetrying, RetryCallState

from airbridge.courier import _link
from airbridge.courier._answers import Answer
from airbridge.courier._link import Link

THERE = Answer(200)
GONE = Answer(0, error="connection refused")
BOOT = Path("/proc/sys/kernel/random/boot_id")


class Notes(dict[str, str]):
    """Notes in memory."""

    def note(self, name: str, text: str) -> None:
        self[name] = text

    def noted(self, name: str) -> str:
        return self.get(name, "")


class Line:
    """A control plane that gives these answers, then the last one for ever."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def probe(self) -> Answer:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_link, "_FIRST_PAUSE_S", 0.01)


def _watch(link: Link, *steps: Answer) -> list[dict[str, object]]:
    """Let the link come up, then raise each doubt in turn; return what it wrote into the log."""

    async def run() -> None:
        watching = asyncio.create_task(link.watch())
        async with asyncio.timeout(10):
            await link.wait_until_there()
            for answer in steps:
                link.suspect(answer)
                await link.wait_until_there()
        watching.cancel()

    with structlog.testing.capture_logs() as said:
        asyncio.run(run())
    return [dict(line) for line in said]


def test_doubt_that_one_question_settles_is_no_absence() -> None:
    line = Line(THERE)
    link = Link(line.probe, Notes())
    assert _watch(link, GONE, GONE) == []
    assert line.asked == 3
    assert link.away_s == 0


def test_absence_is_one_line_at_its_beginning_and_one_at_its_end() -> None:
    line = Line(THERE, GONE, Answer(503), GONE, GONE, THERE)
    said = _watch(Link(line.probe, Notes()), GONE)
    assert [entry["event"] for entry in said] == [
        "control plane away: reports are kept on this host",
        "control plane is back",
    ]
    assert said[0]["reason"] == "connection refused"


def test_absence_goes_on_across_a_restart() -> None:
    boot = BOOT.read_text().strip()
    notes = Notes()
    notes.note("away since", f"{boot} {time.clock_gettime(time.CLOCK_BOOTTIME) - 500!r}")

    async def run() -> float:
        link = Link(Line(GONE).probe, notes)
        watching = asyncio.create_task(link.watch())
        await asyncio.sleep(0.05)
        watching.cancel()
        return link.away_s

    assert 500 <= asyncio.run(run()) < 600


def test_absence_of_another_boot_is_over() -> None:
    notes = Notes()
    notes.note("away since", "another-boot 1.0")
    assert _watch(Link(Line(THERE).probe, notes)) == []


def _pauses(link: Link, attempt: int) -> list[float]:
    state = RetryCallState(AsyncRetrying(), None, (), {})
    state.attempt_number = attempt
    return [link._pause(state) for _ in range(300)]


def test_pauses_grow_to_a_limit_and_are_random_from_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_link, "_FIRST_PAUSE_S", 1.0)
    link = Link(Line(GONE).probe, Notes())
    for attempt, limit in ((1, 1.0), (3, 4.0), (50, 15.0)):
        pauses = _pauses(link, attempt)
        assert max(pauses) <= limit
        assert max(pauses) > 0.8 * limit
        assert min(pauses) < 0.2 * limit


def test_host_that_is_refused_asks_less_often_and_who_says_when_is_believed() -> None:
    async def seen(answer: Answer) -> Link:
        link = Link(Line(answer).probe, Notes())
        watching = asyncio.create_task(link.watch())
        await asyncio.sleep(0.05)
        watching.cancel()
        return link

    revoked = asyncio.run(seen(Answer(403, body=b'{"reason": "worker_revoked"}')))
    assert max(_pauses(revoked, 50)) > 15
    limited = asyncio.run(seen(Answer(429, {"Retry-After": "7"})))
    assert min(_pauses(limited, 1)) == 7
    never = asyncio.run(seen(Answer(503, {"Retry-After": "86400"})))
    assert max(_pauses(never, 1)) == 15
