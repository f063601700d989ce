#!/bin/bash
# Starts Postgres 15: makes the cluster on the first start, and sets the password on every start, so
# that a rotated secret takes effect with a restart.
set -euo pipefail

readonly password_file=/secrets/postgres/db-password
readonly database=airflow

if [ ! -r "$password_file" ] || [ ! -s "$password_file" ]; then
  echo "postgres: $password_file is missing, empty or not readable by uid $(id -u) | fix: start the 'secrets' service first (docker compose up does)" >&2
  exit 2
fi
if [ ! -w "$(dirname "$PGDATA")" ]; then
  echo "postgres: volume $(dirname "$PGDATA") is not writable by uid $(id -u) | fix: remove the volume or chown it to 50000" >&2
  exit 2
fi

single() { # data folder, database; the statement comes on stdin
  postgres --single -D "$1" -c config_file=/etc/airbridge/postgresql.conf -c data_directory="$1" "$2" >/dev/null
}

# The pid in a lock file of an earlier container says nothing here, yet Postgres may find a process of
# that number and refuse to start. One container uses this volume, and it is this one.
rm -f "$PGDATA/postmaster.pid"

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  # All of it in a temporary folder, then a rename: a start that was killed half-way begins anew.
  rm -rf "$PGDATA.new"
  initdb --pgdata "$PGDATA.new" --username airflow --auth-local trust --auth-host scram-sha-256 \
    --encoding UTF8 --locale C.UTF-8 --data-checksums >/dev/null
  echo "CREATE DATABASE $database" | single "$PGDATA.new" postgres
  mv "$PGDATA.new" "$PGDATA"
fi

password=$(cat "$password_file")
# Doubled quotes are all that a standard SQL string needs.
echo "ALTER ROLE airflow PASSWORD '${password//\'/\'\'}'" | single "$PGDATA" postgres
unset password

exec postgres -D "$PGDATA" -c config_file=/etc/airbridge/postgresql.conf -c data_directory="$PGDATA"
