"""Both ways with cwt: it opens what edged seals, and edged opens what it seals, with both content algorithms."""

from __future__ import annotations

import os
from typing import Any

import pytest

from edged.formats.cose import cbor
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.encrypt import Encrypt, seal
from edged.formats.cose.encrypt0 import Box
from edged.formats.cose.keys import ContentKey, PrivateKey
from edged.formats.cose.sign1 import Sign1, sign

cwt = pytest.importorskip("cwt", reason="cwt is not installed here: `make test-interop` has an environment for it")

pytestmark = pytest.mark.filterwarnings("default")  # cwt's own
AAD = cbor.encode(["edged.test.1", "a"])
PLAINTEXT = b"This is the content."
CONTEXT = {"alg": "A256KW", "supp_pub": {"key_data_length": 256, "protected": {1: -31}}}
AEADS = pytest.mark.parametrize("aead", list(Aead))
NAMES = {Aead.A256GCM: "A256GCM", Aead.CHACHA20_POLY1305: "ChaCha20/Poly1305"}


def symmetric(key: ContentKey) -> Any:  # noqa: ANN401  cwt is absent where types are checked
    return cwt.COSEKey.from_symmetric_key(key.secret, alg=NAMES[key.aead], kid=key.kid)


def pair(key: PrivateKey, algorithm: int, *, public: bool = False) -> Any:  # noqa: ANN401  as above
    labels: dict[int, object] = {**key.public.cose(), 2: key.public.thumbprint, 3: algorithm}
    return cwt.COSEKey.new(labels if public else {**labels, -4: key.scalar()})


@AEADS
def test_encrypt0_sealed_by_edged(aead: Aead) -> None:
    key = ContentKey.generate(aead)
    message = Box(key, AAD).seal(os.urandom(12), PLAINTEXT)
    assert cwt.COSE.new().decode(message, symmetric(key), external_aad=AAD) == PLAINTEXT


@AEADS
def test_encrypt0_sealed_by_cwt(aead: Aead) -> None:
    key, iv = ContentKey.generate(aead), os.urandom(12)
    message = cwt.COSE.new().encode_and_encrypt(
        PLAINTEXT, symmetric(key), protected={1: int(aead)}, unprotected={4: key.kid, 5: iv}, external_aad=AAD
    )
    assert Box(key, AAD).open(message, 4096) == (iv, PLAINTEXT)


def test_sign1_made_by_edged() -> None:
    key = PrivateKey.generate()
    message = sign(PLAINTEXT, AAD, key)
    assert cwt.COSE.new().decode(message, pair(key, -7, public=True), external_aad=AAD) == PLAINTEXT
    with pytest.raises(cwt.VerifyError):
        cwt.COSE.new().decode(message, pair(key, -7, public=True), external_aad=b"another purpose")


def test_sign1_made_by_cwt() -> None:
    key = PrivateKey.generate()
    message = cwt.COSE.new().encode_and_sign(
        PLAINTEXT, pair(key, -7), protected={1: -7}, unprotected={4: key.public.thumbprint}, external_aad=AAD
    )
    assert Sign1.parse(message).verify(key.public, AAD) == PLAINTEXT


@AEADS
@pytest.mark.parametrize("mine", [0, 1])
def test_encrypt_sealed_by_edged(aead: Aead, mine: int) -> None:
    keys = [PrivateKey.generate(), PrivateKey.generate()]
    sealed = seal(ContentKey.generate(aead), os.urandom(12), PLAINTEXT, AAD, [key.public for key in keys])
    message = cbor.encode(sealed.cose())
    assert cwt.COSE.new().decode(message, pair(keys[mine], -31), context=CONTEXT, external_aad=AAD) == PLAINTEXT


@AEADS
def test_encrypt_sealed_by_cwt(aead: Aead) -> None:
    key, content = PrivateKey.generate(), ContentKey.generate(aead)
    recipient = cwt.Recipient.new(
        protected={1: -31},
        unprotected={4: key.public.thumbprint},
        recipient_key=pair(key, -31, public=True),
        context=CONTEXT,
    )
    message = cwt.COSE.new().encode_and_encrypt(
        PLAINTEXT,
        symmetric(content),
        protected={1: int(aead)},
        unprotected={5: os.urandom(12)},
        recipients=[recipient],
        external_aad=AAD,
    )
    sealed = Encrypt.parse(cbor.decode(message), most=1)
    assert sealed.open(sealed.unwrap(key, content.commit), AAD) == PLAINTEXT
