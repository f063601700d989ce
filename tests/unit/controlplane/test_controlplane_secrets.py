"""Secrets: made once, private to their audience, overridable, and never half-written."""

from __future__ import annotations

import base64
import stat
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airbridge.controlplane import __main__ as command
from airbridge.controlplane._secrets import SECRETS, ensure_secrets, read_secret
from airbridge.errors import AirbridgeError, SettingsError

if TYPE_CHECKING:
    from pathlib import Path

PUBLIC = [secret.public for secret in SECRETS if secret.public]
AUDIENCES = sorted(
    {audience for secret in SECRETS for audience in secret.audiences} | {part.audience for part in PUBLIC}
)
NAMES = [secret.name for secret in SECRETS]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The mount point of the secrets volumes, all empty."""
    for folder in (*AUDIENCES, "overrides"):
        (tmp_path / folder).mkdir()
    return tmp_path


def _ensure(root: Path, **environment: str) -> list[str]:
    return ensure_secrets(root, root / "overrides", environment)


def _files(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text()
        for audience in AUDIENCES
        for path in (root / audience).iterdir()
    }


def _pem(key: object) -> str:
    assert hasattr(key, "private_bytes")
    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem.decode()


def test_first_start_makes_every_secret_for_each_of_its_audiences(root: Path) -> None:
    lines = _ensure(root)
    expected = {f"{audience}/{secret.name}" for secret in SECRETS for audience in secret.audiences}
    expected |= {f"{part.audience}/{part.name}" for part in PUBLIC}
    assert set(_files(root)) == expected
    assert {line.split(":")[0] for line in lines} == expected
    assert all(line.endswith("made (generated)") for line in lines)


def test_every_secret_is_readable_by_its_owner_only(root: Path) -> None:
    _ensure(root)
    modes = {stat.S_IMODE((root / name).stat().st_mode) for name in _files(root)}
    assert modes == {0o600}


def test_code_that_parses_dags_sees_no_signing_key(root: Path) -> None:
    # What the dag-processor mounts is the folder 'control'.
    _ensure(root)
    assert {path.name for path in (root / "control").iterdir()} == {
        "db-password",
        "fernet-key",
        "session-secret",
    }
    assert {path.name for path in (root / "postgres").iterdir()} == {"db-password"}


def test_second_start_changes_nothing(root: Path) -> None:
    _ensure(root)
    before = _files(root)
    times = {name: (root / name).stat().st_mtime_ns for name in before}
    assert _ensure(root) == []
    assert _files(root) == before
    assert {name: (root / name).stat().st_mtime_ns for name in before} == times


def test_two_installations_share_no_secret(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    for audience in AUDIENCES:
        (other / audience).mkdir()
    _ensure(root)
    _ensure(other)
    assert not set(_files(root).values()) & set(_files(other).values())


def test_made_secrets_are_of_the_kind_that_their_readers_take(root: Path) -> None:
    _ensure(root)
    assert len(base64.urlsafe_b64decode(read_secret(root, "fernet-key"))) == 32
    key = load_pem_private_key(read_secret(root, "jwt-private-key").encode(), password=None)
    assert isinstance(key, Ed25519PrivateKey)
    # RFC 7518, section 3.2: a key for HS512 has at least 512 bits.
    assert all(len(read_secret(root, name)) >= 64 for name in ("session-secret", "internal-edge-secret"))


def test_made_secrets_pass_the_checks_of_overrides() -> None:
    assert [secret.name for secret in SECRETS if secret.problem_of(secret.make().strip())] == []


def test_environment_overrides_a_file_which_overrides_what_is_there(root: Path) -> None:
    _ensure(root)
    (root / "overrides" / "admin-password").write_text("from-a-file\n")
    assert _ensure(root) == ["signing/admin-password: changed (secret file admin-password)"]
    assert read_secret(root, "admin-password") == "from-a-file"
    lines = _ensure(root, AIRBRIDGE_ADMIN_PASSWORD="from-environment")
    assert lines == ["signing/admin-password: changed (AIRBRIDGE_ADMIN_PASSWORD)"]
    assert read_secret(root, "admin-password") == "from-environment"


def test_an_override_that_is_taken_away_leaves_its_value(root: Path) -> None:
    _ensure(root, AIRBRIDGE_ADMIN_PASSWORD="from-environment")
    assert _ensure(root) == []
    assert read_secret(root, "admin-password") == "from-environment"


def test_empty_overrides_count_as_none(root: Path) -> None:
    (root / "overrides" / "session-secret").write_text("\n")
    lines = _ensure(root, AIRBRIDGE_SESSION_SECRET="", AIRBRIDGE_DB_PASSWORD="  ")
    assert "control/session-secret: made (generated)" in lines
    assert len(read_secret(root, "session-secret")) >= 64


def test_missing_folder_of_overrides_is_no_problem(root: Path) -> None:
    (root / "overrides").rmdir()
    assert _ensure(root)


def test_lines_about_secrets_hold_no_secret(root: Path) -> None:
    lines = "\n".join(_ensure(root, AIRBRIDGE_ADMIN_PASSWORD="hunter2hunter2"))
    assert not [value for value in _files(root).values() if value.strip() in lines]


def test_every_audience_gets_the_overridden_value(root: Path) -> None:
    _ensure(root)
    _ensure(root, AIRBRIDGE_DB_PASSWORD="p" * 24)
    both = [(root / audience / "db-password").read_text() for audience in ("control", "postgres")]
    assert both == ["p" * 24] * 2


def test_audiences_agree_again_after_a_change_that_was_cut_short(root: Path) -> None:
    _ensure(root)
    (root / "postgres/db-password").unlink()
    known = (root / "control/db-password").read_text()
    assert _ensure(root) == ["postgres/db-password: made (generated)"]
    assert (root / "postgres/db-password").read_text() == known
    (root / "postgres/db-password").write_text("an-older-one")
    assert _ensure(root) == ["postgres/db-password: changed (generated)"]
    assert (root / "postgres/db-password").read_text() == (root / "control/db-password").read_text()


def test_first_audience_takes_over_what_the_second_has(root: Path) -> None:
    _ensure(root)
    known = (root / "postgres/db-password").read_text()
    (root / "control/db-password").unlink()
    _ensure(root)
    assert (root / "control/db-password").read_text() == known


@pytest.mark.parametrize("rest", ["", "half a val"])
def test_temporary_file_of_a_killed_start_is_cleaned_up(root: Path, rest: str) -> None:
    (root / "signing/.internal-edge-secret.new").write_text(rest)
    _ensure(root)
    assert len(read_secret(root, "internal-edge-secret")) >= 64
    assert not list(root.rglob(".*"))


def test_empty_file_counts_as_missing(root: Path) -> None:
    # What a crash between create and write leaves on some file systems.
    _ensure(root)
    (root / "control/db-password").write_text("")
    (root / "postgres/db-password").write_bytes(b"\xff\xfe")
    lines = _ensure(root)
    assert [line.split(":")[0] for line in lines] == ["control/db-password", "postgres/db-password"]
    assert (root / "control/db-password").read_text() == (root / "postgres/db-password").read_text()


def test_mode_that_was_loosened_is_tightened(root: Path) -> None:
    _ensure(root)
    (root / "signing/admin-password").chmod(0o644)
    assert _ensure(root) == ["signing/admin-password: mode set to 0600"]
    assert stat.S_IMODE((root / "signing/admin-password").stat().st_mode) == 0o600


BAD_OVERRIDES = {
    "AIRBRIDGE_ADMIN_PASSWORD": ("short", "has 5 characters, needs at least 8"),
    "AIRBRIDGE_DB_PASSWORD": ("with\nnewline", "holds control characters"),
    "AIRBRIDGE_INTERNAL_EDGE_SECRET": ("x" * 63, "has 63 characters, needs at least 64"),
    "AIRBRIDGE_SESSION_SECRET": ("x" * 40 + " ä" + "x" * 40, "do not fit an HTTP header"),
    "AIRBRIDGE_FERNET_KEY": (base64.urlsafe_b64encode(b"16 bytes is less").decode(), "decodes to 16 bytes"),
    "AIRBRIDGE_JWT_PRIVATE_KEY": ("-----BEGIN NOTHING-----", "is not an unencrypted PEM private key"),
}


@pytest.mark.parametrize("variable", BAD_OVERRIDES)
def test_bad_override_is_named_with_what_is_wrong(root: Path, variable: str) -> None:
    value, problem = BAD_OVERRIDES[variable]
    with pytest.raises(SettingsError, match=rf"{variable} .*{problem}") as caught:
        _ensure(root, **{variable: value})
    assert caught.value.exit_code == 2
    assert value not in str(caught.value)


def test_all_bad_overrides_are_named_at_once_and_nothing_is_written(root: Path) -> None:
    (root / "overrides" / "admin-password").write_bytes(b"\xff\xff\xff\xff\xff\xff\xff\xff")
    (root / "overrides" / "session-secret").mkdir()
    environment = {
        name: value
        for name, (value, _) in BAD_OVERRIDES.items()
        if name not in ("AIRBRIDGE_ADMIN_PASSWORD", "AIRBRIDGE_SESSION_SECRET")
    }
    with pytest.raises(SettingsError) as caught:
        _ensure(root, **environment)
    message = str(caught.value)
    assert all(name in message for name in environment)
    assert "secret file admin-password is not text" in message
    assert "secret file session-secret cannot be read" in message
    assert "\n" not in message
    assert _files(root) == {}


def test_rsa_key_is_refused_because_its_tokens_do_not_fit(root: Path) -> None:
    rsa = _pem(generate_private_key(public_exponent=65537, key_size=2048))
    with pytest.raises(SettingsError, match="AIRBRIDGE_JWT_PRIVATE_KEY is not an Ed25519 key"):
        _ensure(root, AIRBRIDGE_JWT_PRIVATE_KEY=rsa)


def test_key_of_the_operator_is_taken(root: Path) -> None:
    mine = _pem(Ed25519PrivateKey.generate())
    _ensure(root, AIRBRIDGE_JWT_PRIVATE_KEY=mine)
    assert read_secret(root, "jwt-private-key") == mine.strip()


def test_folder_that_cannot_be_written_is_one_line(root: Path) -> None:
    # A file where the folder should be fails for root too, as a read-only volume does for everybody else.
    (root / "signing").rmdir()
    (root / "signing").write_text("")
    with pytest.raises(
        AirbridgeError, match=r"signing/.* cannot be (read|written): Not a directory"
    ) as caught:
        _ensure(root)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=100))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_text_is_either_refused_or_kept_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    root = tmp_path_factory.mktemp("any", numbered=True)
    for audience in AUDIENCES:
        (root / audience).mkdir()
    try:
        _ensure(root, AIRBRIDGE_ADMIN_PASSWORD=text)
    except SettingsError:
        assert _files(root) == {}
    else:
        kept = read_secret(root, "admin-password")
        assert kept == text.strip() if text.strip() else len(kept) == 24
        assert _ensure(root, AIRBRIDGE_ADMIN_PASSWORD=text) == []


@pytest.fixture
def mounted(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, as the command finds it."""
    monkeypatch.setattr(command, "_SECRETS_ROOT", root)
    for secret in SECRETS:
        monkeypatch.delenv(secret.variable, raising=False)
    return root


