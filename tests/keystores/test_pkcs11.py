"""Keys on a token: SoftHSM2, as any PKCS#11 module."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.base.errors import ConfigError, FormatError, KeystoreError, OutputError
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.encrypt import seal
from edged.formats.cose.keys import ContentKey, PrivateKey, PublicKey
from edged.formats.cose.sign1 import Sign1, sign
from edged.keystore import Keystore, create_keystore, exercise, open_keystore
from edged.keystore.people import PersonalKeys
from edged.keystore.token_uri import TokenUri
from support import tokens
from support.tokens import PIN, SoftHsm, put_key

pytestmark = pytest.mark.skipif(bool(tokens.cannot_softhsm()), reason=tokens.cannot_softhsm())

NOWHERE = Path("/nowhere")


@pytest.fixture(scope="module")
def hsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftHsm]:
    """One token for all tests: the library reads its configuration once in a process."""
    import pkcs11  # noqa: PLC0415  an extra

    from edged.keystore.token import Token  # noqa: PLC0415  as above

    hsm = SoftHsm(tmp_path_factory.mktemp("hsm"))
    hsm.make("edged", "other")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", hsm.environment["SOFTHSM2_CONF"])
        yield hsm
        for token in Token._known.values():
            token.close()
        Token._known.clear()
        pkcs11.unload(str(hsm.module))


@pytest.fixture
def uri(hsm: SoftHsm, request: pytest.FixtureRequest) -> str:
    """Keys of the test's own."""
    return hsm.uri("edged", f"t{zlib.crc32(request.node.nodeid.encode()):08x}")


def create(uri: str) -> Keystore:
    return create_keystore(uri, NOWHERE, None, PIN.encode())


def reopen(uri: str, pin: str = PIN) -> Keystore:
    return open_keystore(uri, NOWHERE, None, pin.encode())


# --- both operations, against software ----------------------------------------------------------


def test_keys_of_a_token_are_found_again(uri: str) -> None:
    made, found = create(uri), reopen(uri)
    assert (made.signer.public, made.agreement.public) == (found.signer.public, found.agreement.public)
    assert made.signer.public != made.agreement.public


def test_signature_of_a_token_verifies_in_software(uri: str) -> None:
    signer = create(uri).signer
    for number in range(50):
        message = sign(f"{number}".encode(), b"\x80", signer)
        assert Sign1.parse(message).verify(signer.public, b"\x80") == f"{number}".encode()


def test_digest_is_signed_not_hashed_again(uri: str) -> None:
    signer = create(uri).signer
    message = os.urandom(100)
    signer.public.verify(signer.sign(hashlib.sha256(message).digest()), message)


def test_what_is_sealed_to_a_token_opens_there(uri: str) -> None:
    agreement = create(uri).agreement
    key = ContentKey.generate(Aead.A256GCM)
    sealed = seal(key, bytes(12), b"weights", b"\x80", [PrivateKey.generate().public, agreement.public])
    assert sealed.unwrap(agreement, key.commit) == key
    assert sealed.open(key, b"\x80") == b"weights"


def test_shared_secret_with_leading_zeros_keeps_its_32_bytes(uri: str) -> None:
    agreement = create(uri).agreement
    peer = peer_of_zeros(agreement.public)
    z = agreement.ecdh(peer.public)
    assert len(z) == 32
    assert z[0] == 0
    assert z == peer.ecdh(agreement.public)


def peer_of_zeros(public: PublicKey) -> PrivateKey:
    """Return a key whose shared secret with ``public`` begins with a zero byte: one in 256 does."""
    while True:
        peer = PrivateKey.generate()
        if peer.ecdh(public)[0] == 0:
            return peer


def test_token_agrees_with_every_peer_as_software_does(uri: str) -> None:
    agreement = create(uri).agreement

    @settings(max_examples=50, deadline=None)
    @given(st.integers(1, 2**256 - 2**224))
    def agrees(scalar: int) -> None:
        peer = PrivateKey.from_scalar(scalar.to_bytes(32, "big"))
        assert agreement.ecdh(peer.public) == peer.ecdh(agreement.public)

    agrees()


