from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.edge.edge_servers import SECRET, TOKEN, WORKER

from airbridge.credential import Credential, JoinToken
from airbridge.edge.settings import load_settings
from airbridge.errors import SettingsError
from airbridge.token_source import StoredCredential


def _problems() -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


def test_complete_environment_is_read(edge_host, authority):
    edge_host(CONTROL_PLANE_CA_FILE=str(authority.file), CONTROL_PLANE_URL="https://control.example.com/")
    settings = load_settings()
    assert settings.worker_queues == ("default", "gpu")
    assert settings.control_plane_host == "control.example.com"
    assert settings.control_plane_port == 443
    assert settings.task_logs_url == "s3://airbridge-logs/dev/task-logs"
    assert settings.token == SECRET


def test_empty_optional_settings_count_as_unset(edge_host):
    edge_host(CONTROL_PLANE_CA_FILE="", CONTROL_PLANE_TOKEN_FILE="", ENVIRONMENT="", WORKER_CONCURRENCY="")
    settings = load_settings()
    assert settings.control_plane_ca_file is None
    assert settings.environment == "dev"
    assert settings.worker_concurrency == 8


def test_token_comes_from_a_file_without_its_newline(edge_host, tmp_path):
    (tmp_path / "token").write_text(TOKEN + "\n")
    edge_host(CONTROL_PLANE_TOKEN=None, CONTROL_PLANE_TOKEN_FILE=str(tmp_path / "token"))
    assert load_settings().token == SECRET


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("CONTROL_PLANE_URL", None, "is not set"),
        ("CONTROL_PLANE_URL", "http://control.example.com:8443", "must start with https://"),
        ("CONTROL_PLANE_URL", "https://", "names no host"),
        ("CONTROL_PLANE_URL", "https://control.example.com:84433", "not a valid address"),
        ("CONTROL_PLANE_URL", "https://control.example.com/airflow", "must end after the host and port"),
        ("CONTROL_PLANE_URL", "https://me:secret@control.example.com", "no password"),
        ("CONTROL_PLANE_TOKEN", None, "is not set"),
        ("CONTROL_PLANE_TOKEN", "changeme", "is not a worker's credential"),
        ("CONTROL_PLANE_TOKEN", "two words that are long enough", "is not a worker's credential"),
        ("CONTROL_PLANE_TOKEN", "e" * 64, "is not a worker's credential"),
        ("CONTROL_PLANE_TOKEN", f"join_{WORKER}.short", "is not a worker's credential"),
        ("CONTROL_PLANE_TOKEN", f"south-2.{SECRET}", "is of worker south-2, but WORKER_NAME is north-1"),
        ("CONTROL_PLANE_TOKEN", f"join_south-2.{SECRET}", "is of worker south-2, but WORKER_NAME is north-1"),
        ("CONTROL_PLANE_TOKEN_FILE", "/nowhere/token", "and so is CONTROL_PLANE_TOKEN_FILE"),
        ("CONTROL_PLANE_CA_FILE", "/nowhere/ca.pem", "No such file"),
        ("CONTROL_PLANE_CA_FILE", __file__, "holds no PEM certificate"),
        ("WORKER_NAME", None, "is not set"),
        ("WORKER_NAME", "North_1", "does not match"),
        ("WORKER_NAME", "n" * 64, "does not match"),
        ("WORKER_QUEUES", None, "is not set"),
        ("WORKER_QUEUES", "", "is not set"),
        ("WORKER_QUEUES", " , ", "empty queue name"),
        ("WORKER_QUEUES", "default,,gpu", "empty queue name"),
        ("WORKER_QUEUES", "default,a b", "does not match"),
        ("WORKER_QUEUES", ",".join(f"queue-{n:03}" for n in range(30)), "is too long"),
        ("WORKER_CONCURRENCY", "0", "greater than or equal to 1"),
        ("WORKER_CONCURRENCY", "257", "less than or equal to 256"),
        ("WORKER_CONCURRENCY", "many", "valid integer"),
        ("ENVIRONMENT", "../prod", "does not match"),
        ("DAG_BUCKET", "Bad_Bucket", "does not match"),
        ("LOG_BUCKET", "a", "does not match"),
        ("WORKER_DRAIN_TIMEOUT", "-1", "greater than or equal to 0"),
        ("EDGE_HEARTBEAT_INTERVAL", "0", "greater than or equal to 1"),
        ("UPLINK_URL", "uplink:8080", "must start with http:// or https://"),
    ],
)
def test_malformed_setting_is_one_line_with_name_problem_and_fix(edge_host, name, value, says):
    edge_host(**{name: value})
    (line,) = _problems()
    assert line.startswith(f"{name}: ") or name == "CONTROL_PLANE_TOKEN_FILE"
    assert says in line
    assert " | fix: " in line


