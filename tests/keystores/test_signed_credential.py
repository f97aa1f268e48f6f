"""A credential that opens what was booted only if its owner signed that: systemd's, for `keystore.wrap` and `keystore.pin`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edged.config.secret import read_secret
from support import tpm as tpms
from support.tpm import Swtpm

MEASURE = Path("/usr/lib/systemd/systemd-measure")
SECRET = b"what wraps the keys of this board"
SYSTEM = {"linux": b"a kernel", "cmdline": b"quiet", "initrd": b"its files"}
"""Sections of a unified kernel image, in the order in which systemd-stub measures them into PCR 11."""
PHASES = ("enter-initrd", "leave-initrd", "sysinit", "ready")
"""Words that systemd-pcrphase measures after them."""


def cannot_sign() -> str:
    """Return why systemd cannot seal to a signed system here; empty if it can."""
    if shutil.which("systemd-creds") is None or not MEASURE.exists():
        return "needs systemd-creds and systemd-measure: systemd 252"
    return tpms.cannot_swtpm()


pytestmark = pytest.mark.skipif(bool(cannot_sign()), reason=cannot_sign())


def make_key(path: Path, name: str) -> None:
    private, public = path / f"{name}.pem", path / f"{name}.pub.pem"
    subprocess.run(
        ["openssl", "genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", private],
        check=True,
    )
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)


def sign_system(tpm: Swtpm, path: Path, name: str) -> None:
    """Predict PCR 11 for :data:`SYSTEM`, as docs/configuration.md says, and have ``name`` sign it.

    :param tpm: any: it computes what is signed.
    """
    for section, data in SYSTEM.items():
        (path / section).write_bytes(data)
    keys = f"--private-key={path / name}.pem", f"--public-key={path / name}.pub.pem"
    sections = [f"--{section}={path / section}" for section in SYSTEM]
    command = [MEASURE, "sign", f"--tpm2-device={tpm.tcti}", *sections, "--bank=sha256", *keys]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    (path / f"{name}.json").write_bytes(done.stdout)


def boot(tpm: Swtpm, **changed: bytes) -> None:
    """Measure a system as systemd-stub and systemd-pcrphase do, with some of its sections changed."""
    import tpm2_pytss as tss  # noqa: PLC0415  an extra

    sections = {**SYSTEM, **changed}
    events = [event for name, data in sections.items() for event in (f".{name}\0".encode(), data)]
    with tss.ESAPI(tpm.tcti) as esapi:
        for event in (*events, *map(str.encode, PHASES)):
            esapi.pcr_event(tss.ESYS_TR.PCR11, event)


def open_credential(tpm: Swtpm, path: Path, *options: str) -> subprocess.CompletedProcess[bytes]:
    command = ["systemd-creds", "decrypt", f"--tpm2-device={tpm.tcti}", "--name=keystore", *options]
    return subprocess.run([*command, path / "sealed", "-"], capture_output=True, check=False)


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    """A folder with a credential for what the owner signs, the signatures of two people, and the state of the TPM."""
    with Swtpm(tmp_path / "tpm") as tpm:
        for name in ("owner", "stranger"):
            make_key(tmp_path, name)
            sign_system(tpm, tmp_path, name)
        boot(tpm)
        options = f"--tpm2-public-key={tmp_path / 'owner.pub.pem'}", "--tpm2-public-key-pcrs=11", "--tpm2-pcrs="
        command = ["systemd-creds", "encrypt", "--with-key=tpm2-with-public-key", f"--tpm2-device={tpm.tcti}"]
        subprocess.run([*command, *options, "--name=keystore", "-", tmp_path / "sealed"], input=SECRET, check=True)
    return tmp_path


def test_a_credential_opens_for_a_system_that_its_owner_signed(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert SECRET not in (sealed / "sealed").read_bytes()
    with Swtpm(sealed / "tpm") as tpm:
        boot(tpm)
        opened = open_credential(tpm, sealed, f"--tpm2-signature={sealed / 'owner.json'}")
    assert opened.returncode == 0, opened.stderr
    credentials = sealed / "credentials"
    credentials.mkdir(mode=0o700)
    (credentials / "keystore").write_bytes(opened.stdout)
    (credentials / "keystore").chmod(0o400)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))

    assert read_secret("credential:keystore") == SECRET


@pytest.mark.parametrize("signer", ["stranger", None])
def test_a_credential_stays_shut_for_a_system_that_its_owner_did_not_sign(sealed: Path, signer: str | None) -> None:
    options = [] if signer is None else [f"--tpm2-signature={sealed / signer}.json"]
    with Swtpm(sealed / "tpm") as tpm:
        boot(tpm)
        opened = open_credential(tpm, sealed, *options)

    assert opened.returncode != 0
    assert SECRET not in opened.stdout


@pytest.mark.parametrize("changed", [{"cmdline": b"init=/bin/sh"}, {"linux": b"another kernel"}])
def test_a_credential_stays_shut_for_another_system_than_the_signed_one(
    sealed: Path, changed: dict[str, bytes]
) -> None:
    with Swtpm(sealed / "tpm") as tpm:
        boot(tpm, **changed)
        opened = open_credential(tpm, sealed, f"--tpm2-signature={sealed / 'owner.json'}")

    assert opened.returncode != 0
    assert SECRET not in opened.stdout
