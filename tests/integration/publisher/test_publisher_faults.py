"""A publish or rollback that dies at any request: nobody sees anything of it, and the next one heals."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Literal

import pytest
from botocore.exceptions import ConnectionClosedError
from publisher_bucket import Bucket, Team

from airbridge.errors import AirbridgeError, UnreachableError
from airbridge.publisher._catalog import read_catalog
from airbridge.publisher._rollback import rollback

if TYPE_CHECKING:
    from pathlib import Path

    from airbridge.publisher._s3 import Store

MAX_REQUESTS = 200  # more than any publish here makes; a loop that never ends is a failure


class Killed(BaseException):
    """What a kill -9 is to the code: nothing catches it."""


class Dying:
    """Makes a store die at its ``number``-th request, before S3 sees it or before the answer is seen.

    Whatever is sent later, by other threads too, does not leave the machine.
    """

    def __init__(self, store: Store, number: int, moment: Literal["before", "after"]) -> None:
        self._number = number
        self._moment = moment
        self._count = 0
        self._lock = threading.Lock()
        self.died = False
        events = store.client.meta.events
        events.register("before-send.s3", self._before)
        events.register("response-received.s3", self._after)

    def _before(self, **_: object) -> None:
        with self._lock:
            if self.died:
                raise Killed
            self._count += 1
            if self._count == self._number and self._moment == "before":
                self.died = True
                raise Killed

    def _after(self, **_: object) -> None:
        with self._lock:
            if self.died or (self._count >= self._number and self._moment == "after"):
                self.died = True
                raise Killed


def shown(bucket: Bucket) -> dict[str, bytes]:
    """Files that a reader shows: those of the manifest, and all that is there when there is none."""
    visible = bucket.visible("sales")
    if visible is not None:
        return visible[1]
    folder = "sales/dags/"
    return {
        path.removeprefix("sales/"): bucket.get(path) for path in bucket.paths() if path.startswith(folder)
    }


def change(team: Team) -> None:
    """One file changed, one new, one gone."""
    team.write("daily", note="new")
    team.write("added")
    team.remove("dropped")


def prepare(bucket: Bucket, folder: Path, state: str) -> Team:
    team = Team(bucket, folder)
    team.write("daily")
    team.write("kept")
    team.write("dropped")
    if state == "released":
        team.publish()
    elif state == "copied":
        for path, content in team.files().items():
            bucket.put(f"sales/{path}", content)
    return team


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("state", ["nothing", "copied", "released"])
def test_publish_that_dies_at_any_request_is_seen_whole_or_not_at_all(
    s3_url: str, tmp_path: Path, state: str, moment: Literal["before", "after"]
) -> None:
    for number in range(1, MAX_REQUESTS):
        bucket = Bucket(s3_url)
        team = prepare(bucket, tmp_path / f"{number}", state)
        before = shown(bucket)
        change(team)
        store = bucket.store()
        dying = Dying(store, number, moment)
        try:
            team.publish(store, take_over=True)
        except Killed:
            assert dying.died
        if not dying.died:
            break
        now = shown(bucket)
        # Before the manifest is written all is as it was; with it the release is whole, at once.
        assert now in (before, team.files()), f"request {number}"
        healed = team.publish(take_over=True)
        assert shown(bucket) == team.files()
        assert healed.warnings == [] or state != "released"
        assert not read_catalog(bucket.store()).package("sales").drift
    else:
        pytest.fail("a publish makes more requests than anybody thought")
    assert number > {"nothing": 6, "copied": 9, "released": 7}[state]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_rollback_that_dies_at_any_request_is_seen_whole_or_not_at_all(
    s3_url: str, tmp_path: Path, moment: Literal["before", "after"]
) -> None:
    for number in range(1, MAX_REQUESTS):
        bucket = Bucket(s3_url)
        team = prepare(bucket, tmp_path / f"{number}", "released")
        first = shown(bucket)
        change(team)
        team.publish()
        second = shown(bucket)
        store = bucket.store()
        dying = Dying(store, number, moment)
        try:
            rollback(store, "sales", None, activated_by="bob")
        except Killed:
            assert dying.died
        if not dying.died:
            break
        assert shown(bucket) in (first, second), f"request {number}"
        release = bucket.visible("sales")
        assert release is not None
        if release[1] == second:
            rollback(bucket.store(), "sales", None, activated_by="bob")
        assert shown(bucket) == first
    else:
        pytest.fail("a rollback makes more requests than anybody thought")
    assert number > 6


def test_s3_that_fails_for_a_moment_is_asked_again(team: Team) -> None:
    store = team.bucket.store()
    failures = iter(range(3))

    def fail(**_: object) -> None:
        for number in failures:
            raise ConnectionClosedError(endpoint_url=f"http://s3/{number}")

    store.client.meta.events.register("before-send.s3.PutObject", fail)
    result = team.publish(store)
    assert team.bucket.visible("sales") == (result.release, team.files())


def test_s3_that_keeps_failing_is_one_line_and_nothing_is_seen(team: Team) -> None:
    first = team.publish()
    before = team.bucket.visible("sales")
    team.write("daily", note="new")
    team.write("more")
    store = team.bucket.store()

    def fail(**_: object) -> None:
        raise ConnectionClosedError(endpoint_url="http://s3")

    store.client.meta.events.register("before-send.s3.PutObject", fail)
    with pytest.raises(UnreachableError, match="broke off") as caught:
        team.publish(store)
    assert "\n" not in str(caught.value)
    assert team.bucket.visible("sales") == before
    assert before is not None
    assert before[0] == first.release


def test_leftovers_that_cannot_be_removed_are_a_warning(team: Team) -> None:
    team.write("more")
    team.publish()
    team.remove("more")
    store = team.bucket.store()

    def fail(**_: object) -> None:
        raise ConnectionClosedError(endpoint_url="http://s3")

    store.client.meta.events.register("before-send.s3.DeleteObject", fail)
    result = team.publish(store)
    assert any("nobody sees them" in text for text in result.warnings)
    assert team.bucket.visible("sales") == (result.release, team.files())
    assert team.publish().outcome == "healed"


@pytest.mark.parametrize(
    ("status", "code", "error", "said"),
    [
        (403, "AccessDenied", "RefusedError", "S3 refuses to write"),
        (503, "SlowDown", "UnreachableError", "S3 failed to write"),
        (500, "InternalError", "UnreachableError", "S3 failed to write"),
        (403, "RequestTimeTooSkewed", "RefusedError", "clock"),
        (400, "BadDigest", "RefusedError", "BadDigest"),
    ],
)
def test_refusal_of_s3_in_the_middle_is_one_line_and_nothing_is_seen(
    team: Team, status: int, code: str, error: str, said: str
) -> None:
    from botocore.awsrequest import AWSResponse

    team.publish()
    before = team.bucket.visible("sales")
    team.write("daily", note="new")
    store = team.bucket.store()

    class Body:
        def stream(self) -> Any:
            yield f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()

    store.client.meta.events.register(
        "before-send.s3.PutObject", lambda request, **_: AWSResponse(request.url, status, {}, Body())
    )
    with pytest.raises(AirbridgeError, match=said) as caught:
        team.publish(store)
    assert type(caught.value).__name__ == error
    assert team.bucket.visible("sales") == before