def test_point_that_is_not_on_the_curve_never_reaches_a_token() -> None:
    """An invalid point makes some devices give their key away bit by bit: it cannot even be made."""
    point = PrivateKey.generate().public
    with pytest.raises(FormatError, match="does not lie on P-256"):
        PublicKey(point.x, bytes(31) + b"\x05")


def test_agreements_leave_no_objects_on_the_token(uri: str) -> None:
    from pkcs11 import Attribute, ObjectClass  # noqa: PLC0415  an extra

    keystore = create(uri)
    exercise(keystore.signer, keystore.agreement)
    secrets = keystore.token.use(lambda session: list(session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY})))
    assert secrets == []


# --- what the token holds ----------------------------------------------------------------------


def test_keys_were_made_on_the_token_and_cannot_leave_it(uri: str) -> None:
    from pkcs11 import Attribute, AttributeSensitive  # noqa: PLC0415  an extra

    keystore = create(uri)
    assert keystore.protection().protected == (
        "sign key: made on the token, never could leave it",
        "ecdh key: made on the token, never could leave it",
    )
    for key in (keystore.signer, keystore.agreement):
        with pytest.raises(AttributeSensitive):
            key._find(keystore.token._opened())[Attribute.VALUE]


def test_each_key_does_one_thing_only(uri: str) -> None:
    """The key that signs never agrees."""
    from pkcs11 import DeriveMixin, SignMixin  # noqa: PLC0415  an extra

    keystore = create(uri)
    signs, agrees = (key._find(keystore.token._opened()) for key in (keystore.signer, keystore.agreement))
    assert (isinstance(signs, SignMixin), isinstance(signs, DeriveMixin)) == (True, False)
    assert (isinstance(agrees, SignMixin), isinstance(agrees, DeriveMixin)) == (False, True)


def test_software_token_is_not_called_hardware(uri: str) -> None:
    protection = create(uri).protection()
    assert not protection.hardware
    assert any("in this process" in line for line in protection.ram)


def test_imported_or_extractable_keys_are_called_that(hsm: SoftHsm, uri: str) -> None:
    label = TokenUri.parse(uri).object
    put(hsm, f"{label}-sign", extractable=True)
    put(hsm, f"{label}-ecdh", uses="DERIVE")
    sign, ecdh = reopen(uri).protection().protected
    assert sign == "sign key: imported: it was elsewhere before, CAN BE EXPORTED"
    assert ecdh == "ecdh key: imported: it was elsewhere before, cannot leave it now"


def put(hsm: SoftHsm, label: str, **options: object) -> None:
    from edged.keystore.token import Token  # noqa: PLC0415  an extra

    token = Token.of(TokenUri.parse(hsm.uri("edged")), PIN.encode())
    token.write(lambda session: put_key(session, label, PrivateKey.generate(), **options))


def test_second_keys_of_a_label_are_not_made(uri: str) -> None:
    first = create(uri)
    with pytest.raises(OutputError, match=r"holds 't[0-9a-f]+-sign' already"):
        create(uri)
    assert reopen(uri).signer.public == first.signer.public


def test_destroyed_keys_are_gone(uri: str) -> None:
    create(uri).destroy()
    with pytest.raises(KeystoreError, match="holds no private keys labelled"):
        reopen(uri)
    create(uri)


