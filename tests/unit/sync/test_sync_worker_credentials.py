"""On an edge host dag-sync signs with the worker's credential, whenever that comes and however it changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airbridge.credential import Credential, JoinToken
from airbridge.errors import SettingsError
from airbridge.sync._worker_credentials import is_replaced, is_waiting, worker_credentials
from airbridge.token_source import StoredCredential

if TYPE_CHECKING:
    from pathlib import Path


def test_elsewhere_credentials_come_the_standard_way_of_aws() -> None:
    for environ in ({}, {"CONTROL_PLANE_TOKEN": "", "CONTROL_PLANE_TOKEN_FILE": ""}):
        assert worker_credentials(environ) is None
        assert is_waiting(environ) == ""
        assert not is_replaced(environ)


def test_changed_token_file_is_followed(tmp_path: Path) -> None:
    token = tmp_path / "token"
    read = worker_credentials({"CONTROL_PLANE_TOKEN_FILE": str(token)})
    assert read is not None
    for credential in (Credential.new("north-1"), Credential.new("north-1")):
        token.write_text(f"{credential.text}\n")
        assert (read().access_key, read().secret_key, read().token) == ("north-1", credential.secret, "")


def test_host_that_joins_is_waited_for(tmp_path: Path) -> None:
    join = JoinToken.new("north-1")
    environ = {"CONTROL_PLANE_TOKEN": join.text, "EDGE_STATE_DIR": str(tmp_path)}
    read = worker_credentials(environ)
    assert read is not None
    assert "has not joined yet" in is_waiting(environ)
    with pytest.raises(SettingsError, match="has not joined yet"):
        read()
    credential = Credential.new("north-1")
    StoredCredential(tmp_path).write(credential, join)
    assert is_waiting(environ) == ""
    assert read().secret_key == credential.secret


def test_malformed_token_is_said_by_a_pass_and_not_waited_for() -> None:
    environ = {"CONTROL_PLANE_TOKEN": "nonsense"}
    assert is_waiting(environ) == ""
    read = worker_credentials(environ)
    assert read is not None
    with pytest.raises(SettingsError, match="is not a worker's credential"):
        read()


def test_file_that_another_one_took_the_place_of_is_noticed(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("x")
    with token.open() as held:  # as a container holds the file that it mounted
        environ = {"CONTROL_PLANE_TOKEN_FILE": f"/proc/self/fd/{held.fileno()}"}
        assert not is_replaced(environ)
        token.unlink()
        assert is_replaced(environ)