def test_all_problems_are_reported_at_once(edge_host):
    edge_host(CONTROL_PLANE_URL="ftp://x", CONTROL_PLANE_TOKEN=None, WORKER_QUEUES="", WORKER_CONCURRENCY="x")
    assert sorted(line.split(":")[0] for line in _problems()) == [
        "CONTROL_PLANE_TOKEN",
        "CONTROL_PLANE_URL",
        "WORKER_CONCURRENCY",
        "WORKER_QUEUES",
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b"\xff\xfe\x00", "is not text"),
        (b"short", "is not a worker's credential"),
    ],
)
def test_unusable_token_file_is_named(edge_host, tmp_path, content, says):
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    edge_host(CONTROL_PLANE_TOKEN=None, CONTROL_PLANE_TOKEN_FILE=str(path))
    (line,) = _problems()
    assert line.startswith("CONTROL_PLANE_TOKEN_FILE: ")
    assert says in line


@pytest.mark.parametrize("token", ["a secret with blanks " + "s" * 40, "sécret" + "s" * 40, "short-secret"])
def test_text_of_a_bad_token_is_never_printed(edge_host, token):
    edge_host(CONTROL_PLANE_TOKEN=token, WORKER_NAME="")
    assert not any(token in line or token[:8] in line for line in _problems())


def test_token_is_not_in_the_settings_representation(edge_host):
    edge_host()
    shown = repr(load_settings()) + str(load_settings()) + load_settings().model_dump_json()
    assert SECRET not in shown


def test_join_token_is_read_as_one_until_it_was_traded(edge_host, tmp_path):
    join = JoinToken.new(WORKER)
    edge_host(CONTROL_PLANE_TOKEN=join.text)
    assert load_settings().join_token == join
    traded = Credential.new(WORKER)
    (tmp_path / "state").mkdir()
    StoredCredential(tmp_path / "state").write(traded, join)
    settings = load_settings()
    assert (settings.join_token, settings.token) == (None, traded.secret)
    assert (tmp_path / "state" / "credential").stat().st_mode & 0o777 == 0o600


def test_credential_of_an_earlier_join_token_is_not_used_for_a_new_one(edge_host, tmp_path):
    (tmp_path / "state").mkdir()
    StoredCredential(tmp_path / "state").write(Credential.new(WORKER), JoinToken.new(WORKER))
    again = JoinToken.new(WORKER)
    edge_host(CONTROL_PLANE_TOKEN=again.text)
    assert load_settings().join_token == again


@pytest.mark.parametrize("content", ["", "half-a-cre", "south-2." + "s" * 64, "\xff"])
def test_credential_file_that_a_crash_left_behind_counts_as_none(edge_host, tmp_path, content):
    join = JoinToken.new(WORKER)
    (tmp_path / "state").mkdir()
    StoredCredential(tmp_path / "state").write(Credential.new(WORKER), join)
    (tmp_path / "state" / "credential").write_text(content)
    edge_host(CONTROL_PLANE_TOKEN=join.text)
    assert load_settings().join_token == join


def test_credential_wins_over_what_was_joined_before(edge_host, tmp_path):
    (tmp_path / "state").mkdir()
    StoredCredential(tmp_path / "state").write(Credential.new(WORKER), JoinToken.new(WORKER))
    edge_host()
    assert load_settings().token == SECRET


def test_repeated_queue_is_kept_once(edge_host):
    edge_host(WORKER_QUEUES="default, gpu ,default")
    assert load_settings().worker_queues == ("default", "gpu")


def test_state_dir_defaults_to_the_volume(edge_host):
    edge_host(EDGE_STATE_DIR=None)
    assert load_settings().edge_state_dir == Path("/var/lib/airbridge")
