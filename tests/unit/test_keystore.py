"""Key stores whatever they are: files, URIs, the trial of both operations, and keys that follow one another."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.base.errors import (
    ConfigError,
    EdgedError,
    KeystoreError,
    MismatchError,
    MissingFileError,
    NotARecipientError,
    OutputError,
)
from edged.board.keyring import Keyring
from edged.config.board import KeystoreTable
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.encrypt import seal
from edged.formats.cose.keys import ContentKey, PrivateKey, PublicKey
from edged.formats.identity import Record, Role
from edged.keystore import coordinate, create_keystore, exercise, open_keystore
from edged.keystore.packages import PackageStore
from edged.keystore.token_uri import TokenUri

# --- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapping", [None, b"a secret of 16 bytes or more"])
def test_keys_in_files_open_again(tmp_path: Path, wrapping: bytes | None) -> None:
    made = create_keystore("file:", tmp_path / "keys", wrapping)
    found = open_keystore("file:", tmp_path / "keys", wrapping)
    assert (made.signer.public, made.agreement.public) == (found.signer.public, found.agreement.public)
    exercise(found.signer, found.agreement)


def test_uri_of_files_names_another_directory(tmp_path: Path) -> None:
    create_keystore(f"file:{tmp_path}/else", tmp_path / "keys", None)
    assert sorted(path.name for path in (tmp_path / "else").iterdir()) == ["ecdh.key", "sign.key"]


def test_files_protect_nothing_without_a_credential(tmp_path: Path) -> None:
    plain = create_keystore("file:", tmp_path / "plain", None).protection()
    sealed = create_keystore("file:", tmp_path / "sealed", b"a secret").protection()
    assert (plain.hardware, sealed.hardware) == (False, False)
    assert plain.protected == ()
    assert "keystore.wrap" in sealed.protected[0]
    assert plain.ram == sealed.ram
    assert plain.ram[0].startswith("both private keys")


def test_destroyed_files_are_gone(tmp_path: Path) -> None:
    create_keystore("file:", tmp_path / "keys", None).destroy()
    assert list((tmp_path / "keys").iterdir()) == []


def test_unknown_scheme_is_refused(tmp_path: Path) -> None:
    for use in (open_keystore, create_keystore):
        with pytest.raises(ConfigError, match="has no scheme that edged knows"):
            use("vault:keys", tmp_path, None)


# --- both operations -------------------------------------------------------------------------


class Liar:
    """A key that shows another public half than it has."""

    def __init__(self) -> None:
        self._key = PrivateKey.generate()
        self.public = PrivateKey.generate().public

    def sign(self, digest: bytes) -> bytes:
        return self._key.sign(digest)

    def ecdh(self, peer: PublicKey) -> bytes:
        return self._key.ecdh(peer)


def test_store_that_shows_other_keys_than_it_uses_is_found_out() -> None:
    good = PrivateKey.generate()
    assert exercise(good, good).ecdh > 0
    assert exercise(good, None).ecdh == 0
    with pytest.raises(KeystoreError, match="signs with another key"):
        exercise(Liar(), good)
    with pytest.raises(KeystoreError, match="agrees with another key"):
        exercise(good, Liar())


@given(st.integers(1, 2**256 - 1), st.integers(0, 4))
def test_number_of_a_device_gets_32_bytes_however_it_was_written(number: int, zeros: int) -> None:
    short = number.to_bytes((number.bit_length() + 7) // 8, "big")
    assert coordinate(bytes(zeros) + short) == number.to_bytes(32, "big")


@pytest.mark.parametrize("value", [b"", bytes(32), b"\x01" + bytes(32)])
def test_number_of_a_device_that_is_none_of_p256_is_refused(value: bytes) -> None:
    with pytest.raises(KeystoreError, match="no number of P-256"):
        coordinate(value)


# --- URIs ----------------------------------------------------------------------------------------


def test_uri_attributes_are_percent_decoded() -> None:
    uri = TokenUri.parse("pkcs11:token=My%20token;serial=00%3B;object=a?module-path=/usr/lib/x.so")
    assert uri.wanted == {"token": "My token", "serial": "00;"}
    assert (uri.object, uri.module) == ("a", "/usr/lib/x.so")
    assert TokenUri.parse("pkcs11:token=a").module == "p11-kit-proxy.so"


def test_uri_gets_a_label_where_it_has_none() -> None:
    assert (
        TokenUri.parse("pkcs11:token=a?module-path=b").labelled("acme").text
        == "pkcs11:token=a;object=acme?module-path=b"
    )
    assert TokenUri.parse("pkcs11:token=a;object=b").labelled("acme").object == "b"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("pkcs11:", "names no token"),
        ("pkcs11:object=a", "names no token"),
        ("pkcs11:token=a;slot-id=1", "'slot-id=1' does not fit"),
        ("pkcs11:token=a;token=b", "'token=b' does not fit"),
        ("pkcs11:token", "'token' does not fit"),
        ("pkcs11:token=a?pin-value=1234", "no pin-value: URIs stand in process lists"),
        ("pkcs11:token=a;pin-source=/x", "no pin-source"),
    ],
)
def test_uri_that_does_not_fit_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        TokenUri.parse(text)


@given(st.text(max_size=60))
def test_uri_random_text_raises_config_errors(text: str) -> None:
    try:
        TokenUri.parse(f"pkcs11:{text}")
    except ConfigError:
        return


# --- the configuration -------------------------------------------------------------------------


def test_pin_is_for_devices_and_wrap_for_files() -> None:
    KeystoreTable(uri="file:", wrap="credential:keystore")
    KeystoreTable(uri="tpm2:", pin="credential:pin")
    with pytest.raises(ConfigError, match=r"keystore\.pin"):
        KeystoreTable(uri="file:", pin="credential:pin")
    with pytest.raises(ConfigError, match=r"keystore\.wrap"):
        KeystoreTable(uri="tpm2:", wrap="credential:keystore")


# --- new keys for old ------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path: Path) -> Keyring:
    ring = Keyring(KeystoreTable(), tmp_path / "keystore")
    ring.enrol("press-07", Aead.CHACHA20_POLY1305)
    return ring


def following(old: Keyring) -> Keyring:
    """Return the keys of a board whose configuration names those that it migrated to."""
    return Keyring(elsewhere(old), old.record_path.parent)


def elsewhere(old: Keyring) -> KeystoreTable:
    return KeystoreTable(uri=f"file:{old.record_path.parent}/next")


def test_migration_changes_nothing_until_the_configuration_does(old: Keyring) -> None:
    before = old.record()
    new = old.migrate(elsewhere(old))
    assert old.opened_record(old.open()) == before
    ring = following(old)
    assert ring.opened_record(ring.open()).sign == new.sign
    assert not old.following_path.exists()
    ring.record().check_replaces(before)
    assert ring.signers() == [new.sign, before.sign]


def test_old_keys_open_what_was_sealed_to_them_and_new_keys_the_rest(old: Keyring) -> None:
    before, new = old.record(), old.migrate(elsewhere(old))
    ring = following(old)
    keystore, key = ring.open(), ContentKey.generate(Aead.A256GCM)
    for record in (before, new):
        sealed = seal(key, bytes(12), b"", b"\x80", [record.sealing_key])
        assert sealed.unwrap(ring.opener(sealed, keystore), key.commit) == key
    both = seal(key, bytes(12), b"", b"\x80", [before.sealing_key, new.sealing_key])
    assert ring.opener(both, keystore).public == new.ecdh
    others = seal(key, bytes(12), b"", b"\x80", [PrivateKey.generate().public])
    with pytest.raises(NotARecipientError):
        others.unwrap(ring.opener(others, keystore), key.commit)


def test_forgotten_keys_open_nothing_and_still_verify(old: Keyring) -> None:
    before = old.record()
    old.migrate(elsewhere(old))
    ring = following(old)
    (forgotten,) = ring.forget_former(PackageStore(old.record_path.parent / "packages"), lambda _: None)
    assert forgotten.sign == before.sign.thumbprint.hex()
    assert not list(old.key_directory.iterdir())
    assert before.sign in ring.signers()
    assert ring.forget_former(PackageStore(old.record_path.parent / "packages"), lambda _: None) == []
    with pytest.raises(MissingFileError):
        old.open()


def test_old_keys_that_are_gone_already_are_named(old: Keyring) -> None:
    """As after a power cut between the two keys, or on a token that was lost."""
    old.migrate(elsewhere(old))
    ring = following(old)
    (old.key_directory / "sign.key").unlink()
    with pytest.raises(KeystoreError, match="the old keys at file:") as caught:
        ring.forget_former(PackageStore(old.record_path.parent / "packages"), lambda _: None)
    Path(caught.value.hint.removeprefix("if they are gone for good, remove ")).unlink()
    assert ring.forget_former(PackageStore(old.record_path.parent / "packages"), lambda _: None) == []


def test_migration_that_was_given_up_leaves_the_board_as_it_was(old: Keyring) -> None:
    old.migrate(elsewhere(old))
    old.following_path.unlink()
    assert old.forget_former(PackageStore(old.record_path.parent / "packages"), lambda _: None) == []
    old.opened_record(old.open())


def test_keys_that_no_record_names_do_not_stay(old: Keyring) -> None:
    (old.record_path.parent / "former").write_text("in the way")
    with pytest.raises(EdgedError):
        old.migrate(elsewhere(old))
    assert not list((old.record_path.parent / "next").iterdir())
    old.opened_record(old.open())


def test_record_of_other_keys_is_told(old: Keyring) -> None:
    stranger = PrivateKey.generate(), PrivateKey.generate()
    record = Record(Role.DEVICE, "press-07", stranger[0].public, stranger[1].public, Aead.A256GCM, 1)
    old.record_path.write_bytes(record.encode(stranger[0]))
    with pytest.raises(MismatchError, match="does not belong to the keys at file:"):
        old.opened_record(old.open())


def test_keys_that_are_there_are_not_made_again(old: Keyring) -> None:
    before = old.record_path.read_bytes()
    with pytest.raises(OutputError):
        old.enrol("press-07", Aead.A256GCM)
    assert old.record_path.read_bytes() == before
    old.opened_record(old.open())