def test_nothing_stays_on_a_token_that_makes_one_key_and_then_fails(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import edged.keystore.pkcs11 as module  # noqa: PLC0415  an extra

    generate = module._generate

    def fail(session: object, *, label: str, purpose: str) -> None:
        if purpose == "ecdh":
            raise KeystoreError("the token is full")
        generate(session, label=label, purpose=purpose)

    monkeypatch.setattr(module, "_generate", fail)
    with pytest.raises(KeystoreError, match="the token is full"):
        create(uri)
    monkeypatch.undo()
    create(uri)


def test_session_that_was_closed_from_outside_is_opened_again(uri: str) -> None:
    """As when a token was pulled out and put in again."""
    keystore = create(uri)
    keystore.token._session.close()
    exercise(keystore.signer, keystore.agreement)


# --- what goes wrong ---------------------------------------------------------------------------


def test_wrong_pin_is_refused_and_the_right_one_still_works(uri: str) -> None:
    create(uri)
    with pytest.raises(KeystoreError, match="token 'edged': the PIN is wrong"):
        reopen(uri, "9999")
    reopen(uri)


def test_absent_pin_names_the_key_that_holds_it(uri: str) -> None:
    create(uri)
    with pytest.raises(KeystoreError, match="wants a PIN") as caught:
        open_keystore(uri, NOWHERE, None)
    assert "keystore.pin" in caught.value.hint


def test_absent_module_is_named() -> None:
    with pytest.raises(KeystoreError, match=r"the PKCS#11 module /nowhere/hsm\.so cannot be used") as caught:
        reopen("pkcs11:token=edged?module-path=/nowhere/hsm.so")
    assert "module-path" in caught.value.hint


def test_absent_token_is_named_with_those_that_are_there(hsm: SoftHsm) -> None:
    with pytest.raises(KeystoreError, match="there is no token token=absent") as caught:
        reopen(hsm.uri("absent"))
    assert sorted(caught.value.hint.removeprefix("there are ").split(", ")) == ["'edged'", "'other'"]


def test_two_tokens_that_match_are_told_apart_by_serial(hsm: SoftHsm) -> None:
    with pytest.raises(KeystoreError, match="2 tokens are model=SoftHSM v2") as caught:
        reopen(f"pkcs11:model=SoftHSM%20v2?module-path={hsm.module}")
    assert "serial" in caught.value.hint


def test_key_of_the_wrong_curve_is_refused(uri: str) -> None:
    from pkcs11 import Attribute, KeyType, MechanismFlag  # noqa: PLC0415  an extra

    from edged.keystore.token import Token  # noqa: PLC0415  as above

    label = TokenUri.parse(uri).object

    def make(session: object) -> None:
        p384 = {Attribute.EC_PARAMS: bytes.fromhex("06052b81040022")}
        domain = session.create_domain_parameters(KeyType.EC, p384, local=True)
        for purpose in ("sign", "ecdh"):
            may = MechanismFlag.SIGN | MechanismFlag.VERIFY | MechanismFlag.DERIVE
            domain.generate_keypair(label=f"{label}-{purpose}", store=True, capabilities=may)

    Token.of(TokenUri.parse(uri), PIN.encode()).write(make)
    with pytest.raises(KeystoreError, match="is not on P-256"):
        reopen(uri)


def test_key_that_may_not_do_what_it_is_for_is_refused(hsm: SoftHsm, uri: str) -> None:
    put(hsm, f"{TokenUri.parse(uri).object}-sign", uses="DERIVE")
    put(hsm, f"{TokenUri.parse(uri).object}-ecdh", uses="DERIVE")
    with pytest.raises(KeystoreError, match="may not be used for sign"):
        reopen(uri)


# --- keys of people ------------------------------------------------------------------------------


def test_publisher_on_a_token_signs_and_opens_nothing(uri: str) -> None:
    where = TokenUri.parse(uri)
    made = PersonalKeys.make_on_token(where, PIN.encode(), agreement=False)
    found = PersonalKeys.on_token(where, PIN.encode())
    assert found.agreement is None
    assert found.need_publisher(Path("x")).public == made.signer.public


def test_hub_on_a_token_has_both_keys_and_signs_no_models(uri: str) -> None:
    where = TokenUri.parse(uri)
    PersonalKeys.make_on_token(where, PIN.encode(), agreement=True)
    found = PersonalKeys.on_token(where, PIN.encode())
    peer = PrivateKey.generate()
    assert found.need_agreement(Path("x")).ecdh(peer.public) == peer.ecdh(found.need_agreement(Path("x")).public)
    with pytest.raises(KeystoreError, match="sign no models"):
        found.need_publisher(Path("x"))


def test_personal_keys_need_a_label(hsm: SoftHsm) -> None:
    with pytest.raises(ConfigError, match="names no key"):
        PersonalKeys.on_token(TokenUri.parse(hsm.uri("edged")), PIN.encode())
