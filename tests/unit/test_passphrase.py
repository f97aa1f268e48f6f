"""Private keys of people under a passphrase: what a guess costs, other programs' view of the files, old files, short secrets."""

from __future__ import annotations

import hashlib
import re
import subprocess
from base64 import b64decode
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives import padding, serialization
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from edged.base.errors import KeystoreError, UsageError
from edged.cli.keygen import keygen_command
from edged.cli.passphrase import open_personal_keys
from edged.config.board import KeystoreTable
from edged.config.secret import KeystoreSecrets
from edged.formats.cose import pem
from edged.formats.cose.keys import PrivateKey
from edged.formats.cose.pem import is_outdated, read_pem, write_pem

PASSPHRASE = b"correct horse battery"
KEY = PrivateKey.generate()


@pytest.fixture(scope="module")
def sealed() -> bytes:
    return write_pem(KEY, PASSPHRASE)


def parameters(block: bytes) -> tuple[bytes, list[int], bytes, bytes]:
    """Return salt, scrypt's numbers, IV and ciphertext, cut out of a PEM block by hand (RFC 8018, RFC 7914)."""
    der = b64decode(b"".join(block.splitlines()[1:-1]))
    pattern = (
        rb"\x30(?:[\x00-\x7f]|\x81.|\x82..)\x30.\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d\x30."  # PBES2
        rb"\x30.\x06\x09\x2b\x06\x01\x04\x01\xda\x47\x04\x0b\x30.\x04\x10(.{16})"  # scrypt, salt
        rb"\x02(?:\x03(.{3})|\x02(.{2}))\x02\x01(.)\x02\x01(.)"  # N, r, p
        rb"\x30\x1d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x01\x2a\x04\x10(.{16})"  # AES-256-CBC, IV
        rb"\x04(?:[\x00-\x7f]|\x81.|\x82..)(.*)"
    )
    found = re.fullmatch(pattern, der, re.DOTALL)
    assert found is not None
    salt, large, small, block_size, parallel, iv, ciphertext = found.groups()
    return salt, [int.from_bytes(one, "big") for one in (large or small, block_size, parallel)], iv, ciphertext


# --- what is written -------------------------------------------------------------------------


def test_a_guess_costs_at_least_64_mb(sealed: bytes) -> None:
    """PBKDF2 with 2,048 rounds stood here: millions of guesses a second, and no memory, on one graphics card."""
    (cost, block, parallel) = parameters(sealed)[1]

    assert 128 * block * cost >= 64 << 20
    assert parallel >= 1


def test_another_implementation_of_scrypt_opens_it(sealed: bytes) -> None:
    salt, (cost, block, parallel), iv, ciphertext = parameters(sealed)
    key = hashlib.scrypt(PASSPHRASE, salt=salt, n=cost, r=block, p=parallel, maxmem=1 << 28, dklen=32)
    decryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
    unpadder = padding.PKCS7(128).unpadder()
    plain = unpadder.update(decryptor.update(ciphertext) + decryptor.finalize()) + unpadder.finalize()

    assert serialization.load_der_private_key(plain, None).private_numbers() == KEY.key.private_numbers()


