"""The COSE working group's own examples (github.com/cose-wg/Examples), from the folder in COSE_EXAMPLES.

They use other key ids, and algorithms that edged refuses. What is of edged's kind must work, down to the intermediate
values that they publish; what is of another kind must be refused as a FormatError.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap

from edged.base.errors import FormatError, SignatureError
from edged.formats.cose import cbor, encrypt, sign1
from edged.formats.cose.algorithms import Aead, decrypt, enc_structure, protected
from edged.formats.cose.encrypt import Encrypt
from edged.formats.cose.encrypt0 import parse
from edged.formats.cose.keys import PrivateKey, PublicKey
from edged.formats.cose.sign1 import Sign1

Example = dict[str, Any]
FOLDER = os.environ.get("COSE_EXAMPLES")
pytestmark = pytest.mark.skipif(FOLDER is None, reason="COSE_EXAMPLES names no folder (a clone of cose-wg/Examples)")


def load(name: str) -> Example:
    assert FOLDER is not None
    example: Example = json.loads((Path(FOLDER) / name).read_text())
    return example


def every(folder: str, pattern: str) -> list[str]:
    return sorted(f"{folder}/{path.name}" for path in (Path(FOLDER) / folder).glob(pattern)) if FOLDER else []


def message_of(example: Example) -> bytes:
    return bytes.fromhex(example["output"]["cbor"])


def number(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def public_of(key: Example) -> PublicKey:
    return PublicKey(number(key["x"]), number(key["y"]))


def aad_of(part: Example) -> bytes:
    return bytes.fromhex(part.get("external", ""))


def canonical(message: bytes) -> bytes:
    """Encode as edged wants trust structures to be: the signature does not cover the headers around it."""
    return cbor2.dumps(cbor2.loads(message), canonical=True)


@pytest.mark.parametrize("name", ["sign1-tests/sign-pass-02.json"])
def test_sign1_verifies(name: str) -> None:
    example = load(name)
    part = example["input"]["sign0"]
    signed = Sign1.parse(canonical(message_of(example)))
    assert signed.unverified.decode() == example["input"]["plaintext"]
    expected = example["intermediates"]["ToBeSign_hex"].lower()
    assert sign1._sig_structure(aad_of(part), signed.unverified).hex() == expected
    public_of(part["key"]).verify(signed.signature, bytes.fromhex(expected))


@pytest.mark.parametrize("name", ["sign1-tests/sign-fail-02.json", "sign1-tests/sign-fail-07.json"])
def test_sign1_altered_does_not_verify(name: str) -> None:
    example = load(name)
    part = example["input"]["sign0"]
    signed = Sign1.parse(canonical(message_of(example)))
    with pytest.raises(SignatureError):
        public_of(part["key"]).verify(signed.signature, sign1._sig_structure(aad_of(part), signed.unverified))


@pytest.mark.parametrize("name", [f"sign1-tests/sign-fail-0{number}.json" for number in (1, 3, 4, 6)])
def test_sign1_of_another_shape_is_refused(name: str) -> None:
    with pytest.raises(FormatError):
        Sign1.parse(canonical(message_of(load(name))))


@pytest.mark.parametrize("name", every("ecdsa-examples", "*.json") + every("eddsa-examples", "*.json"))
def test_other_signatures_are_refused(name: str) -> None:
    """Other algorithms, other headers, or COSE_Sign where a COSE_Sign1 is wanted."""
    example = load(name)
    with pytest.raises(FormatError):
        Sign1.parse(canonical(message_of(example)))


@pytest.mark.parametrize(
    ("name", "aead"),
    [
        ("aes-gcm-examples/aes-gcm-enc-03.json", Aead.A256GCM),
        ("chacha-poly-examples/chacha-poly-enc-01.json", Aead.CHACHA20_POLY1305),
    ],
)
def test_encrypt0_content_decrypts(name: str, aead: Aead) -> None:
    """Their messages name no key, so they are no sealed messages of edged's; what is inside opens.

    One file's AAD still says "Encrypt1", as a draft did; its message is sealed with "Encrypt0".
    """
    example = load(name)
    message = message_of(example)
    with pytest.raises(FormatError, match=r"exactly \{4: kid, 5: IV\}"):
        parse(message, 4096)
    header, unprotected, ciphertext = cbor2.loads(message).value
    assert header == protected(aead)
    aad = enc_structure("Encrypt0", header, aad_of(example["input"]["encrypted"]))
    assert aad == bytes.fromhex(example["intermediates"]["AAD_hex"]).replace(b"Encrypt1", b"Encrypt0")
    key = bytes.fromhex(example["intermediates"]["CEK_hex"])
    plaintext = decrypt(aead.cipher(key), unprotected[5], ciphertext, aad)
    assert plaintext.decode() == example["input"]["plaintext"]


@pytest.mark.parametrize(
    "name",
    every("aes-ccm-examples", "aes-ccm-enc-*.json")
    + every("aes-gcm-examples", "aes-gcm-enc-0[124].json")
    + every("encrypted-tests", "*.json"),
)
def test_encrypt0_of_another_kind_is_refused(name: str) -> None:
    with pytest.raises(FormatError):
        parse(message_of(load(name)), 4096)


@pytest.mark.parametrize("name", ["ecdh-wrap-examples/p256-wrap-256-02.json"])
def test_encrypt_to_p256_opens(name: str) -> None:
    """A256GCM under ECDH-ES+A256KW: point, shared secret, KDF context, KEK, content key, plaintext."""
    example = load(name)
    (recipient_input,) = example["input"]["enveloped"]["recipients"]
    (intermediate,) = example["intermediates"]["recipients"]
    sealed = Encrypt.parse(cbor.decode(message_of(example)), most=1)
    (recipient,) = sealed.recipients
    key = PrivateKey.from_scalar(number(recipient_input["key"]["d"]))
    assert key.public == public_of(recipient_input["key"])
    assert recipient.kid.decode() == recipient_input["key"]["kid"]
    z = key.ecdh(PublicKey(*recipient.ephemeral))
    assert z.hex() == intermediate["Secret_hex"].lower()
    context = cbor2.loads(bytes.fromhex(intermediate["Context_hex"]))
    assert cbor.encode(context) == encrypt._KDF_CONTEXT
    kek = encrypt._kek(z)
    assert kek.hex() == intermediate["KEK_hex"].lower()
    content = recipient.unwrap(key)
    assert content == aes_key_unwrap(kek, recipient.wrapped)
    assert content.hex() == example["intermediates"]["CEK_hex"].lower()
    opened = encrypt.ContentKey(sealed.aead, content)
    assert sealed.open(opened, b"").decode() == example["input"]["plaintext"]


@pytest.mark.parametrize(
    "name",
    every("ecdh-wrap-examples", "p256-wrap-1*.json")
    + every("ecdh-wrap-examples", "p256-ss-*.json")
    + every("ecdh-wrap-examples", "p521-*.json")
    + every("ecdh-direct-examples", "*.json")
    + every("enveloped-tests", "*.json")
    + every("X25519-tests", "*.json"),
)
def test_encrypt_of_another_kind_is_refused(name: str) -> None:
    with pytest.raises(FormatError):
        Encrypt.parse(cbor.decode(message_of(load(name))), most=4)
