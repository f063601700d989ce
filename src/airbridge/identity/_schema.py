"""The tables of the identity store: in a schema of their own, made and moved on step by step.

Airflow's own migrations never look at a schema that is not theirs, and neither do we at theirs.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["CHANGES_CHANNEL", "SCHEMA_VERSION", "migrate_schema", "schema_version"]

CHANGES_CHANNEL: Final = "airbridge_worker_changed"
"""Postgres notifies it of each worker that may do something else now; the payload is its name."""

# Any constant: it names the lock that two first starts at the same time meet at.
_LOCK: Final = 0x41_42_49_44  # "ABID"

_STEPS: Final = (
    """
    CREATE TABLE airbridge.worker (
        name        text PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
        queues      text[] NOT NULL CHECK (cardinality(queues) > 0),
        concurrency integer NOT NULL CHECK (concurrency > 0),
        connections text[] NOT NULL DEFAULT '{}',
        variables   text[] NOT NULL DEFAULT '{}',
        created_at  timestamptz NOT NULL DEFAULT now(),
        expires_at  timestamptz,
        revoked_at  timestamptz,
        last_seen   timestamptz
    );
    CREATE TABLE airbridge.worker_secret (
        id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        worker     text NOT NULL REFERENCES airbridge.worker (name) ON DELETE CASCADE,
        encrypted  text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        ends_at    timestamptz
    );
    CREATE INDEX worker_secret_worker ON airbridge.worker_secret (worker);
    CREATE TABLE airbridge.join_token (
        hash       bytea PRIMARY KEY,
        worker     text NOT NULL REFERENCES airbridge.worker (name) ON DELETE CASCADE,
        created_at timestamptz NOT NULL DEFAULT now(),
        expires_at timestamptz NOT NULL,
        used_at    timestamptz,
        used_by    text
    );
    CREATE INDEX join_token_worker ON airbridge.join_token (worker);
    -- Which worker was handed which part of a task. The edge provider overwrites the worker of a job when a
    -- later part goes elsewhere, while the earlier one may still be sending its log.
    CREATE TABLE airbridge.handed_out (
        dag_id     text NOT NULL,
        task_id    text NOT NULL,
        run_id     text NOT NULL,
        map_index  integer NOT NULL,
        try_number integer NOT NULL,
        worker     text NOT NULL,
        handed_at  timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (dag_id, task_id, run_id, map_index, try_number, worker)
    );
    CREATE INDEX handed_out_handed_at ON airbridge.handed_out (handed_at);
    """,
    """
    CREATE TABLE airbridge.client_certificate (
        serial     text PRIMARY KEY,
        worker     text NOT NULL REFERENCES airbridge.worker (name) ON DELETE CASCADE,
        issued_at  timestamptz NOT NULL DEFAULT now(),
        not_after  timestamptz NOT NULL,
        -- Before not_after where a newer one took its place, or the enrolment ended.
        ends_at    timestamptz NOT NULL
    );
    CREATE INDEX client_certificate_worker ON airbridge.client_certificate (worker, issued_at);
    """,
    """
    -- Who joined with a token, so that it may ask again for what it was given when the answer was lost.
    ALTER TABLE airbridge.join_token
        ADD COLUMN proof  bytea,
        ADD COLUMN secret bigint REFERENCES airbridge.worker_secret (id) ON DELETE SET NULL;
    """,
    """
    -- Under which id the worker's courier asked for the job: it asks again under the same one when the answer
    -- got lost on the way.
    ALTER TABLE airbridge.handed_out ADD COLUMN fetch_id text;
    CREATE UNIQUE INDEX handed_out_fetch ON airbridge.handed_out (worker, fetch_id);
    """,
    """
    CREATE TABLE airbridge.publisher (
        name       text PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
        packages   text[] NOT NULL CHECK (cardinality(packages) > 0),
        created_at timestamptz NOT NULL DEFAULT now(),
        expires_at timestamptz,
        revoked_at timestamptz,
        last_seen  timestamptz
    );
    CREATE TABLE airbridge.publisher_secret (
        id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        publisher  text NOT NULL REFERENCES airbridge.publisher (name) ON DELETE CASCADE,
        encrypted  text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        ends_at    timestamptz
    );
    CREATE INDEX publisher_secret_publisher ON airbridge.publisher_secret (publisher);
    """,
    # Not for last_seen, which changes all the time, nor for a secret that is added: nothing ends with it.
    f"""
    CREATE FUNCTION airbridge.announce_worker() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('{CHANGES_CHANNEL}', OLD.name);
        RETURN NULL;
    END $$;
    CREATE TRIGGER worker_changed
        AFTER UPDATE OF queues, concurrency, expires_at, revoked_at OR DELETE ON airbridge.worker
        FOR EACH ROW EXECUTE FUNCTION airbridge.announce_worker();
    CREATE FUNCTION airbridge.announce_worker_secret() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('{CHANGES_CHANNEL}', OLD.worker);
        RETURN NULL;
    END $$;
    CREATE TRIGGER worker_secret_ended AFTER UPDATE OF ends_at OR DELETE ON airbridge.worker_secret
        FOR EACH ROW EXECUTE FUNCTION airbridge.announce_worker_secret();
    """,
    """
    -- One number for all enrolments, which each change to them moves on: whoever remembers some of them asks
    -- for it, instead of for each one again.
    CREATE TABLE airbridge.revision (number bigint NOT NULL);
    CREATE UNIQUE INDEX revision_one_row ON airbridge.revision ((true));
    INSERT INTO airbridge.revision VALUES (0);
    CREATE FUNCTION airbridge.revise() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE airbridge.revision SET number = number + 1;
        RETURN NULL;
    END $$;
    -- At the end of a transaction: nobody waits for another row while it has that one. When somebody was seen
    -- last is no change.
    CREATE CONSTRAINT TRIGGER revise AFTER INSERT OR DELETE OR UPDATE OF
        name, queues, concurrency, connections, variables, created_at, expires_at, revoked_at
        ON airbridge.worker DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION airbridge.revise();
    CREATE CONSTRAINT TRIGGER revise AFTER INSERT OR DELETE OR UPDATE ON airbridge.worker_secret
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION airbridge.revise();
    CREATE CONSTRAINT TRIGGER revise AFTER INSERT OR DELETE OR UPDATE ON airbridge.client_certificate
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION airbridge.revise();
    CREATE CONSTRAINT TRIGGER revise AFTER INSERT OR DELETE OR UPDATE OF
        name, packages, created_at, expires_at, revoked_at
        ON airbridge.publisher DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION airbridge.revise();
    CREATE CONSTRAINT TRIGGER revise AFTER INSERT OR DELETE OR UPDATE ON airbridge.publisher_secret
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION airbridge.revise();
    """,
)

SCHEMA_VERSION: Final = len(_STEPS)
"""What this release works with."""


def schema_version(connection: Any) -> int:
    """Return the version of the tables that are there; 0: none."""
    with connection, connection.cursor() as cursor:
        return _version(cursor)


def _version(cursor: Any) -> int:
    cursor.execute("SELECT to_regclass('airbridge.schema_version')")
    if cursor.fetchone()[0] is None:
        return 0
    cursor.execute("SELECT max(version) FROM airbridge.schema_version")
    return int(cursor.fetchone()[0] or 0)


def migrate_schema(connection: Any, to: int = SCHEMA_VERSION) -> bool:
    """Bring the tables to a version, all or nothing; returns whether anything was to do.

    :param to: an older one is for tests of the steps after it
    """
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        there = _version(cursor)
        if there >= to:
            return False
        cursor.execute("CREATE SCHEMA IF NOT EXISTS airbridge")
        cursor.execute(
            "CREATE TABLE IF NOT EXISTS airbridge.schema_version"
            " (version integer PRIMARY KEY, made_at timestamptz NOT NULL DEFAULT now())"
        )
        for number, step in enumerate(_STEPS[there:to], start=there + 1):
            cursor.execute(step)
            cursor.execute("INSERT INTO airbridge.schema_version (version) VALUES (%s)", (number,))
    return True
