"""Places for private keys outside edged's memory, each started for one test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import tokens
from support import tpm as tpms
from support.site import Site
from support.tokens import Keys, P11Server, SoftHsm
from support.tpm import Swtpm


@pytest.fixture(autouse=True)
def _commands_are_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each command in a process of its own: a PKCS#11 module reads its configuration once in each."""
    monkeypatch.setattr(Site, "edged", Site.run)


SKIPS = {"softhsm": tokens.cannot_softhsm, "p11-kit": tokens.cannot_remote, "swtpm": tpms.cannot_swtpm}


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


@pytest.fixture
def hsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    """Tokens for all processes of the test."""
    need("softhsm")
    hsm = SoftHsm(tmp_path / "hsm")
    hsm.make("edged", "people")
    for name, value in hsm.environment.items():
        monkeypatch.setenv(name, value)
    return hsm


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[Swtpm]:
    need("swtpm")
    with Swtpm(tmp_path / "tpm") as tpm:
        yield tpm


@pytest.fixture
def server(hsm: SoftHsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[P11Server]:
    """A token in another process; ours lose sight of its files."""
    need("p11-kit")
    with P11Server(hsm, "edged", tmp_path) as server:
        monkeypatch.delenv("SOFTHSM2_CONF")
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def agreeing_server(server: P11Server) -> P11Server:
    """As ``server``, where it passes on what a board needs."""
    if not server.agrees():
        pytest.skip("this p11-kit passes on signatures only: 0.24, of Debian 12, knows no ECDH1 derive")
    return server


def need(what: str) -> None:
    if why := SKIPS[what]():
        pytest.skip(why)


@pytest.fixture(params=["softhsm", "p11-kit", "swtpm"])
def uri(request: pytest.FixtureRequest) -> str:
    """The URI of a board's keys that are still to be made."""
    if request.param == "swtpm":
        return str(request.getfixturevalue("tpm").uri)
    fixture = {"softhsm": "hsm", "p11-kit": "agreeing_server"}[request.param]
    return str(request.getfixturevalue(fixture).uri("edged"))
