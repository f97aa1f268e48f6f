"""Vectors: the three COSE objects by themselves."""

from __future__ import annotations

from typing import Any

import cbor2
from kit import (
    BOARD,
    CHACHA,
    ES256,
    ES384,
    GCM,
    KDF_CONTEXT,
    OPERATOR,
    OTHER,
    PUBLISHER,
    WRAP,
    WRAP128,
    Pair,
    Symmetric,
    Vector,
    attached,
    cbor,
    encrypt,
    encrypt0,
    filler,
    recipient,
    sign1,
)


def sign1_vectors() -> list[Vector]:
    aad, payload = cbor(["edged.test.1", "a"]), b"signed"
    made = sign1(PUBLISHER, payload, aad)
    signature = made[-64:]
    flipped = signature[:-1] + bytes([signature[-1] ^ 1])

    def vector(name: str, rule: str, data: bytes, expect: str = "FormatError") -> Vector:
        return {"name": name, "rule": rule, "data": data.hex(), "key": "publisher", "aad": aad.hex(), "expect": expect}

    crit = {"header": cbor({1: ES256, 2: [1]})}
    return [
        {**vector("good", "a signature that holds", made, "opens"), "payload": payload.hex()},
        vector("untagged", "objects are tagged", sign1(PUBLISHER, payload, aad, tag=None)),
        vector("wrong-tag", "the tag is 18", sign1(PUBLISHER, payload, aad, tag=16)),
        vector("trailing-byte", "nothing stands behind the object", made + b"\0"),
        vector("crit", "`crit` is refused", sign1(PUBLISHER, payload, aad, **crit)),
        vector("alg-es384", "signatures are ES256", sign1(PUBLISHER, payload, aad, header=cbor({1: ES384}))),
        vector("alg-as-float", "an algorithm is an integer", sign1(PUBLISHER, payload, aad, header=cbor({1: -7.0}))),
        vector("no-alg", "the protected header is {1: alg}", sign1(PUBLISHER, payload, aad, header=b"")),
        vector("empty-map-header", "the protected header is {1: alg}", sign1(PUBLISHER, payload, aad, header=cbor({}))),
        vector("long-header", "the protected header is deterministic", sign1(PUBLISHER, payload, aad, header=b"\xa1\x01\x38\x06")),
        vector("kid-protected", "the kid stands in the unprotected header",
               sign1(PUBLISHER, payload, aad, header=cbor({1: ES256, 4: PUBLISHER.kid}), unprotected={})),
        vector("unknown-header", "unknown headers are refused",
               sign1(PUBLISHER, payload, aad, unprotected={4: PUBLISHER.kid, 3: 0})),
        vector("no-kid", "a kid is needed", sign1(PUBLISHER, payload, aad, unprotected={})),
        vector("detached", "the payload is attached", sign1(PUBLISHER, payload, aad, payload=None)),
        vector("not-canonical", "deterministic encoding", made.replace(b"\x46signed", b"\x58\x06signed")),
        vector("other-kid", "the kid is the signer's", sign1(PUBLISHER, payload, aad, kid=OTHER.kid), "UnknownSignerError"),
        vector("other-signer", "the signature is the key's", sign1(OTHER, payload, aad, kid=PUBLISHER.kid), "SignatureError"),
        vector("other-purpose", "the external_aad names the purpose",
               sign1(PUBLISHER, payload, cbor(["edged.test.1", "b"])), "SignatureError"),
        vector("flipped-signature", "a flipped bit", made[:-64] + flipped, "SignatureError"),
        vector("other-payload", "another payload", sign1(PUBLISHER, payload, aad, payload=b"Signed"), "SignatureError"),
        vector("der-signature", "a signature is r || s, 64 bytes", sign1(PUBLISHER, payload, aad, signature=signature + b"\0"),
               "SignatureError"),
        vector("zero-signature", "r and s are not zero", sign1(PUBLISHER, payload, aad, signature=bytes(64)), "SignatureError"),
    ]  # fmt: skip


