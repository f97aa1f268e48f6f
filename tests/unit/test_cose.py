"""COSE objects and keys: what was sealed opens, for its purpose and its key, and for nothing else."""

from __future__ import annotations

import hashlib
import random
import threading

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from edged.base.errors import (
    DecryptionError,
    EdgedError,
    FormatError,
    KeystoreError,
    MismatchError,
    NotARecipientError,
    SignatureError,
    UnknownKeyError,
    UnknownSignerError,
)
from edged.formats.cose import cbor
from edged.formats.cose.algorithms import TAG_SIZE, Aead
from edged.formats.cose.decrypt import decrypt_and_hash
from edged.formats.cose.encrypt import Encrypt, Recipient, seal
from edged.formats.cose.encrypt0 import Box, parse, peek_kid
from edged.formats.cose.keys import ContentKey, PrivateKey, PublicKey
from edged.formats.cose.pem import read_pem, write_pem
from edged.formats.cose.sign1 import Sign1, sign
from edged.formats.package.verify import RECIPIENT_LIMITS, RECIPIENTS

AAD = cbor.encode(["edged.test.1", "a"])
OTHER_AAD = cbor.encode(["edged.test.1", "b"])
IV = bytes(range(12))
AEADS = pytest.mark.parametrize("aead", list(Aead))


# --- large plaintexts ------------------------------------------------------------------------

MB = 1 << 20
SIZES = pytest.mark.parametrize("size", [0, 1, MB, 4 * MB - 1, 4 * MB, 4 * MB + 1, 5 * MB, 5 * MB + 17])


@AEADS
@SIZES
def test_a_plaintext_is_decrypted_in_place_and_its_digest_is_that_of_the_buffer(aead: Aead, size: int) -> None:
    key, plaintext = ContentKey.generate(aead), random.Random(size).randbytes(size)
    sealed = aead.cipher(key.secret).encrypt(IV, plaintext, AAD)
    buffer = bytearray(size)
    digest = decrypt_and_hash(key, IV, memoryview(sealed), AAD, memoryview(buffer))
    assert buffer == plaintext
    assert digest == hashlib.sha256(buffer).digest()


@AEADS
@pytest.mark.parametrize("at", [0, MB - 1, MB, 4 * MB, -TAG_SIZE - 1, -TAG_SIZE, -1])
def test_an_altered_byte_of_a_large_ciphertext_is_refused_and_no_thread_stays(aead: Aead, at: int) -> None:
    key = ContentKey.generate(aead)
    sealed = bytearray(aead.cipher(key.secret).encrypt(IV, bytes(4 * MB + 9), AAD))
    sealed[at] ^= 1
    threads, buffer = threading.active_count(), bytearray(4 * MB + 9)
    with pytest.raises(DecryptionError, match="the AEAD tag does not hold"):
        decrypt_and_hash(key, IV, memoryview(sealed), AAD, memoryview(buffer))
    assert threading.active_count() == threads


@AEADS
def test_a_large_ciphertext_for_another_purpose_is_refused(aead: Aead) -> None:
    key = ContentKey.generate(aead)
    sealed = aead.cipher(key.secret).encrypt(IV, bytes(4 * MB), AAD)
    with pytest.raises(DecryptionError, match="the AEAD tag does not hold"):
        decrypt_and_hash(key, IV, memoryview(sealed), OTHER_AAD, memoryview(bytearray(4 * MB)))


# --- COSE_Encrypt0 ---------------------------------------------------------------------------


@AEADS
@pytest.mark.parametrize("size", [0, 1, 7, 8, 200, 239, 240, 255, 256, 65_000, 65_519, 65_520, 100_000])
def test_box_opens_what_it_sealed(aead: Aead, size: int) -> None:
    """Each size of length head: the fast path and the general decoder agree."""
    box = Box(ContentKey.generate(aead), AAD)
    message = box.seal(IV, bytes(size))
    assert box.open(message, 200_000) == (IV, bytes(size))
    assert parse(message, 200_000).iv == IV
    assert peek_kid(message, 200_000) == box.key.kid


@AEADS
def test_box_seals_deterministic_cbor(aead: Aead) -> None:
    for size in (0, 8, 100, 300):
        cbor.decode_canonical(Box(ContentKey.generate(aead), AAD).seal(IV, bytes(size)))


