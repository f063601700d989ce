"""A Debian machine's package sources are read in every form, without downloading or changing anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from scripts_steps import debian

if TYPE_CHECKING:
    from pathlib import Path

_MIRROR = "http://mirror.example.org"
_SIGNED = "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg"
_EXPECTED = [
    f"{_MIRROR}/debian bookworm main",
    f"{_MIRROR}/debian bookworm-updates main",
    f"{_MIRROR}/debian-security bookworm-security main",
]
_ONE_LINE = f"""\
# the archive
deb {_MIRROR}/debian bookworm main contrib non-free-firmware
deb-src {_MIRROR}/debian bookworm main
deb {_MIRROR}/debian/ bookworm-updates main   # point updates
# deb http://old.example.org/debian bookworm main
  deb [arch=amd64,arm64 signed-by=/usr/share/keyrings/d.gpg] {_MIRROR}/debian-security bookworm-security main
deb cdrom:[Debian GNU/Linux 12]/ bookworm main
"""
_DEB822 = f"""\
Types: deb
# where this image was frozen
URIs: {_MIRROR}/debian
Suites: bookworm bookworm-updates
Components: main
{_SIGNED}

types: deb deb-src
uris: {_MIRROR}/debian-security/
suites:
 bookworm-security
components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF:deb
 -----END PGP PUBLIC KEY BLOCK-----

Enabled: no
Types: deb
URIs: http://old.example.org/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://sources.example.org/debian
Suites: bookworm
Components: main"""
_VENDORS = {
    "sources.list.d/docker.list": "deb https://download.docker.example/linux/debian bookworm stable\n",
    "sources.list.d/cloud.list": "deb https://packages.cloud.example/apt cloud-sdk-bookworm main\n",
    "sources.list.d/node.sources": "Types: deb\nURIs: https://n.test\nSuites: nodistro\nComponents: main\n",
}


@pytest.fixture
def apt(tmp_path: Path) -> Path:
    """A folder such as /etc/apt."""
    (tmp_path / "apt/sources.list.d").mkdir(parents=True)
    return tmp_path / "apt"


def write(apt: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (apt / name).write_text(content)


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({"sources.list": _ONE_LINE}, id="one line a source"),
        pytest.param({"sources.list.d/debian.sources": _DEB822}, id="deb822"),
        pytest.param(
            {"sources.list": _ONE_LINE, "sources.list.d/debian.sources": _DEB822}, id="both, twice the same"
        ),
    ],
)
def test_sources_are_read_in_every_form_and_vendors_stay_out(apt: Path, files: dict[str, str]) -> None:
    write(apt, files | _VENDORS)
    assert debian("debian_targets", apt) == _EXPECTED


def test_list_of_mirrors_gives_its_first(apt: Path) -> None:
    lists = {
        "debian": f"# near\n{_MIRROR}/debian\nhttp://far.example.org/debian\n",
        "security": f"{_MIRROR}/debian-security\n",
    }
    for name, content in lists.items():
        (apt / f"{name}.list").write_text(content)
    stanza = "Types: deb\nURIs: mirror+file://{}/{}.list\nSuites: {}\nComponents: main\n\n"
    write(
        apt,
        {
            "sources.list.d/debian.sources": stanza.format(apt, "debian", "bookworm bookworm-updates")
            + stanza.format(apt, "security", "bookworm-security")
        },
    )
    assert debian("debian_targets", apt) == _EXPECTED


def test_another_release_comes_from_the_machines_own_mirrors(apt: Path) -> None:
    write(apt, {"sources.list": _ONE_LINE})
    lines = debian("debian_sources trixie", apt)
    assert [line for line in lines if line.startswith(("URIs", "Suites"))] == [
        f"URIs: {_MIRROR}/debian",
        "Suites: trixie",
        f"URIs: {_MIRROR}/debian",
        "Suites: trixie-updates",
        f"URIs: {_MIRROR}/debian-security",
        "Suites: trixie-security",
    ]
    assert lines.count(_SIGNED) == 3


def test_machine_that_names_no_archive_takes_the_one_it_is_told(
    apt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEBIAN_MIRROR", f"{_MIRROR}/debian")
    lines = debian("debian_sources bookworm", apt)
    assert [line for line in lines if line.startswith(("URIs", "Suites"))] == [
        f"URIs: {_MIRROR}/debian",
        "Suites: bookworm",
        f"URIs: {_MIRROR}/debian",
        "Suites: bookworm-updates",
    ]


def test_machine_that_names_no_archive_and_is_told_none_says_which_setting_helps(apt: Path) -> None:
    refused = "(debian_sources bookworm) 2>&1 || echo refused"
    assert debian(refused, apt) == [
        "error: this machine's apt names no Debian archive | fix: set DEBIAN_MIRROR to the address of one",
        "refused",
    ]
