"""Sealed models: only what a publisher signed, as one piece, in the one order that leads to weights."""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edged.base.errors import (
    DecryptionError,
    EdgedError,
    FormatError,
    MismatchError,
    NotAllowedError,
    NotARecipientError,
    RollbackError,
    SignatureError,
    UnknownSignerError,
    UsageError,
)
from edged.formats.cose import cbor
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.encrypt import Encrypt, content_aad
from edged.formats.cose.keys import PrivateKey, PublicKey
from edged.formats.cose.sign1 import Sign1
from edged.formats.package import Floor
from edged.formats.package.manifest import AAD, LIMITS, content_context
from edged.formats.package.pack import grant, make_grant, pack, repack
from edged.formats.package.verify import RECIPIENT_LIMITS, Package, UnwrappedPackage, VerifiedPackage
from edged.formats.spec import Normalise, Output
from support.packages import SHAPE, Parts, Workshop, open_package, pin, read_manifest

ORDER = int("FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551", 16)  # of P-256
WEIGHTS = os.urandom(1000)


class Watched:
    """A board's key that counts how often it is asked."""

    def __init__(self, key: PrivateKey) -> None:
        self._key = key
        self.public = key.public
        self.asked = 0

    def ecdh(self, peer: PublicKey) -> bytes:
        self.asked += 1
        return self._key.ecdh(peer)


@pytest.fixture
def board() -> PrivateKey:
    return PrivateKey.generate()


@pytest.fixture
def operator() -> PrivateKey:
    return PrivateKey.generate()


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path, PrivateKey.generate())


@pytest.fixture
def package(workshop: Workshop, board: PrivateKey, operator: PrivateKey) -> bytes:
    return workshop.pack(WEIGHTS, [board.public, operator.public])


@pytest.mark.parametrize("aead", list(Aead))
def test_the_board_and_the_operator_open_what_was_packed(workshop: Workshop, aead: Aead) -> None:
    keys = [PrivateKey.generate(), PrivateKey.generate()]
    package = workshop.pack(WEIGHTS, [key.public for key in keys], aead=aead)
    for key in keys:
        assert open_package(package, pin(workshop.publisher.public), key) == WEIGHTS


# --- the order: verify, unwrap, decrypt ------------------------------------------------------


def test_types_offer_no_step_before_the_one_that_it_needs() -> None:
    """A parsed package cannot be unwrapped, and a verified one cannot be decrypted: mypy refuses what is not there."""
    steps = ("verify", "unwrap", "decrypt_into")
    offered = {
        kind: [step for step in steps if hasattr(kind, step)] for kind in (Package, VerifiedPackage, UnwrappedPackage)
    }
    assert offered == {Package: ["verify"], VerifiedPackage: ["unwrap"], UnwrappedPackage: ["decrypt_into"]}


def test_a_stranger_is_refused_before_his_signature_is_looked_at(package: bytes) -> None:
    with pytest.raises(UnknownSignerError) as caught:
        Package.parse(memoryview(package)).verify(pin(PrivateKey.generate().public))
    assert "publishers" in (caught.value.hint or "")


def test_a_publisher_is_held_to_the_models_that_it_may_sign(workshop: Workshop, package: bytes) -> None:
    with pytest.raises(NotAllowedError, match="may not sign model 'gearbox'"):
        Package.parse(memoryview(package)).verify(pin(workshop.publisher.public, "pump"))


def test_the_boards_key_is_not_asked_for_a_ciphertext_that_was_not_signed(
    workshop: Workshop, package: bytes, board: PrivateKey
) -> None:
    key = Watched(board)
    altered = package[:-1] + bytes([package[-1] ^ 1])
    verified = Package.parse(memoryview(altered)).verify(pin(workshop.publisher.public))
    with pytest.raises(MismatchError, match="the ciphertext of part 'self_test' is not the one that was signed"):
        verified.check_ciphertexts()
    with pytest.raises(MismatchError, match="parts, and 2 were signed"):
        msgspec.structs.replace(verified, parts=verified.parts[:1]).check_ciphertexts()
    assert not key.asked


def test_the_boards_key_is_asked_only_for_its_own_entry(workshop: Workshop, board: PrivateKey) -> None:
    others = [PrivateKey.generate().public for _ in range(20)]
    verified = Package.parse(memoryview(workshop.pack(WEIGHTS, [*others, board.public]))).verify(
        pin(workshop.publisher.public)
    )
    key, stranger = Watched(board), Watched(PrivateKey.generate())
    verified.unwrap(key)
    with pytest.raises(NotARecipientError):
        verified.unwrap(stranger)
    assert (key.asked, stranger.asked) == (1, 0)