def test_show_prints_the_value_and_nothing_else(mounted: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _ensure(mounted, AIRBRIDGE_ADMIN_PASSWORD="correct horse battery")
    assert command.main(["show", "admin-password"]) == 0
    assert capfd.readouterr() == ("correct horse battery\n", "")


@pytest.mark.parametrize(
    ("name", "says"),
    [("nonsense", "no secret is called 'nonsense'"), ("session-secret", "does not exist yet")],
)
def test_show_of_what_is_not_there_is_one_line_on_stderr(
    mounted: Path, capfd: pytest.CaptureFixture[str], name: str, says: str
) -> None:
    assert command.main(["show", name]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1


def test_show_names_every_secret_that_there_is(mounted: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command.main(["show", "../../etc/passwd"])
    err = capfd.readouterr().err
    assert all(name in err for name in NAMES)


def test_command_makes_secrets_once(
    mounted: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRBRIDGE_ADMIN_PASSWORD", "correct horse battery")
    assert command.main(["secrets"]) == 0
    out = capfd.readouterr().out
    assert "secrets: signing/admin-password: made (AIRBRIDGE_ADMIN_PASSWORD)\n" in out
    assert "correct horse" not in out
    assert command.main(["secrets"]) == 0
    assert capfd.readouterr().out == "secrets: all there, nothing changed\n"


def test_command_refuses_bad_overrides_with_exit_code_2(
    mounted: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRBRIDGE_ADMIN_PASSWORD", "short")
    assert command.main(["secrets"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("airbridge: AIRBRIDGE_ADMIN_PASSWORD has 5 characters")
    assert _files(mounted) == {}
