"""Settings: from flags and from the environment, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airbridge.errors import SettingsError
from airbridge.publisher._publish import whoami
from airbridge.publisher._settings import load_settings, package_name

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DAG_BUCKET", "ENVIRONMENT", "S3_ENDPOINT_URL", "AWS_ENDPOINT_URL", "AIRBRIDGE_API_URL"):
        monkeypatch.delenv(name, raising=False)


def test_defaults_are_those_of_the_local_stack() -> None:
    settings = load_settings()
    assert settings.where == "s3://airbridge-dags/dev/ at https://localhost:8443/s3"
    assert settings.airbridge_api_url == "http://localhost:8080"


def test_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_ENDPOINT_URL", "http://one:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://two:2")
    monkeypatch.setenv("ENVIRONMENT", "staging")
    assert load_settings().where == "s3://airbridge-dags/staging/ at http://one:1"
    flags = load_settings(s3_endpoint_url="http://three:3/", environment="prod", dag_bucket="b-1")
    assert flags.where == "s3://b-1/prod/ at http://three:3"
    monkeypatch.delenv("S3_ENDPOINT_URL")
    assert load_settings().s3_endpoint_url == "http://two:2"


def test_endpoint_that_is_set_and_empty_means_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_ENDPOINT_URL", "")
    assert load_settings().where == "s3://airbridge-dags/dev/"


@pytest.mark.parametrize("name", ["sales", "sales_eu", "s3_copy", "a" * 63])
def test_name_of_a_package(name: str) -> None:
    assert package_name(name) == name


@pytest.mark.parametrize(
    "name", ["", None, "Sales", "_a", "a_", "a__b", "a-b", "../a", "a/b", "1a", "a" * 64, "a\n", "é"]
)
def test_name_of_no_package_is_refused(name: str | None) -> None:
    with pytest.raises(SettingsError, match="package"):
        package_name(name)


def test_password_comes_from_its_file_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "password"
    file.write_text("from-file\n")
    monkeypatch.setenv("AIRBRIDGE_API_PASSWORD", "from-variable")
    assert load_settings().password() == "from-variable"
    monkeypatch.setenv("AIRBRIDGE_API_PASSWORD_FILE", str(file))
    settings = load_settings()
    assert settings.password() == "from-file"
    assert "from-variable" not in repr(settings)
    file.unlink()
    with pytest.raises(SettingsError, match="AIRBRIDGE_API_PASSWORD_FILE"):
        settings.password()


def test_who_publishes_is_a_printable_name() -> None:
    assert whoami("ana\n\x1b[31m\u202e@laptop") == "ana[31m@laptop"
    assert len(whoami("x" * 5000)) <= 200
    assert "@" in whoami()
    assert whoami("\n\n") == "unknown"