def test_an_unwrapped_key_is_checked_against_the_signed_commitment(workshop: Workshop, board: PrivateKey) -> None:
    """Whoever writes the recipient list can put any key there: another one is not even tried on the ciphertext."""
    good, other = (Parts.of(workshop.pack(WEIGHTS, [board.public])) for _ in range(2))
    iv = read_manifest(good.join()).sealed[0].iv
    theirs = Encrypt.parse(cbor.decode_canonical(other.recipients, RECIPIENT_LIMITS), 9)
    forged = cbor.encode(Encrypt(theirs.aead, iv, None, theirs.recipients).cose())
    with pytest.raises(MismatchError, match="commit"):
        open_package(good._replace(recipients=forged).join(), pin(workshop.publisher.public), board)


def test_an_entry_for_another_board_under_this_boards_key_id_opens_nothing(
    workshop: Workshop, board: PrivateKey
) -> None:
    good = Parts.of(workshop.pack(WEIGHTS, [PrivateKey.generate().public]))
    encrypt = Encrypt.parse(cbor.decode_canonical(good.recipients, RECIPIENT_LIMITS), 9)
    (entry,) = encrypt.recipients
    renamed = type(entry)(board.public.thumbprint, entry.ephemeral, entry.wrapped)
    forged = cbor.encode(Encrypt(encrypt.aead, encrypt.iv, None, (renamed,)).cose())
    with pytest.raises(DecryptionError):
        open_package(good._replace(recipients=forged).join(), pin(workshop.publisher.public), board)


# --- one piece -------------------------------------------------------------------------------


def test_parts_of_two_packages_do_not_mix(workshop: Workshop, board: PrivateKey) -> None:
    """New weights never run with old scaling: of the sixteen ways to put two packages together only two open."""
    old = Parts.of(workshop.pack(WEIGHTS, [board.public], version=1))
    new = Parts.of(workshop.pack(WEIGHTS[::-1], [board.public], version=2))
    opened = set()
    for choice in product((0, 1), repeat=4):
        mixed = Parts(*((old, new)[which][part] for part, which in enumerate(choice)))
        try:
            open_package(mixed.join(), pin(workshop.publisher.public), board)
        except EdgedError as error:
            assert isinstance(error, MismatchError), choice  # noqa: PT017  the others must not raise
        else:
            opened.add(choice)
    assert opened == {(0, 0, 0, 0), (1, 1, 1, 1)}


def test_equal_sizes_and_the_same_version_do_not_mix_either(workshop: Workshop, board: PrivateKey) -> None:
    first, second = (Parts.of(workshop.pack(os.urandom(64), [board.public])) for _ in range(2))
    for mixed in (first._replace(ciphertext=second.ciphertext), second._replace(signed=first.signed)):
        with pytest.raises(MismatchError):
            open_package(mixed.join(), pin(workshop.publisher.public), board)


