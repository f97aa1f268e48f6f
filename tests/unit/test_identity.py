"""Enrolment records: made by whoever holds the keys, and replaced only with the old key's consent."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edged.base.errors import (
    EdgedError,
    FormatError,
    MismatchError,
    MissingFileError,
    SignatureError,
    UnknownSignerError,
)
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.keys import PrivateKey
from edged.formats.identity import Record, Role
from edged.keystore.records import read_record
from support.parties import NOW, Board, Hub


def make(role: Role = Role.DEVICE, name: str = "press-07") -> tuple[Record, PrivateKey]:
    sign, ecdh = PrivateKey.generate(), PrivateKey.generate()
    aead = Aead.CHACHA20_POLY1305 if role is Role.DEVICE else None
    return Record(role, name, sign.public, None if role is Role.PUBLISHER else ecdh.public, aead, int(NOW)), sign


@pytest.mark.parametrize("role", list(Role))
def test_record_parse_encoded(role: Role) -> None:
    record, key = make(role)
    assert Record.parse(record.encode(key)) == record


def test_record_signed_by_another_key_is_refused() -> None:
    record, _ = make()
    with pytest.raises(UnknownSignerError):
        Record.parse(record.encode(PrivateKey.generate()))


def test_record_every_flipped_bit_is_refused() -> None:
    record, key = make()
    data = record.encode(key)
    for at in range(len(data)):
        altered = bytearray(data)
        altered[at] ^= 1 << at % 8
        with pytest.raises(EdgedError):
            Record.parse(bytes(altered))


@given(st.binary(max_size=300))
def test_record_random_bytes_raise_edged_errors(data: bytes) -> None:
    with pytest.raises(EdgedError):
        Record.parse(data)


def test_record_read_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "board.enrol"
    path.write_bytes(b"not a record")
    with pytest.raises(FormatError, match=r"board\.enrol"):
        read_record(path, Role.DEVICE)
    with pytest.raises(MissingFileError, match=r"absent\.enrol"):
        read_record(tmp_path / "absent.enrol", Role.DEVICE)
    path.write_bytes(bytes(5000))
    with pytest.raises(FormatError, match=r"board\.enrol"):
        read_record(path, Role.DEVICE)


def test_record_of_another_role_is_refused(tmp_path: Path) -> None:
    """A hub's record is no publisher's, however well it is signed."""
    record, key = make(Role.HUB, "home")
    (tmp_path / "home.pub").write_bytes(record.encode(key))
    with pytest.raises(MismatchError, match="record of a hub, not of a publisher"):
        read_record(tmp_path / "home.pub", Role.PUBLISHER)


def test_record_of_a_publisher_has_nothing_to_seal_to() -> None:
    with pytest.raises(MismatchError):
        _ = make(Role.PUBLISHER)[0].sealing_key


def test_fingerprint_follows_the_key() -> None:
    record, _ = make()
    assert len(record.fingerprint.split()) == 8
    assert record.fingerprint == replace(record, id="press-08").fingerprint
    assert record.fingerprint != make()[0].fingerprint


def test_replacement_with_the_same_keys_needs_no_endorsement() -> None:
    record, _ = make()
    replace(record, created=record.created + 1).check_replaces(record)


def test_replacement_endorsed_by_the_old_key_is_believed() -> None:
    (old, old_key), (new, new_key) = make(), make()
    Record.parse(new.encode(new_key, old_key)).check_replaces(old)


def test_replacement_without_the_old_key_is_refused() -> None:
    (old, _), (new, new_key) = make(), make()
    with pytest.raises(UnknownSignerError, match="old key did not sign"):
        Record.parse(new.encode(new_key)).check_replaces(old)


def test_replacement_of_the_agreement_key_alone_needs_the_old_key_too() -> None:
    """What is sealed to a board goes to that key: a record that changes it is a change of keys."""
    old, key = make()
    changed = replace(old, ecdh=PrivateKey.generate().public)
    with pytest.raises(UnknownSignerError):
        changed.check_replaces(old)
    Record.parse(changed.encode(key, key)).check_replaces(old)


def test_replacement_endorsed_by_a_stranger_is_refused() -> None:
    (old, _), (new, new_key), (_, stranger) = make(), make(), make()
    with pytest.raises(UnknownSignerError):
        Record.parse(new.encode(new_key, stranger)).check_replaces(old)


def test_replacement_endorsement_altered_is_refused() -> None:
    (old, old_key), (new, new_key) = make(), make()
    data = bytearray(new.encode(new_key, old_key))
    data[-1] ^= 1
    with pytest.raises(SignatureError):
        Record.parse(bytes(data)).check_replaces(old)


def test_enrolled_board_is_not_replaced_by_one_of_its_name() -> None:
    receiver = Hub().receiver(Board())
    with pytest.raises(UnknownSignerError):
        receiver.enrol(Board().record)