def encrypt0_vectors() -> list[Vector]:
    key, aad = Symmetric("message"), cbor(["edged.test.1", "a"])
    iv, plain = (1).to_bytes(8, "big") + b"salt", b"sealed"
    made = encrypt0(key, iv, plain, aad)
    chacha = Symmetric("message", CHACHA)

    def vector(name: str, rule: str, data: bytes, expect: str = "FormatError", alg: int = GCM) -> Vector:
        return {
            "name": name, "rule": rule, "data": data.hex(), "key": {"alg": alg, "k": key.k.hex()},
            "aad": aad.hex(), "limit": 1024, "expect": expect,
        }  # fmt: skip

    opens = {"plaintext": plain.hex(), "iv": iv.hex()}
    swapped = made.replace(b"\xa2\x04\x48" + key.kid + b"\x05\x4c" + iv, b"\xa2\x05\x4c" + iv + b"\x04\x48" + key.kid)
    long = encrypt0(key, iv, bytes(300), aad)
    other = Symmetric("other message")
    return [
        {**vector("gcm", "A256GCM", made, "opens"), **opens},
        {**vector("chacha", "ChaCha20/Poly1305", encrypt0(chacha, iv, plain, aad), "opens", CHACHA), **opens},
        {**vector("headers-swapped", "headers in either order", swapped, "opens"), **opens},
        {**vector("two-byte-length", "300 bytes", long, "opens"), "plaintext": bytes(300).hex(), "iv": iv.hex()},
        vector("untagged", "objects are tagged", made[1:]),
        vector("wrong-tag", "the tag is 16", encrypt0(key, iv, plain, aad, tag=96)),
        vector("trailing-byte", "nothing stands behind the object", made + b"\0"),
        vector("cut-short", "the object is whole", made[:-1]),
        vector("too-large", "larger than the limit", encrypt0(key, iv, bytes(2000), aad)),
        vector("crit", "`crit` is refused", encrypt0(key, iv, plain, aad, header=cbor({1: GCM, 2: [1]}))),
        vector("alg-a128gcm", "content algorithms are 3 and 24", encrypt0(key, iv, plain, aad, header=cbor({1: 1}))),
        vector("no-alg", "the protected header is {1: alg}", encrypt0(key, iv, plain, aad, header=b"")),
        vector("partial-iv", "a partial IV is refused",
               encrypt0(key, iv, plain, aad, unprotected={4: key.kid, 6: iv[4:8]})),
        vector("unknown-header", "unknown headers are refused",
               encrypt0(key, iv, plain, aad, unprotected={4: key.kid, 5: iv, 3: 0})),
        vector("no-kid", "a kid is needed", encrypt0(key, iv, plain, aad, unprotected={5: iv})),
        vector("long-kid", "a kid is 8 bytes", encrypt0(key, iv, plain, aad, kid=key.commit)),
        vector("short-iv", "an IV is 12 bytes", encrypt0(key, iv, plain, aad, unprotected={4: key.kid, 5: iv[:8]})),
        vector("detached", "the ciphertext is attached", encrypt0(key, iv, plain, aad, ciphertext=None)),
        vector("shorter-than-tag", "a ciphertext holds its tag", encrypt0(key, iv, plain, aad, ciphertext=bytes(15))),
        vector("other-key", "another key's id", encrypt0(other, iv, plain, aad), "UnknownKeyError"),
        vector("other-alg", "message and key are for the same algorithm", encrypt0(chacha, iv, plain, aad), "UnknownKeyError"),
        vector("kid-of-another-key", "the tag holds", encrypt0(other, iv, plain, aad, kid=key.kid), "DecryptionError"),
        vector("other-purpose", "the external_aad names the purpose",
               encrypt0(key, iv, plain, cbor(["edged.test.1", "b"])), "DecryptionError"),
        vector("flipped-tag", "a flipped bit", made[:-1] + bytes([made[-1] ^ 1]), "DecryptionError"),
        vector("flipped-iv", "a flipped bit", made.replace(iv, b"\1" + iv[1:]), "DecryptionError"),
    ]  # fmt: skip


