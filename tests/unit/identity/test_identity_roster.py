"""Who is enrolled is asked for when something has changed; who was seen is written for many at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airbridge.identity.roster import Roster

if TYPE_CHECKING:
    from collections.abc import Mapping

WITHIN = 0.5
"""Seconds after which a change is known."""


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Member:
    """A principal, as far as the roster is concerned."""

    name: str
    secrets: tuple[str, ...] = ("secret",)


@dataclass
class Book:
    """Enrolments in memory; the revision of the real ones has tests of its own."""

    members: dict[str, Member] = field(default_factory=dict)
    number: int = 0
    asked: list[str] = field(default_factory=list)
    revisions: int = 0
    seen: list[dict[str, float]] = field(default_factory=list)

    def find(self, name: str) -> Member | None:
        self.asked.append(name)
        return self.members.get(name)

    def revision(self) -> int:
        self.revisions += 1
        return self.number

    def mark_seen(self, seen: Mapping[str, float]) -> None:
        self.seen.append(dict(seen))

    def change(self, member: Member) -> None:
        """Change an enrolment, as a transaction would."""
        self.members[member.name] = member
        self.number += 1


def _fleet(size: int) -> Book:
    return Book({f"w{number}": Member(f"w{number}") for number in range(size)})


def test_fleet_in_which_nothing_changes_costs_one_question_in_half_a_second() -> None:
    book, clock = _fleet(50), Clock()
    roster = Roster(book, clock)
    for name in book.members:
        assert roster.find(name) == book.members[name]
    book.asked.clear()
    book.revisions = 0
    for _ in range(4):
        clock.now += 5.0
        for name in book.members:
            assert roster.find(name) == book.members[name]
            assert roster.remembered(name) == (True, book.members[name])
    assert book.asked == []
    assert book.revisions == 4


def test_change_is_known_within_half_a_second_and_the_others_are_asked_for_again_once() -> None:
    book, clock = _fleet(3), Clock()
    roster = Roster(book, clock)
    for name in book.members:
        roster.find(name)
    clock.now += 10.0
    roster.find("w0")
    book.change(Member("w1", ()))
    clock.now += WITHIN
    assert roster.remembered("w1") == (False, None)
    assert roster.find("w1") == Member("w1", ())
    book.asked.clear()
    for _ in range(3):
        assert roster.find("w2") == Member("w2")
    assert book.asked == ["w2"]


def test_change_between_the_two_questions_is_not_taken_for_known() -> None:
    class Racing(Book):
        def revision(self) -> int:
            number = super().revision()
            if len(self.asked) == 1:
                self.change(Member("w0", ("new",)))  # once the revision is read, before the principal is
            return number

    book, clock = Racing(dict(_fleet(1).members)), Clock()
    roster = Roster(book, clock)
    roster.find("w0")
    clock.now += WITHIN
    roster.find("w0")
    clock.now += WITHIN
    assert roster.find("w0") == Member("w0", ("new",))


def test_principal_with_two_secrets_is_asked_for_again_as_one_of_them_ends_by_itself() -> None:
    book, clock = Book({"w0": Member("w0", ("new", "old"))}), Clock()
    roster = Roster(book, clock)
    roster.find("w0")
    book.members["w0"] = Member("w0", ("new",))  # without a change: its time was over
    clock.now += WITHIN
    assert roster.remembered("w0") == (False, None)
    assert roster.find("w0") == Member("w0", ("new",))


def test_name_that_nobody_has_is_remembered_until_somebody_is_enrolled() -> None:
    book, clock = Book(), Clock()
    roster = Roster(book, clock)
    assert roster.find("new") is None
    clock.now += 60.0
    assert roster.find("new") is None
    assert book.asked == ["new"]
    book.change(Member("new"))
    clock.now += WITHIN
    assert roster.find("new") == Member("new")


def test_who_was_seen_is_written_for_many_at_once_with_the_time_of_each() -> None:
    book, clock = _fleet(0), Clock()
    roster = Roster(book, clock)
    assert roster.saw("first")
    roster.write_seen()
    clock.now += 0.25
    assert not roster.saw("second")
    clock.now += 0.25
    assert not roster.saw("first"), "a moment ago"
    clock.now += 9.5
    assert roster.saw("first")
    roster.write_seen()
    assert book.seen == [{"first": 0.0}, {"first": 0.0, "second": 9.75}]
    roster.write_seen()
    assert len(book.seen) == 2, "nobody was seen since"


def test_who_was_never_seen_before_is_written_within_a_second() -> None:
    roster = Roster(Book(), clock := Clock())
    roster.saw("first")
    roster.write_seen()
    clock.now += 1.0
    assert roster.saw("second")


def test_who_knows_of_a_change_gets_what_it_is_now() -> None:
    book, clock = _fleet(1), Clock()
    roster = Roster(book, clock)
    roster.find("w0")
    book.change(Member("w0", ()))
    assert roster.find("w0") == Member("w0")
    assert roster.find_anew("w0") == Member("w0", ())
