"""Enrolments on a real Postgres: what is kept, what is good for how long, and what two at once may do."""

from __future__ import annotations

import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.fernet import Fernet

from airbridge.credential import Credential, JoinToken, new_proof
from airbridge.errors import IntegrityError, RefusedError, UnreachableError
from airbridge.identity.authority import Authority
from airbridge.identity.database import Database
from airbridge.identity.jobs import Job, JobKey, Jobs
from airbridge.identity.model import Allowance, IssuedCertificate
from airbridge.identity.publishers import PublisherStore
from airbridge.identity.store import (
    SCHEMA_VERSION,
    Cipher,
    JoinRefusedError,
    WorkerStore,
    migrate_schema,
    schema_version,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Postgres

ALLOWED = Allowance(("default", "gpu"), 4, ("warehouse",), ())
HOUR = timedelta(hours=1)


def _enrolled(store: WorkerStore, name: str = "north-1") -> Credential:
    credential = Credential.new(name)
    store.enroll(name, ALLOWED, credential=credential)
    return credential


def _secrets(store: WorkerStore, name: str = "north-1") -> tuple[str, ...]:
    worker = store.find(name)
    assert worker is not None
    return worker.secrets


# --- tables -----------------------------------------------------------------------------------------


def test_tables_are_made_once_and_stay(postgres: Postgres, store: WorkerStore) -> None:
    _enrolled(store)
    connection = postgres.connect()
    assert schema_version(connection) == SCHEMA_VERSION
    assert migrate_schema(connection) is False
    connection.close()
    assert store.find("north-1") is not None


def test_two_first_starts_at_once_make_them_once(postgres: Postgres, database: Database) -> None:
    with database.cursor() as cursor:
        cursor.execute("DROP SCHEMA airbridge CASCADE")
    connections = [postgres.connect() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(migrate_schema, connections))
    assert sorted(made) == [False] * 7 + [True]
    for connection in connections:
        connection.close()


# --- enrolling --------------------------------------------------------------------------------------


def test_enrolment_is_found_as_it_was_made(store: WorkerStore) -> None:
    expires = datetime.now(UTC) + HOUR
    credential = Credential.new("north-1")
    store.enroll("north-1", ALLOWED, expires_at=expires, credential=credential)
    worker = store.find("north-1")
    assert worker is not None
    assert (worker.name, worker.allowance, worker.expires_at) == ("north-1", ALLOWED, expires)
    assert worker.secrets == (credential.secret,)
    assert worker.state(datetime.now(UTC)) == "enrolled"
    assert worker.state(expires + HOUR) == "expired"
    assert store.find("nobody") is None


def test_secrets_lie_encrypted(store: WorkerStore, database: Database) -> None:
    credential = _enrolled(store)
    join = store.new_join_token("north-1")
    with database.cursor() as cursor:
        cursor.execute("SELECT encrypted FROM airbridge.worker_secret")
        [(stored,)] = cursor.fetchall()
        cursor.execute("SELECT encode(hash, 'escape'), row(t.*)::text FROM airbridge.join_token t")
        [row] = cursor.fetchall()
    assert credential.secret not in stored
    assert join.secret not in str(row)


def test_another_fernet_key_is_one_clear_line(store: WorkerStore, database: Database) -> None:
    _enrolled(store)
    other = WorkerStore(database, Cipher(Fernet.generate_key().decode()))
    with pytest.raises(IntegrityError, match="another Fernet key"):
        other.find("north-1")


def test_fernet_key_may_be_rotated(store: WorkerStore, database: Database, fernet_key: str) -> None:
    credential = _enrolled(store)
    new = Fernet.generate_key().decode()
    both = WorkerStore(database, Cipher(f"{new},{fernet_key}"))
    assert _secrets(both) == (credential.secret,)
    with pytest.raises(IntegrityError):
        _secrets(WorkerStore(database, Cipher(new)))
    assert both.reencrypt() == 1
    assert _secrets(WorkerStore(database, Cipher(new))) == (credential.secret,)


def test_name_is_enrolled_once(store: WorkerStore) -> None:
    credential = _enrolled(store)
    with pytest.raises(RefusedError, match="worker 'north-1' is enrolled"):
        _enrolled(store)
    assert _secrets(store) == (credential.secret,)


def test_revoked_worker_is_enrolled_anew_with_nothing_of_the_old(store: WorkerStore) -> None:
    _enrolled(store)
    store.mark_seen({"north-1": 0.0})
    assert store.revoke("north-1") is True
    assert store.revoke("north-1") is False
    again = _enrolled(store)
    worker = store.find("north-1")
    assert worker is not None
    assert worker.secrets == (again.secret,)
    assert (worker.revoked_at, worker.last_seen) == (None, None)


def test_update_changes_what_it_may_do_and_not_what_it_holds(store: WorkerStore) -> None:
    credential = _enrolled(store)
    changed = Allowance(("other",), 1, (), ("threshold",))
    store.update("north-1", changed, None)
    worker = store.find("north-1")
    assert worker is not None
    assert (worker.allowance, worker.secrets) == (changed, (credential.secret,))


@pytest.mark.parametrize("what", ["update", "rotate", "join token", "revoke"])
def test_nothing_is_done_for_a_name_that_nobody_has(store: WorkerStore, what: str) -> None:
    calls = {
        "update": lambda: store.update("nobody", ALLOWED, None),
        "rotate": lambda: store.rotate("nobody", HOUR),
        "join token": lambda: store.new_join_token("nobody"),
        "revoke": lambda: store.revoke("nobody"),
    }
    with pytest.raises(RefusedError, match="no worker 'nobody' is enrolled"):
        calls[what]()


def test_last_seen_is_kept(store: WorkerStore) -> None:
    _enrolled(store)
    before = datetime.now(UTC) - timedelta(seconds=5)
    store.mark_seen({"north-1": 1.5, "nobody": 0.0})
    worker = store.find("north-1")
    assert worker is not None
    assert worker.last_seen is not None
    assert worker.last_seen > before


def test_revision_moves_on_with_each_change_of_an_enrolment_and_not_when_somebody_is_seen(
    store: WorkerStore, database: Database, fernet_key: str
) -> None:
    publishers = PublisherStore(database, Cipher(fernet_key))
    certificate = IssuedCertificate("north-1", "4711", datetime.now(UTC), datetime.now(UTC) + HOUR, "PEM")
    changes: list[Callable[[], object]] = [
        lambda: _enrolled(store),
        lambda: store.update("north-1", replace(ALLOWED, concurrency=5), None),
        lambda: store.rotate("north-1", HOUR),
        lambda: store.add_certificate(certificate),
        lambda: store.join(store.new_join_token("north-1"), "192.0.2.1"),
        store.reencrypt,
        lambda: store.revoke("north-1"),
        lambda: publishers.enroll(Credential.new("team-a"), ("orders",)),
        lambda: publishers.update("team-a", ("reporting",), None),
        lambda: publishers.rotate("team-a", HOUR),
        lambda: publishers.revoke("team-a"),
    ]
    known = {store.revision()}
    for number, change in enumerate(changes, start=2):
        change()
        known.add(store.revision())
        assert len(known) == number, f"change {number - 2} is not seen"
    store.mark_seen({"north-1": 0.0})
    publishers.mark_seen({"team-a": 0.0})
    store.new_join_token(_enrolled(store, "south-2").name)
    before = store.revision()
    store.mark_seen({"south-2": 0.0})
    assert store.revision() == before


def test_revision_and_the_change_are_seen_together(postgres: Postgres, store: WorkerStore) -> None:
    _enrolled(store)
    before = store.revision()
    other = postgres.connect()
    with other, other.cursor() as cursor:
        cursor.execute("UPDATE airbridge.worker SET concurrency = 1 WHERE name = 'north-1'")
        # Nobody waits for it either: the revision is moved on by the commit.
        assert store.revision() == before
        _enrolled(store, "south-2")
        between = store.revision()
    other.close()
    assert len({before, between, store.revision()}) == 3


# --- rotating ---------------------------------------------------------------------------------------


def test_old_secret_is_good_until_its_overlap_is_over(store: WorkerStore) -> None:
    old = _enrolled(store)
    new = store.rotate("north-1", timedelta(seconds=1))
    assert _secrets(store) == (new.secret, old.secret)
    time.sleep(1.1)
    assert _secrets(store) == (new.secret,)


def test_never_more_than_two_secrets_are_good(store: WorkerStore) -> None:
    _enrolled(store)
    second = store.rotate("north-1", HOUR)
    third = store.rotate("north-1", HOUR)
    assert _secrets(store) == (third.secret, second.secret)


def test_worker_that_has_not_joined_yet_may_be_given_its_credential(store: WorkerStore) -> None:
    store.enroll("north-1", ALLOWED)
    assert _secrets(store) == ()
    credential = store.rotate("north-1", HOUR)
    assert _secrets(store) == (credential.secret,)


# --- joining ----------------------------------------------------------------------------------------


@pytest.fixture
def join(store: WorkerStore) -> JoinToken:
    store.enroll("north-1", ALLOWED)
    return store.new_join_token("north-1")


def _refused(store: WorkerStore, token: JoinToken) -> str:
    with pytest.raises(JoinRefusedError) as caught:
        store.join(token, "10.0.0.9")
    assert "the join token was not accepted" in str(caught.value)
    return caught.value.reason


def test_join_token_gives_a_credential_once(store: WorkerStore, join: JoinToken) -> None:
    assert _secrets(store) == ()
    credential = store.join(join, "10.0.0.9")
    assert _secrets(store) == (credential.secret,)
    assert _refused(store, join) == "join_token_replayed"
    assert _secrets(store) == (credential.secret,)


def test_one_of_many_at_once_gets_the_credential(store: WorkerStore, join: JoinToken) -> None:
    def trade(_: int) -> Credential | None:
        try:
            return store.join(join, "10.0.0.9")
        except JoinRefusedError:
            return None

    with ThreadPoolExecutor(16) as pool:
        traded = [credential for credential in pool.map(trade, range(32)) if credential]
    assert len(traded) == 1
    assert _secrets(store) == (traded[0].secret,)


def test_join_token_ends_by_itself(store: WorkerStore) -> None:
    store.enroll("north-1", ALLOWED)
    short = store.new_join_token("north-1", timedelta(milliseconds=1))
    time.sleep(0.01)
    assert _refused(store, short) == "join_token_expired"


def test_join_token_is_of_one_name(store: WorkerStore, join: JoinToken) -> None:
    store.enroll("south-2", ALLOWED)
    assert _refused(store, JoinToken("south-2", join.secret)) == "join_token_unknown"
    assert _refused(store, JoinToken.new("north-1")) == "join_token_unknown"


def test_newer_join_token_makes_the_older_one_worthless(store: WorkerStore, join: JoinToken) -> None:
    newer = store.new_join_token("north-1")
    assert _refused(store, join) == "join_token_unknown"
    store.join(newer, "10.0.0.9")


def test_revocation_and_a_new_enrolment_make_join_tokens_worthless(
    store: WorkerStore, join: JoinToken
) -> None:
    store.revoke("north-1")
    assert _refused(store, join) == "join_token_unknown"
    store.enroll("north-1", ALLOWED)
    assert _refused(store, join) == "join_token_unknown"


def test_enrolment_that_expired_is_not_joined(store: WorkerStore) -> None:
    store.enroll("north-1", ALLOWED, expires_at=datetime.now(UTC) + timedelta(seconds=1))
    join = store.new_join_token("north-1")
    time.sleep(1.1)
    assert _refused(store, join) == "worker_not_enrolled"


def test_joining_ends_what_the_worker_held_before(store: WorkerStore) -> None:
    _enrolled(store)
    credential = store.join(store.new_join_token("north-1"), "10.0.0.9")
    assert _secrets(store) == (credential.secret,)


# --- jobs -------------------------------------------------------------------------------------------

KEY = JobKey("etl", "extract", "manual__1", -1, 1)


def test_job_is_found_as_the_edge_provider_wrote_it(database: Database, jobs: Jobs) -> None:
    with database.cursor() as cursor:
        cursor.execute("DELETE FROM edge_job")
        cursor.execute(
            "INSERT INTO edge_job (dag_id, task_id, run_id, map_index, try_number, state, queue,"
            " concurrency_slots, command, edge_worker) VALUES"
            " ('etl', 'extract', 'manual__1', -1, 1, 'running', 'default', 1, '{}', 'north-1'),"
            " ('etl', 'load', 'manual__1', -1, 1, 'queued', 'default', 1, '{}', NULL)"
        )
    assert jobs.job(KEY) == Job("north-1", "running")
    assert jobs.job(JobKey("etl", "load", "manual__1", -1, 1)) == Job(None, "queued")
    assert jobs.job(JobKey("etl", "extract", "manual__1", -1, 2)) is None


@pytest.mark.usefixtures("no_jobs")
def test_job_knows_the_id_of_its_attempt(database: Database, jobs: Jobs) -> None:
    attempt = uuid.uuid4()
    _insert_job(database, "north-1", "running", workload={"ti": {"id": str(attempt)}})
    assert jobs.job(KEY) == Job("north-1", "running", attempt)


def _insert_job(
    database: Database,
    worker: str,
    state: str,
    *,
    task: str = "extract",
    slots: int = 1,
    age: str = "0 s",
    workload: dict[str, Any] | None = None,
) -> None:
    with database.cursor() as cursor:
        cursor.execute(
            "INSERT INTO edge_job (dag_id, task_id, run_id, map_index, try_number, state, queue,"
            " concurrency_slots, command, edge_worker, last_update) VALUES"
            " ('etl', %s, 'manual__1', -1, 1, %s, 'default', %s, %s, %s, now() - %s::interval)",
            (task, state, slots, json.dumps(workload or {}), worker, age),
        )


@pytest.fixture
def no_jobs(database: Database) -> None:
    with database.cursor() as cursor:
        cursor.execute("DELETE FROM edge_job")


def _hand_out(jobs: Jobs, key: JobKey, worker: str) -> None:
    jobs.turn(worker).end(key)


def test_handed_out_job_is_remembered_for_a_week(database: Database, jobs: Jobs) -> None:
    _hand_out(jobs, KEY, "north-1")
    _hand_out(jobs, KEY, "north-1")
    _hand_out(jobs, KEY, "south-2")
    assert jobs.was_handed_out(KEY, "north-1")
    assert jobs.was_handed_out(KEY, "south-2")
    assert not jobs.was_handed_out(KEY, "west-3")
    with database.cursor() as cursor:
        cursor.execute("UPDATE airbridge.handed_out SET handed_at = now() - interval '8 days'")
    _hand_out(jobs, JobKey("etl", "load", "manual__1", -1, 1), "north-1")
    assert not jobs.was_handed_out(KEY, "north-1")


@pytest.mark.usefixtures("no_jobs")
def test_turn_counts_the_slots_of_what_the_worker_runs_now(database: Database, jobs: Jobs) -> None:
    _insert_job(database, "north-1", "restarting", task="a")
    _insert_job(database, "north-1", "running", task="b", slots=3)
    _insert_job(database, "north-1", "success", task="c")
    _insert_job(database, "north-1", "queued", task="d")
    _insert_job(database, "north-1", "running", task="of a worker that was killed", age="2 min")
    _insert_job(database, "south-2", "running", task="e")
    for worker, held in {"north-1": 4, "south-2": 1, "west-3": 0}.items():
        turn = jobs.turn(worker)
        assert turn.held == held, worker
        turn.end()


@pytest.mark.usefixtures("no_jobs")
def test_only_one_fetches_for_a_worker_at_a_time(database: Database, jobs: Jobs, postgres: Postgres) -> None:
    """Two api-servers, each with a fetch of the same worker: the second one counts what the first took."""
    first = jobs.turn("north-1")
    other = Jobs(Database.at(postgres.uri))
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(other.turn, "north-1")
        unaffected = other.turn("south-2")  # does not wait for its neighbour
        unaffected.end()
        assert not second.done()
        _insert_job(database, "north-1", "restarting")
        first.end(KEY)
        turn = second.result(timeout=10)
    assert turn.held == 1
    turn.end()


# --- a lost answer to a join ------------------------------------------------------------------------


def test_host_that_did_not_get_the_answer_may_ask_again(store: WorkerStore, join: JoinToken) -> None:
    proof = new_proof()
    credential = store.join(join, "10.0.0.9", proof)
    assert store.join(join, "10.0.0.9", proof) == credential
    assert _secrets(store) == (credential.secret,)


@pytest.mark.parametrize("proof", ["", "another"])
def test_replay_by_somebody_else_is_refused(store: WorkerStore, join: JoinToken, proof: str) -> None:
    credential = store.join(join, "10.0.0.9", new_proof())
    with pytest.raises(JoinRefusedError) as caught:
        store.join(join, "10.0.0.66", proof and new_proof())
    assert caught.value.reason == "join_token_replayed"
    assert _secrets(store) == (credential.secret,)


def test_join_without_a_proof_is_not_repeated(store: WorkerStore, join: JoinToken) -> None:
    store.join(join, "10.0.0.9")
    with pytest.raises(JoinRefusedError):
        store.join(join, "10.0.0.9", "")


@pytest.mark.parametrize(
    "after",
    [
        "UPDATE airbridge.join_token SET used_at = now() - interval '11 minutes'",
        "UPDATE airbridge.worker SET revoked_at = now()",
        "DELETE FROM airbridge.worker_secret",
        "UPDATE airbridge.worker_secret SET ends_at = now() + interval '1 hour'",  # rotated
    ],
)
def test_join_is_repeated_only_while_its_credential_is_the_newest(
    database: Database, store: WorkerStore, join: JoinToken, after: str
) -> None:
    proof = new_proof()
    store.join(join, "10.0.0.9", proof)
    with database.cursor() as cursor:
        cursor.execute(after)
    with pytest.raises(JoinRefusedError) as caught:
        store.join(join, "10.0.0.9", proof)
    assert caught.value.reason == "join_token_replayed"


@pytest.mark.usefixtures("no_jobs")
def test_job_is_found_under_the_id_of_its_fetch_until_its_worker_says_something(
    database: Database, jobs: Jobs
) -> None:
    def hand_out(fetch_id: str) -> None:
        jobs.turn("north-1").end(KEY, fetch_id)

    def set_state(state: str) -> None:
        with database.cursor() as cursor:
            cursor.execute("DELETE FROM edge_job")
            cursor.execute(
                "INSERT INTO edge_job (dag_id, task_id, run_id, map_index, try_number, state, queue,"
                " concurrency_slots, command, edge_worker) VALUES"
                " ('etl', 'extract', 'manual__1', -1, 1, %s, 'default', 2, '{\"ti\": {}}', 'north-1')",
                (state,),
            )

    set_state("restarting")
    hand_out("first")
    handed = jobs.handed_out_under("first", "north-1")
    assert handed is not None
    assert json.loads(handed.answer) == {
        **{"dag_id": "etl", "task_id": "extract", "run_id": "manual__1", "map_index": -1, "try_number": 1},
        **{"concurrency_slots": 2, "command": {"ti": {}}},
    }
    assert jobs.handed_out_under("first", "south-2") is None
    hand_out("second")  # the next part of the same attempt
    assert jobs.handed_out_under("first", "north-1") is None
    assert jobs.handed_out_under("second", "north-1") is not None
    set_state("running")
    assert jobs.handed_out_under("second", "north-1") is None


@pytest.mark.usefixtures("no_jobs")
def test_question_whose_job_is_gone_may_be_answered_with_another(jobs: Jobs) -> None:
    other = replace(KEY, task_id="load")
    jobs.turn("north-1").end(KEY, "same")
    jobs.turn("north-1").end(other, "same")
    assert jobs.was_handed_out(KEY, "north-1")
    assert jobs.was_handed_out(other, "north-1")


# --- a database that goes away ----------------------------------------------------------------------


def test_restart_of_the_database_is_survived(postgres: Postgres, database: Database, fernet_key: str) -> None:
    again = type(database)(postgres.connect)
    store = WorkerStore(again, Cipher(fernet_key))
    _enrolled(store)
    postgres.container.kill()
    with pytest.raises(UnreachableError, match="Postgres cannot be used"):
        store.find("north-1")
    postgres.container.start()
    postgres.until_ready()
    assert store.find("north-1") is not None


# --- client certificates ------------------------------------------------------------------------------


AUTHORITY = Authority.new()


def _certificate(store: WorkerStore, name: str = "north-1", length: timedelta = HOUR) -> str:
    issued, _ = AUTHORITY.issue_with_key(name, length)
    store.add_certificate(issued)
    return issued.serial


def _serials(store: WorkerStore, name: str = "north-1") -> list[str]:
    worker = store.find(name)
    assert worker is not None
    return [held.serial for held in worker.certificates]


def test_certificate_is_good_from_its_record_to_its_expiry(store: WorkerStore) -> None:
    _enrolled(store)
    serial = _certificate(store)
    worker = store.find("north-1")
    assert worker is not None
    assert worker.holds_certificate(serial, datetime.now(UTC))
    assert not worker.holds_certificate(serial, datetime.now(UTC) + HOUR + timedelta(seconds=1))
    assert not worker.holds_certificate(str(int(serial) + 1), datetime.now(UTC))
    short = _certificate(store, length=timedelta(seconds=1))
    assert short in _serials(store)
    time.sleep(2)
    assert short not in _serials(store)


def test_newer_certificate_ends_the_one_before_ten_minutes_later(store: WorkerStore) -> None:
    _enrolled(store)
    first, second = _certificate(store), _certificate(store)
    assert _serials(store) == [second, first]
    worker = store.find("north-1")
    assert worker is not None
    ends = {held.serial: held.ends_at - datetime.now(UTC) for held in worker.certificates}
    assert timedelta(minutes=9) < ends[first] <= timedelta(minutes=10)
    assert ends[second] > timedelta(minutes=59)


def test_rotation_ends_the_certificate_with_the_secret_before(store: WorkerStore) -> None:
    _enrolled(store)
    serial = _certificate(store)
    store.rotate("north-1", timedelta(minutes=5))
    worker = store.find("north-1")
    assert worker is not None
    (held,) = worker.certificates
    assert held.serial == serial
    assert held.ends_at - datetime.now(UTC) <= timedelta(minutes=5)


def test_revocation_and_a_new_enrolment_end_every_certificate(store: WorkerStore) -> None:
    _enrolled(store)
    _enrolled(store, "south-2")
    _certificate(store)
    others = _certificate(store, "south-2")
    store.revoke("north-1")
    assert _serials(store) == []
    with pytest.raises(RefusedError, match="no worker"):
        _certificate(store)
    _enrolled(store)
    assert _serials(store) == []
    assert _serials(store, "south-2") == [others]


def test_join_brings_a_certificate_and_a_refused_one_brings_none(store: WorkerStore) -> None:
    store.enroll("north-1", ALLOWED)
    token = store.new_join_token("north-1")
    issued, _ = AUTHORITY.issue_with_key("north-1", HOUR)
    with pytest.raises(JoinRefusedError):
        store.join(JoinToken.new("north-1"), "test", issued=issued)
    assert _serials(store) == []
    store.join(token, "test", issued=issued)
    assert _serials(store) == [issued.serial]


def test_names_are_those_of_everyone_ever_enrolled(store: WorkerStore) -> None:
    assert store.names() == frozenset()
    _enrolled(store)
    _enrolled(store, "south-2")
    store.revoke("south-2")
    assert store.names() == {"north-1", "south-2"}


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_tables_of_an_earlier_release_are_moved_on_with_what_is_in_them(
    postgres: Postgres, store: WorkerStore, version: int
) -> None:
    connection = postgres.connect()
    with connection, connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA airbridge CASCADE")
    assert migrate_schema(connection, version) is True
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO airbridge.worker (name, queues, concurrency) VALUES ('old-1', '{default}', 4)"
        )
    assert migrate_schema(connection) is True
    connection.close()
    assert [worker.name for worker in store.all()] == ["old-1"]
    _enrolled(store)
    assert _serials(store) == []