@pytest.mark.parametrize(
    "change",
    [
        {"normalise": Normalise(method="zscore", mean=1.0, std=2.0)},
        {"output": Output(kind="classifier", labels=("broken", "healthy"))},
        {"version": 9},
        {"expires": 1 << 40},
        {"name": "pump"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_nothing_of_the_manifest_changes_under_the_old_signature(
    workshop: Workshop, package: bytes, change: dict[str, object]
) -> None:
    """Scaling, labels and dates are signed together with the weights."""
    altered = read_manifest(workshop.resign(package, **change)).encode()
    parts = Parts.of(package)
    old = Sign1.parse(parts.signed, LIMITS)
    forged = parts._replace(signed=Sign1(old.kid, altered, old.signature).encode()).join()
    with pytest.raises(SignatureError):
        Package.parse(memoryview(forged)).verify(pin(workshop.publisher.public, "gearbox", "pump"))


def test_weights_sealed_under_another_name_or_version_do_not_open(
    workshop: Workshop, package: bytes, board: PrivateKey
) -> None:
    """The ciphertext knows which model it is, even against a signature."""
    for change in ({"name": "pump"}, {"version": 2}):
        with pytest.raises(DecryptionError):
            open_package(workshop.resign(package, **change), pin(workshop.publisher.public, "gearbox", "pump"), board)


# --- identity --------------------------------------------------------------------------------


def test_the_malleable_twin_of_a_signature_is_the_same_package(
    workshop: Workshop, package: bytes, board: PrivateKey
) -> None:
    """(r, n - s) holds wherever (r, s) does: a package is known by what was signed, so that its twin is not a second one."""
    parts = Parts.of(package)
    old = Sign1.parse(parts.signed, LIMITS)
    s = ORDER - int.from_bytes(old.signature[32:], "big")
    twin = Sign1(old.kid, old.unverified, old.signature[:32] + s.to_bytes(32, "big"))
    twin_package = parts._replace(signed=twin.encode()).join()
    assert twin_package != package
    publishers = pin(workshop.publisher.public)
    one, other = (Package.parse(memoryview(data)).verify(publishers) for data in (package, twin_package))
    assert one.identity == other.identity
    other.check_floor(Floor(1, one.identity))
    assert open_package(twin_package, publishers, board) == WEIGHTS


def test_another_package_of_the_same_version_is_another_package(workshop: Workshop, board: PrivateKey) -> None:
    one, other = (
        Package.parse(memoryview(workshop.pack(WEIGHTS, [board.public]))).verify(pin(workshop.publisher.public))
        for _ in range(2)
    )
    with pytest.raises(RollbackError, match="not above version 1"):
        other.check_floor(Floor(1, one.identity))


# --- pack ------------------------------------------------------------------------------------


def test_parts_of_one_package_have_ivs_of_their_own(package: bytes) -> None:
    """They are sealed under one key."""
    ivs = [part.iv for part in read_manifest(package).sealed]
    assert len(set(ivs)) == len(ivs) == 2


def test_what_boards_would_refuse_is_not_packed(workshop: Workshop, board: PrivateKey) -> None:
    author = workshop.author()
    workshop.pack(WEIGHTS, [board.public])
    test = author.read_self_test(workshop.path).encode()
    seal = {"signer": workshop.publisher, "to": [board.public], "aead": Aead.A256GCM, "created": 0}
    fields = author.fields(workshop.path)
    for contents in ([("model", b"x")], [("self_test", test)], [("model", b""), ("self_test", test)],
                     [("model", b"x"), ("self_test", test[:-1])], [("model", b"x"), ("self_test", test), ("odd", b"x")],
                     [("model", b"x"), ("self_test", test), *[("reference", b"x")] * 7]):  # fmt: skip
        with pytest.raises((FormatError, ValueError)):
            pack(fields, contents, **seal)
    with pytest.raises(FormatError, match="minimum"):
        pack(fields | {"minimum": 2}, [("model", b"x"), ("self_test", test)], **seal)
    with pytest.raises(UsageError, match="1 to 4096 recipients"):
        pack(fields, [("model", b"x"), ("self_test", test)], **seal | {"to": []})


def test_going_back_takes_all_parts_along(workshop: Workshop, package: bytes, operator: PrivateKey) -> None:
    publishers = pin(workshop.publisher.public)
    verified = Package.parse(memoryview(package)).verify(publishers)
    again = b"".join(
        repack(
            verified, operator, 5, signer=workshop.publisher, to=[operator.public], aead=Aead.A256GCM, created=0,
            expires=None, minimum=4,
        )
    )  # fmt: skip
    assert open_package(again, publishers, operator) == WEIGHTS
    old, new = verified.manifest, read_manifest(again)
    assert [part.plaintext for part in old.sealed] == [part.plaintext for part in new.sealed]
    assert {part.iv for part in old.sealed}.isdisjoint(part.iv for part in new.sealed)
    assert (new.version, new.minimum) == (5, 4)


# --- grant -----------------------------------------------------------------------------------


def test_a_grant_by_itself_is_the_second_item_of_a_package(
    workshop: Workshop, package: bytes, operator: PrivateKey
) -> None:
    newcomer = PrivateKey.generate()
    entry = make_grant(Package.parse(memoryview(package)), operator, newcomer.public)
    assert len(entry) == 184
    granted = Package.parse(memoryview(package), entry)
    assert granted.verify(pin(workshop.publisher.public)).unwrap(newcomer)
    cut = Parts.of(package)
    assert open_package(cut._replace(recipients=entry).join(), pin(workshop.publisher.public), newcomer) == WEIGHTS


def test_a_grant_keeps_signature_and_ciphertext_byte_for_byte(
    workshop: Workshop, package: bytes, board: PrivateKey, operator: PrivateKey
) -> None:
    newcomer = PrivateKey.generate()
    granted = b"".join(grant(Package.parse(memoryview(package)), operator, [newcomer.public]))
    before, after = Parts.of(package), Parts.of(granted)
    assert (before.signed, before.ciphertext) == (after.signed, after.ciphertext)
    publishers = pin(workshop.publisher.public)
    identities = {Package.parse(memoryview(data)).verify(publishers).identity for data in (package, granted)}
    assert len(identities) == 1
    for key in (newcomer, board, operator):
        assert open_package(granted, publishers, key) == WEIGHTS


def test_a_board_that_was_granted_before_keeps_its_entry(
    package: bytes, board: PrivateKey, operator: PrivateKey
) -> None:
    assert b"".join(grant(Package.parse(memoryview(package)), operator, [board.public])) == package


def test_a_board_that_is_no_recipient_cannot_grant(package: bytes) -> None:
    with pytest.raises(NotARecipientError):
        grant(Package.parse(memoryview(package)), PrivateKey.generate(), [PrivateKey.generate().public])


# --- the operator cannot sign ----------------------------------------------------------------


def test_what_the_operator_signs_is_refused(
    workshop: Workshop, tmp_path: Path, package: bytes, board: PrivateKey, operator: PrivateKey
) -> None:
    """The operator has the content key, and can make packages of anything: none of them is believed."""
    pinned = pin(workshop.publisher.public)
    operators = Workshop(tmp_path, operator)
    own = operators.pack(b"other weights", [board.public])
    manifest = read_manifest(package)
    for forged in (own, operators.resign(package, version=2), operators.resign(package, publisher=manifest.publisher)):
        with pytest.raises(UnknownSignerError):
            Package.parse(memoryview(forged)).verify(pinned)


def test_the_operator_cannot_put_other_weights_under_the_publishers_signature(
    workshop: Workshop, package: bytes, board: PrivateKey, operator: PrivateKey
) -> None:
    """With the right key, IV and context: the signed hash says no."""
    parsed = Package.parse(memoryview(package))
    key = parsed.recipients.unwrap(operator, None)
    manifest = read_manifest(package)
    aad = cbor.encode(["Encrypt", cbor.encode({1: 3}), cbor.encode(["edged.package.1", "gearbox", 1, 0])])
    iv = manifest.sealed[0].iv
    cipher = key.aead.cipher(key.secret)
    assert cipher.encrypt(iv, WEIGHTS, aad) == bytes(parsed.parts[0])
    forged = Parts.of(package)._replace(ciphertext=cbor.encode(cipher.encrypt(iv, bytes(1000), aad))).join()
    with pytest.raises(MismatchError, match="the ciphertext of part 'model' is not the one that was signed"):
        open_package(forged, pin(workshop.publisher.public), board)


def test_another_ciphertext_by_somebody_with_the_key_is_refused_at_a_load_too(
    workshop: Workshop, package: bytes, board: PrivateKey
) -> None:
    """A load computes no digest of ciphertexts: the one of the plaintext counts, over the bytes that are used."""
    parsed = Package.parse(memoryview(package))
    key = parsed.recipients.unwrap(board, None)
    aad = content_aad(key.aead, content_context("gearbox", 1, 0))
    other = key.aead.cipher(key.secret).encrypt(read_manifest(package).sealed[0].iv, bytes(1000), aad)
    verified = msgspec.structs.replace(parsed, parts=(memoryview(other), parsed.parts[1])).verify(
        pin(workshop.publisher.public)
    )
    buffer = bytearray(1000)
    with pytest.raises(MismatchError, match="the plaintext of part 'model' is not the one that was signed"):
        verified.unwrap(board).decrypt_into(memoryview(buffer), 0)


def test_no_window_of_the_self_test_stands_in_a_package_in_plain(workshop: Workshop, board: PrivateKey) -> None:
    """Windows may come from training data, and anybody can read a manifest."""
    window = np.random.default_rng(5).normal(size=SHAPE).astype(np.float32)
    workshop.write_self_test(window, np.array([0.123, 0.877], np.float32))
    package = workshop.pack(WEIGHTS, [board.public])
    for needle in (window[0, :2].tobytes(), np.float32(0.877).tobytes(), b"scores", b"tolerance"):
        assert needle not in package
    assert open_package(package, pin(workshop.publisher.public), board) == WEIGHTS


def test_a_manifest_is_no_record_and_a_signature_has_one_purpose(workshop: Workshop, package: bytes) -> None:
    signed = Package.parse(memoryview(package)).signed
    assert signed.verify(workshop.publisher.public, AAD)
    with pytest.raises(SignatureError):
        signed.verify(workshop.publisher.public, cbor.encode(["edged.enrol.1"]))