@pytest.mark.parametrize("command", [("pkey",), ("pkcs8", "-topk8", "-nocrypt"), ("ec",)])
def test_openssl_reads_it_up_to_the_memory_that_openssl_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """Its commands stop at 32 MB and take no option for more: the same writer with a lower cost shows that the form is right."""
    monkeypatch.setattr(pem, "_COST", 1 << 14)
    (tmp_path / "key.pem").write_bytes(write_pem(KEY, PASSPHRASE))
    done = subprocess.run(
        ["openssl", *command, "-in", "key.pem", "-passin", f"pass:{PASSPHRASE.decode()}"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    found = serialization.load_pem_private_key(done.stdout, None)
    assert found.private_numbers() == KEY.key.private_numbers()


def test_two_files_of_one_key_and_passphrase_have_nothing_in_common(sealed: bytes) -> None:
    again = write_pem(KEY, PASSPHRASE)

    for mine, other in zip(parameters(sealed), parameters(again), strict=True):
        assert isinstance(mine, list) or mine != other


# --- old files -------------------------------------------------------------------------------


def old_file(path: Path, keys: int = 2) -> list[PrivateKey]:
    """Write keys as edged 0.1.0 did."""
    made = [PrivateKey.generate() for _ in range(keys)]
    protection = serialization.BestAvailableEncryption(PASSPHRASE)
    forms = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(b"".join(key.key.private_bytes(*forms, protection) for key in made))
    path.chmod(0o600)
    return made


@pytest.fixture
def passphrase_file(tmp_path: Path) -> str:
    path = tmp_path / "passphrase"
    path.write_bytes(PASSPHRASE + b"\n")
    path.chmod(0o600)
    return str(path)


def test_an_old_file_opens_and_is_written_anew(
    tmp_path: Path, passphrase_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "home.key"
    made = old_file(path)

    for said in (f"edged: {path} was written anew", ""):
        keys = open_personal_keys(path, passphrase_file)
        assert keys.agreement is not None
        assert [keys.signer.public, keys.agreement.public] == [key.public for key in made]
        assert capsys.readouterr().err.startswith(said)
    blocks = path.read_bytes().split(b"-----BEGIN")[1:]
    assert [is_outdated(b"-----BEGIN" + block) for block in blocks] == [False, False]
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(one.name for one in tmp_path.iterdir()) == ["home.key", "passphrase"]


def test_an_old_file_behind_a_link_is_written_anew_where_it_is(tmp_path: Path, passphrase_file: str) -> None:
    (tmp_path / "stick").mkdir()
    old_file(tmp_path / "stick" / "home.key", 1)
    (tmp_path / "home.key").symlink_to("stick/home.key")

    open_personal_keys(tmp_path / "home.key", passphrase_file)

    assert (tmp_path / "home.key").is_symlink()
    assert not is_outdated((tmp_path / "stick" / "home.key").read_bytes())


def test_an_old_file_that_cannot_be_written_opens_all_the_same(
    tmp_path: Path, passphrase_file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "acme.key"
    (made,) = old_file(path, 1)
    before = path.read_bytes()

    def refuse(*_arguments: object) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("edged.base.files.os.open", refuse)
    keys = open_personal_keys(path, passphrase_file)

    assert keys.signer.public == made.public
    assert "stays so" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_wrong_passphrase_writes_nothing_anew(tmp_path: Path) -> None:
    path, wrong = tmp_path / "acme.key", tmp_path / "wrong"
    old_file(path, 1)
    before = path.read_bytes()
    wrong.write_bytes(b"incorrect horse")
    wrong.chmod(0o600)

    with pytest.raises(KeystoreError):
        open_personal_keys(path, str(wrong))
    assert path.read_bytes() == before


def test_keys_without_a_passphrase_are_not_outdated() -> None:
    assert not is_outdated(write_pem(KEY, None))


# --- short secrets ---------------------------------------------------------------------------


def keygen(tmp_path: Path, passphrase: str, *options: str) -> Result:
    path = tmp_path / "passphrase"
    path.write_text(passphrase)
    path.chmod(0o600)
    arguments = ["publisher", "--id", "acme", "-o", str(tmp_path), "--passphrase-file", str(path), *options]
    return CliRunner().invoke(keygen_command, arguments)


@pytest.mark.parametrize("passphrase", ["", "123456789", "\u00fc" * 9, "123456789\n"])
def test_a_short_passphrase_is_refused(tmp_path: Path, passphrase: str) -> None:
    refused = keygen(tmp_path, passphrase)

    assert isinstance(refused.exception, UsageError)
    assert "fewer than 10 characters" in refused.exception.message
    assert not (tmp_path / "acme.key").exists()


def test_a_short_passphrase_is_taken_from_who_insists(tmp_path: Path) -> None:
    assert keygen(tmp_path, "1234", "--weak-passphrase").exit_code == 0
    assert read_pem((tmp_path / "acme.key").read_bytes(), b"1234")


def test_ten_characters_are_enough(tmp_path: Path) -> None:
    assert keygen(tmp_path, "\u00fc" * 10).exit_code == 0


@pytest.mark.parametrize(("size", "refused"), [(0, True), (15, True), (16, False)])
def test_a_short_wrapping_secret_is_refused(tmp_path: Path, size: int, refused: bool) -> None:
    """Whoever has the disk guesses it without end: one HKDF a guess."""
    path = tmp_path / "wrap"
    path.write_bytes(b"x" * size + b"\n")
    path.chmod(0o600)
    table = KeystoreTable(uri="file:", wrap=str(path))

    if not refused:
        assert KeystoreSecrets().of(table) == (b"x" * size, None)
        return
    with pytest.raises(KeystoreError, match=rf"keystore\.wrap: the secret has {size} bytes") as caught:
        KeystoreSecrets().of(table)
    assert "systemd-creds encrypt --name=keystore" in str(caught.value.hint)


def test_a_short_pin_is_the_devices_business(tmp_path: Path) -> None:
    path = tmp_path / "pin"
    path.write_bytes(b"1234")
    path.chmod(0o600)

    assert KeystoreSecrets().of(KeystoreTable(uri="tpm2:", pin=str(path))) == (None, b"1234")
