"""Both ways with pycose: it opens what edged seals, and edged opens what it seals.

pycose has no ChaCha20/Poly1305. Its KDF context for ECDH-ES+A256KW is the one that edged uses.
"""

from __future__ import annotations

import os

import cbor2
import pytest

from edged.formats.cose import cbor
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.encrypt import Encrypt, seal
from edged.formats.cose.encrypt0 import Box
from edged.formats.cose.keys import ContentKey, PrivateKey, PublicKey
from edged.formats.cose.sign1 import Sign1, sign

pycose = pytest.importorskip(
    "pycose", reason="pycose is not installed here: `make test-interop` has an environment for it"
)

from pycose.algorithms import A256GCM, EcdhEsA256KW, Es256  # noqa: E402  behind importorskip
from pycose.headers import IV, KID, Algorithm, EphemeralKey, StaticKey  # noqa: E402  as above
from pycose.keys import EC2Key, SymmetricKey  # noqa: E402  as above
from pycose.keys.curves import P256  # noqa: E402  as above
from pycose.keys.keyops import DecryptOp, DeriveKeyOp, EncryptOp, SignOp, VerifyOp  # noqa: E402  as above
from pycose.keys.keyparam import KpAlg, KpKeyOps  # noqa: E402  as above
from pycose.messages import CoseMessage, Enc0Message, EncMessage, Sign1Message  # noqa: E402  as above
from pycose.messages.recipient import KeyAgreementWithKeyWrap  # noqa: E402  as above

pytestmark = pytest.mark.filterwarnings("default")  # pycose's own
AAD = cbor.encode(["edged.test.1", "a"])
PLAINTEXT = b"This is the content."


def private(key: PrivateKey, *operations: type) -> EC2Key:
    return EC2Key(
        crv=P256, x=key.public.x, y=key.public.y, d=key.scalar(), optional_params={KpKeyOps: list(operations)}
    )


def public(key: PublicKey, *operations: type) -> EC2Key:
    return EC2Key(crv=P256, x=key.x, y=key.y, optional_params={KpKeyOps: list(operations)})


def symmetric(key: ContentKey, operation: type) -> SymmetricKey:
    return SymmetricKey(k=key.secret, optional_params={KpAlg: A256GCM, KpKeyOps: [operation]})


def test_encrypt0_sealed_by_edged() -> None:
    key = ContentKey.generate(Aead.A256GCM)
    message = CoseMessage.decode(Box(key, AAD).seal(os.urandom(12), PLAINTEXT))
    message.key = symmetric(key, DecryptOp)
    message.external_aad = AAD
    assert message.decrypt() == PLAINTEXT


def test_encrypt0_sealed_by_pycose() -> None:
    key, iv = ContentKey.generate(Aead.A256GCM), os.urandom(12)
    message = Enc0Message({Algorithm: A256GCM}, {KID: key.kid, IV: iv}, PLAINTEXT, external_aad=AAD)
    message.key = symmetric(key, EncryptOp)
    assert Box(key, AAD).open(message.encode(), 4096) == (iv, PLAINTEXT)


def test_sign1_made_by_edged() -> None:
    key = PrivateKey.generate()
    message = CoseMessage.decode(sign(PLAINTEXT, AAD, key))
    message.key = public(key.public, VerifyOp)
    message.external_aad = AAD
    assert message.verify_signature()
    message.external_aad = b"another purpose"
    assert not message.verify_signature()


def test_sign1_made_by_pycose() -> None:
    key = PrivateKey.generate()
    message = Sign1Message({Algorithm: Es256}, {KID: key.public.thumbprint}, PLAINTEXT, external_aad=AAD)
    message.key = private(key, SignOp)
    assert Sign1.parse(message.encode()).verify(key.public, AAD) == PLAINTEXT


@pytest.mark.parametrize("mine", [0, 1])
def test_encrypt_sealed_by_edged(mine: int) -> None:
    keys = [PrivateKey.generate(), PrivateKey.generate()]
    sealed = seal(ContentKey.generate(Aead.A256GCM), os.urandom(12), PLAINTEXT, AAD, [key.public for key in keys])
    message = CoseMessage.decode(cbor.encode(sealed.cose()))
    message.external_aad = AAD
    recipient = message.recipients[mine]
    recipient.key = private(keys[mine], DeriveKeyOp)
    assert message.decrypt(recipient) == PLAINTEXT


def test_encrypt_sealed_by_pycose() -> None:
    key, ephemeral, content = PrivateKey.generate(), PrivateKey.generate(), ContentKey.generate(Aead.A256GCM)
    recipient = KeyAgreementWithKeyWrap(
        {Algorithm: EcdhEsA256KW},
        {KID: key.public.thumbprint, EphemeralKey: EC2Key(crv=P256, x=ephemeral.public.x, y=ephemeral.public.y)},
        payload=content.secret,
    )
    recipient.key = private(ephemeral, DeriveKeyOp)
    recipient.local_attrs = {StaticKey: public(key.public, DeriveKeyOp)}
    message = EncMessage({Algorithm: A256GCM}, {IV: os.urandom(12)}, PLAINTEXT, AAD, recipients=[recipient])
    sealed = Encrypt.parse(cbor.decode(message.encode()), most=1)
    assert sealed.open(sealed.unwrap(key, content.commit), AAD) == PLAINTEXT


def test_cbor2_is_the_one_that_cwt_wants() -> None:
    """The rest of the tests run on the cbor2 that users get; here edged runs on the older one."""
    assert cbor2.loads(cbor.encode({1: [b"", "", None]})) == {1: [b"", "", None]}