def encrypt_vectors() -> list[Vector]:
    key, iv, aad, plain = Symmetric("content"), filler("iv", 12), cbor(["edged.test.1", "a"]), b"for two"
    ciphertext = key.encrypt(iv, plain, cbor(["Encrypt", cbor({1: GCM}), aad]))
    entries = [recipient(BOARD, key), recipient(OPERATOR, key)]

    def vector(name: str, rule: str, value: object, expect: str = "FormatError", to: str = "board") -> Vector:
        data = value if isinstance(value, bytes) else cbor(value)
        return {
            "name": name, "rule": rule, "data": data.hex(), "key": to, "commit": key.commit.hex(),
            "aad": aad.hex(), "expect": expect,
        }  # fmt: skip

    def entry(**change: Any) -> cbor2.CBORTag:
        return encrypt(key, iv, ciphertext, [recipient(BOARD, key, **change)])

    good = encrypt(key, iv, ciphertext, entries)
    ephemeral = Pair("ephemeral")
    off = {1: 2, -1: 1, -2: ephemeral.x, -3: ephemeral.x}
    zero = {1: 2, -1: 1, -2: bytes(32), -3: bytes(32)}
    compressed = {1: 2, -1: 1, -2: ephemeral.x, -3: True}
    p521 = {1: 2, -1: 3, -2: ephemeral.x, -3: ephemeral.y}
    as_bool = {1: 2, -1: True, -2: ephemeral.x, -3: ephemeral.y}
    private = {**ephemeral.cose, -4: ephemeral.d}
    swap = recipient(BOARD, Symmetric("another content"))
    opens = {"plaintext": plain.hex()}
    context_alg = [GCM, *KDF_CONTEXT[1:]]
    context_pub = [*KDF_CONTEXT[:3], [128, cbor({1: WRAP})]]
    context_salted = [*KDF_CONTEXT[:1], [b"edged", None, None], *KDF_CONTEXT[2:]]
    return [
        {**vector("first-of-two", "one's own entry opens", good, "opens"), **opens},
        {**vector("second-of-two", "one's own entry opens", good, "opens", "operator"), **opens},
        vector("no-entry", "sealed to others", good, "NotARecipientError", "other"),
        vector("untagged", "objects are tagged", good.value),
        vector("wrong-tag", "the tag is 96", encrypt(key, iv, ciphertext, entries, tag=16)),
        vector("trailing-byte", "nothing stands behind the object", cbor(good) + b"\0"),
        vector("no-recipients", "there is a recipient", encrypt(key, iv, ciphertext, [])),
        vector("duplicate-kid", "one entry to a kid", encrypt(key, iv, ciphertext, [entries[0], entries[0]])),
        vector("too-many-recipients", "the list is bounded (here by 4)",
               encrypt(key, iv, ciphertext, [recipient(Pair(f"r{n}"), key) for n in range(5)])),
        vector("crit", "`crit` is refused", encrypt(key, iv, ciphertext, entries, header=cbor({1: GCM, 2: [1]}))),
        vector("alg-a128gcm", "content algorithms are 3 and 24", encrypt(key, iv, ciphertext, entries, header=cbor({1: 1}))),
        vector("alg-es256", "a signature algorithm encrypts nothing",
               encrypt(key, iv, ciphertext, entries, header=cbor({1: ES256}))),
        vector("unknown-header", "unknown headers are refused",
               encrypt(key, iv, ciphertext, entries, unprotected={5: iv, 4: b"kid"})),
        vector("short-iv", "an IV is 12 bytes", encrypt(key, iv[:8], ciphertext, entries)),
        vector("recipient-alg-a128kw", "recipients are ECDH-ES+A256KW", entry(header=cbor({1: WRAP128}))),
        vector("recipient-alg-direct", "recipients are ECDH-ES+A256KW", entry(header=cbor({1: -6}))),
        vector("recipient-crit", "`crit` is refused", entry(header=cbor({1: WRAP, 2: [1]}))),
        vector("recipient-salt", "no salt", entry(unprotected={4: BOARD.kid, -1: ephemeral.cose, -20: b"salt"})),
        vector("recipient-static", "no static sender key",
               entry(unprotected={4: BOARD.kid, -1: ephemeral.cose, -2: ephemeral.cose})),
        vector("recipient-no-kid", "a kid is needed", entry(unprotected={-1: ephemeral.cose})),
        vector("recipient-nested", "recipients have no recipients",
               encrypt(key, iv, ciphertext, [[*entries[0], [entries[1]]]])),
        vector("recipient-short-key", "a wrapped key is 40 bytes", entry(wrapped=bytes(24))),
        vector("point-off-the-curve", "points are on the curve", entry(epk=off)),
        vector("point-zero", "points are on the curve", entry(epk=zero)),
        vector("point-compressed", "points are uncompressed", entry(epk=compressed)),
        vector("point-p521", "points are on P-256", entry(epk=p521)),
        vector("point-crv-true", "true is not 1", entry(epk=as_bool)),
        vector("point-with-private", "a COSE_Key has no other label", entry(epk=private)),
        vector("kdf-context-content-alg", "the KDF context names A256KW", entry(context=context_alg), "DecryptionError"),
        vector("kdf-context-other-size", "the KDF context says 256 bits", entry(context=context_pub), "DecryptionError"),
        vector("kdf-context-party", "the KDF context names no party", entry(context=context_salted), "DecryptionError"),
        vector("entry-of-another", "the entry is one's own", encrypt(key, iv, ciphertext,
               [recipient(OTHER, key, kid=BOARD.kid)]), "DecryptionError"),
        vector("wrong-commit", "the key is the one committed to", encrypt(key, iv, ciphertext, [swap]), "MismatchError"),
        vector("other-purpose", "the external_aad names the purpose",
               attached(key, iv, plain, cbor(["edged.test.1", "b"]), [BOARD]), "DecryptionError"),
        vector("as-encrypt0", "COSE_Encrypt0 and COSE_Encrypt are not mistaken for each other", encrypt(key, iv,
               key.encrypt(iv, plain, cbor(["Encrypt0", cbor({1: GCM}), aad])), entries), "DecryptionError"),
    ]  # fmt: skip
