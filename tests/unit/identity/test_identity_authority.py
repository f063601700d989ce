"""The CA of the client certificates, and the file that holds one with its key."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from airbridge.client_certificate import ClientCertificate, new_request
from airbridge.errors import SettingsError
from airbridge.identity.authority import Authority, RequestError
from airbridge.identity.model import duration

if TYPE_CHECKING:
    from pathlib import Path

MONTH = timedelta(days=30)
NAME = "north-1"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new()


def test_authority_is_the_same_after_it_was_written_and_read(authority: Authority) -> None:
    again = Authority.parse(authority.text)
    assert again.certificate == authority.certificate
    assert again.text == authority.text
    assert "PRIVATE KEY" not in authority.certificate_text
    assert "PRIVATE KEY" not in repr(authority)


@pytest.mark.parametrize(
    "text", ["", "nothing", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]
)
def test_text_that_is_no_authority_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        Authority.parse(text)


def test_key_of_another_and_certificate_of_no_ca_are_refused(authority: Authority) -> None:
    other = Authority.new()
    key = other.text.removesuffix(other.certificate_text)
    with pytest.raises(ValueError, match="its own certificate"):
        Authority.parse(key + authority.certificate_text)
    _, held = authority.issue_with_key(NAME, MONTH)
    with pytest.raises(ValueError, match="not the certificate of a CA"):
        Authority.parse(held.key + held.certificate)


def test_certificate_is_for_clients_alone_and_for_its_time_alone(authority: Authority) -> None:
    issued, _ = authority.issue_with_key(NAME, MONTH)
    made = x509.load_pem_x509_certificate(issued.certificate.encode())
    usages = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert made.not_valid_after_utc == issued.not_after
    assert issued.not_after - issued.not_before == MONTH
    assert issued.serial == str(made.serial_number)


def test_two_certificates_have_two_serial_numbers(authority: Authority) -> None:
    assert len({authority.issue_with_key(NAME, MONTH)[0].serial for _ in range(20)}) == 20


def _request(key: object) -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "admin")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM).decode()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()],
    ids=["P-384", "Ed25519"],
)
def test_good_keys_of_other_kinds_are_taken(authority: Authority, key: object) -> None:
    assert authority.issue(NAME, _request(key), MONTH).name == NAME


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP192R1())],
    ids=["RSA 1024", "P-192"],
)
def test_weak_keys_are_refused(authority: Authority, key: object) -> None:
    with pytest.raises(RequestError, match="must be P-256"):
        authority.issue(NAME, _request(key), MONTH)


def test_request_that_was_signed_with_another_key_is_refused(authority: Authority) -> None:
    good = x509.load_pem_x509_csr(new_request(NAME)[1].encode())
    body = bytearray(good.public_bytes(serialization.Encoding.DER))
    body[-1] ^= 1
    try:
        forged = x509.load_der_x509_csr(bytes(body)).public_bytes(serialization.Encoding.PEM).decode()
    except ValueError:
        pytest.fail("the forged request must be one that can be read")
    with pytest.raises(RequestError):
        authority.issue(NAME, forged, MONTH)


def test_only_a_worker_s_name_is_certified(authority: Authority) -> None:
    for name in ("", "Admin", "a b", "a.b", "*", "x" * 64):
        with pytest.raises(SettingsError):
            authority.issue(name, new_request("x")[1], MONTH)


# --- the file ---------------------------------------------------------------------------------------


def test_file_is_read_as_it_was_written_and_tls_takes_it(authority: Authority, tmp_path: Path) -> None:
    _, held = authority.issue_with_key(NAME, MONTH)
    file = tmp_path / "client.pem"
    file.write_text(held.text)
    again = ClientCertificate.parse(file.read_text())
    assert again.text == held.text
    assert (again.name, again.serial, again.not_after) == (held.name, held.serial, held.not_after)
    ssl.create_default_context().load_cert_chain(file)
    assert "PRIVATE" not in repr(again)


def test_other_text_is_refused_without_repeating_it(authority: Authority) -> None:
    _, held = authority.issue_with_key(NAME, MONTH)
    title, _, rest = held.text.partition("\n")
    for text in ("", title, rest, f"# AirBridge client certificate {{}}\n{rest}", f"# x [1]\n{rest}"):
        with pytest.raises(ValueError, match="is not a client certificate") as error:
            ClientCertificate.parse(text)
        assert "PRIVATE" not in str(error.value)


def test_it_is_renewed_in_its_last_third_and_missed_in_its_last_sixth(authority: Authority) -> None:
    _, held = authority.issue_with_key(NAME, MONTH)
    moments = [held.not_before + timedelta(days=day) for day in (0, 19, 20, 24, 25, 29, 30)]
    assert [held.is_due(at) for at in moments] == [False, False, True, True, True, True, True]
    assert [held.is_overdue(at) for at in moments] == [False, False, False, False, True, True, True]
    assert [held.is_good(at) for at in moments] == [True] * 6 + [False]
    assert held.is_good(datetime.now(UTC))


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("2m", 120), ("1h", 3600), ("30d", 2_592_000)])
def test_lengths_of_time_are_read(text: str, seconds: int) -> None:
    assert duration(text) == timedelta(seconds=seconds)