@settings(max_examples=300)
@given(st.binary(max_size=120))
def test_box_opens_nothing_random(data: bytes) -> None:
    box = Box(ContentKey(Aead.A256GCM, bytes(32)), AAD)
    with pytest.raises((FormatError, UnknownKeyError, DecryptionError)):
        box.open(data, 100)


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_box_opens_nothing_random_behind_its_own_prefix(tail: bytes) -> None:
    box = Box(ContentKey(Aead.A256GCM, bytes(32)), AAD)
    with pytest.raises((FormatError, UnknownKeyError, DecryptionError)):
        box.open(box.seal(IV, b"")[:32] + tail, 1000)


def test_box_refuses_every_flipped_bit() -> None:
    box = Box(ContentKey.generate(Aead.A256GCM), AAD)
    message = box.seal(IV, b"a result")
    for at in range(8 * len(message)):
        altered = bytearray(message)
        altered[at // 8] ^= 1 << at % 8
        with pytest.raises(EdgedError):
            box.open(bytes(altered), 1000)


def test_box_for_another_purpose_opens_nothing() -> None:
    key = ContentKey.generate(Aead.A256GCM)
    with pytest.raises(DecryptionError):
        Box(key, OTHER_AAD).open(Box(key, AAD).seal(IV, b"x"), 1000)


def test_box_limits_size_before_anything_else() -> None:
    box = Box(ContentKey.generate(Aead.A256GCM), AAD)
    message = box.seal(IV, bytes(500))
    with pytest.raises(FormatError, match="more than the 100 allowed"):
        box.open(message, 100)
    with pytest.raises(FormatError, match="more than the 100 allowed"):
        peek_kid(b"\xd0\x84" + bytes(1_000_000), 100)


def test_box_key_for_one_algorithm_opens_no_other() -> None:
    secret = bytes(32)
    message = Box(ContentKey(Aead.CHACHA20_POLY1305, secret), AAD).seal(IV, b"x")
    with pytest.raises(UnknownKeyError):
        Box(ContentKey(Aead.A256GCM, secret), AAD).open(message, 1000)


# --- COSE_Encrypt ----------------------------------------------------------------------------


@AEADS
def test_encrypt_opens_for_each_recipient(aead: Aead) -> None:
    keys = [PrivateKey.generate() for _ in range(3)]
    content = ContentKey.generate(aead)
    sealed = seal(content, IV, b"for all", AAD, [key.public for key in keys])
    message = Encrypt.parse(cbor.decode_canonical(cbor.encode(sealed.cose())), most=3)
    for key in keys:
        assert message.open(message.unwrap(key, content.commit), AAD) == b"for all"


def test_encrypt_for_others_says_so() -> None:
    sealed = seal(ContentKey.generate(Aead.A256GCM), IV, b"x", AAD, [PrivateKey.generate().public])
    with pytest.raises(NotARecipientError):
        sealed.unwrap(PrivateKey.generate(), None)


def test_encrypt_swapped_key_is_refused_by_commitment() -> None:
    """An AEAD does not commit to its key; the signed commitment does."""
    key, content = PrivateKey.generate(), ContentKey.generate(Aead.A256GCM)
    sealed = seal(ContentKey.generate(Aead.A256GCM), IV, b"x", AAD, [key.public])
    with pytest.raises(MismatchError):
        sealed.unwrap(key, content.commit)


def test_encrypt_ephemeral_key_is_fresh_for_each_recipient() -> None:
    content, public = ContentKey.generate(Aead.A256GCM), PrivateKey.generate().public
    assert len({Recipient.wrap(content, public).ephemeral for _ in range(5)}) == 5


def open_encrypt(data: bytes, key: PrivateKey, content: ContentKey) -> bytes:
    message = Encrypt.parse(cbor.decode_canonical(data), most=1)
    return message.open(message.unwrap(key, content.commit), AAD)


def test_encrypt_refuses_every_flipped_bit() -> None:
    """Of the object as a board sees it: canonical, own entry, committed key."""
    key, content = PrivateKey.generate(), ContentKey.generate(Aead.A256GCM)
    data = cbor.encode(seal(content, IV, b"x", AAD, [key.public]).cose())
    for at in range(8 * len(data)):
        altered = bytearray(data)
        altered[at // 8] ^= 1 << at % 8
        with pytest.raises(EdgedError):
            open_encrypt(bytes(altered), key, content)


# --- COSE_Sign1 ------------------------------------------------------------------------------


def test_sign1_holds_for_its_purpose_alone() -> None:
    key = PrivateKey.generate()
    signed = Sign1.parse(sign(b"payload", AAD, key))
    assert signed.verify(key.public, AAD) == b"payload"
    with pytest.raises(SignatureError):
        signed.verify(key.public, OTHER_AAD)
    with pytest.raises(UnknownSignerError):
        signed.verify(PrivateKey.generate().public, AAD)


def test_sign1_encodes_as_it_was_parsed() -> None:
    data = sign(b"payload", AAD, PrivateKey.generate())
    assert Sign1.parse(data).encode() == data


def test_sign1_refuses_every_flipped_bit() -> None:
    key = PrivateKey.generate()
    data = sign(b"payload", AAD, key)
    for at in range(8 * len(data)):
        altered = bytearray(data)
        altered[at // 8] ^= 1 << at % 8
        with pytest.raises(EdgedError):
            Sign1.parse(bytes(altered)).verify(key.public, AAD)


# --- keys ------------------------------------------------------------------------------------


def test_thumbprint_is_rfc_9679() -> None:
    """The example key of RFC 9679, section 6."""
    x = bytes.fromhex("65eda5a12577c2bae829437fe338701a10aaa375e1bb5b5de108de439c08551d")
    y = bytes.fromhex("1e52ed75701163f7f9e40ddf9f341b3dc9ba860af7e0ca7ca7e9eecd0084d19c")
    expected = "496bd8afadf307e5b08c64b0421bf9dc01528a344a43bda88fadd1669da253ec"
    assert PublicKey(x, y).thumbprint.hex() == expected


def test_commit_is_what_the_document_says() -> None:
    key = ContentKey(Aead.A256GCM, bytes(32))
    assert key.commit == hashlib.sha256(b"edged.key.1" + bytes(32)).digest()
    assert key.kid == key.commit[:8]


def test_content_key_hides_its_secret() -> None:
    secret = bytes(range(32))
    assert secret.hex() not in repr(ContentKey(Aead.A256GCM, secret))
    assert repr(secret)[2:20] not in repr(ContentKey(Aead.A256GCM, secret))


@pytest.mark.parametrize("passphrase", [None, b"open sesame", "offne dich, B\u00e4rg".encode()])
def test_private_key_survives_pem(passphrase: bytes | None) -> None:
    key = PrivateKey.generate()
    assert read_pem(write_pem(key, passphrase), passphrase).public == key.public


def test_private_key_needs_its_passphrase() -> None:
    pem = write_pem(PrivateKey.generate(), b"right")
    for wrong in (None, b"wrong"):
        with pytest.raises(KeystoreError):
            read_pem(pem, wrong)


def test_private_key_of_another_kind_is_refused() -> None:
    for key in (ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()):
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with pytest.raises(KeystoreError, match="P-256"):
            read_pem(pem, None)


@pytest.mark.parametrize("scalar", [b"", bytes(31), bytes(32), b"\xff" * 32, bytes(32) + b"\1"])
def test_private_key_scalar_is_checked(scalar: bytes) -> None:
    with pytest.raises(KeystoreError):
        PrivateKey.from_scalar(scalar)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_points_off_the_curve_are_refused(x: bytes, y: bytes) -> None:
    with pytest.raises(FormatError):
        PublicKey(x, y)


def test_shared_secret_keeps_leading_zeros() -> None:
    """z is always 32 bytes: one in 256 begins with a zero."""
    ours = PrivateKey.from_scalar(bytes(31) + b"\5")
    sizes = {len(ours.ecdh(PrivateKey.from_scalar(number.to_bytes(32, "big")).public)) for number in range(1, 600)}
    assert sizes == {32}


@pytest.mark.parametrize("value", [{1: True}, {1: 2.0}, {-1: True}, {-1: 1.0}])
def test_cose_key_numbers_are_integers(value: dict[int, object]) -> None:
    """``True == 1`` and ``2.0 == 2`` in Python; in CBOR they are other bytes."""
    with pytest.raises(FormatError):
        PublicKey.parse({**PrivateKey.generate().public.cose(), **value})


def test_recipient_list_of_the_largest_package_is_within_its_limits() -> None:
    """4096 boards: `edged grant` must not write what no board reads."""
    one = Recipient.wrap(ContentKey.generate(Aead.A256GCM), PrivateKey.generate().public)
    entries = tuple(replace(one, kid=number.to_bytes(32, "big")) for number in range(RECIPIENTS))
    data = cbor.encode(Encrypt(Aead.A256GCM, IV, None, entries).cose())
    assert len(Encrypt.parse(cbor.decode_canonical(data, RECIPIENT_LIMITS), RECIPIENTS).recipients) == RECIPIENTS
