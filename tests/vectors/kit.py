"""Keys and COSE objects that the vectors are made of, written out after docs/formats.md and nothing of edged's."""

from __future__ import annotations

import hashlib
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

GCM, CHACHA = 3, 24
ES256, ES384, WRAP, WRAP128 = -7, -35, -31, -29
NOW = 1_800_000_000  # 2027-01-15, the hub's clock in these vectors
DAY = 86_400
Vector = dict[str, Any]


def cbor(value: object) -> bytes:
    return cbor2.dumps(value, canonical=True)


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def filler(label: str, size: int) -> bytes:
    """Return bytes that look random and are always the same."""
    return hashlib.shake_128(label.encode()).digest(size)


# --- keys -------------------------------------------------------------------------------------------


class Pair:
    """A P-256 pair whose private scalar comes from its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.d = filler(f"edged test key {name}", 32)
        self.private = ec.derive_private_key(int.from_bytes(self.d, "big"), ec.SECP256R1())
        numbers = self.private.public_key().public_numbers()
        self.x, self.y = numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")
        self.kid = sha256(cbor(self.cose))

    @property
    def cose(self) -> dict[int, object]:
        return {1: 2, -1: 1, -2: self.x, -3: self.y}


class Symmetric:
    """A content key with its commitment."""

    def __init__(self, name: str, alg: int = GCM) -> None:
        self.alg = alg
        self.k = filler(f"edged test key {name}", 32)
        self.commit = sha256(b"edged.key.1", self.k)
        self.kid = self.commit[:8]

    @property
    def cose(self) -> dict[int, object]:
        return {1: 4, 2: self.kid, 3: self.alg, -1: self.k}

    def encrypt(self, iv: bytes, plaintext: bytes, aad: bytes, alg: int | None = None) -> bytes:
        cipher = AESGCM(self.k) if (alg or self.alg) == GCM else ChaCha20Poly1305(self.k)
        return cipher.encrypt(iv, plaintext, aad)


PUBLISHER, OPERATOR_SIGN, OPERATOR = Pair("publisher"), Pair("operator sign"), Pair("operator")
BOARD_SIGN, BOARD, OTHER_SIGN, OTHER = Pair("board sign"), Pair("board"), Pair("other sign"), Pair("other")
HUB_SIGN, HUB, HUB2_SIGN, HUB2 = Pair("hub sign"), Pair("hub"), Pair("hub2 sign"), Pair("hub2")
NEW_SIGN, NEW = Pair("new board sign"), Pair("new board")
AGGREGATOR = Pair("aggregator")
PAIRS = [
    PUBLISHER, OPERATOR_SIGN, OPERATOR, BOARD_SIGN, BOARD, OTHER_SIGN, OTHER,
    HUB_SIGN, HUB, HUB2_SIGN, HUB2, NEW_SIGN, NEW,
    AGGREGATOR,
]  # fmt: skip


# --- COSE -------------------------------------------------------------------------------------------

MANIFEST_AAD, ENROL_AAD = cbor(["edged.manifest.1"]), cbor(["edged.enrol.1"])


def es256(key: Pair, message: bytes) -> bytes:
    der = key.private.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    r, s = decode_dss_signature(der)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def sign1(key: Pair, payload: bytes, aad: bytes, /, **change: Any) -> bytes:
    header = change.get("header", cbor({1: ES256}))
    signature = es256(key, cbor(["Signature1", header, aad, payload]))
    unprotected = change.get("unprotected", {4: change.get("kid", key.kid)})
    value = [header, unprotected, change.get("payload", payload), change.get("signature", signature)]
    tag = change.get("tag", 18)
    return cbor(value if tag is None else cbor2.CBORTag(tag, value))


def encrypt0(key: Symmetric, iv: bytes, plaintext: bytes, aad: bytes, /, **change: Any) -> bytes:
    header = change.get("header", cbor({1: key.alg}))
    ciphertext = key.encrypt(iv, plaintext, cbor(["Encrypt0", header, aad]))
    unprotected = change.get("unprotected", {4: change.get("kid", key.kid), 5: iv})
    return cbor(cbor2.CBORTag(change.get("tag", 16), [header, unprotected, change.get("ciphertext", ciphertext)]))


KDF_CONTEXT = [-5, [None, None, None], [None, None, None], [256, cbor({1: WRAP})]]


def recipient(to: Pair, key: Symmetric, **change: Any) -> list[object]:
    ephemeral = Pair(f"ephemeral to {to.name} {key.kid.hex()}")
    z = ephemeral.private.exchange(ec.ECDH(), to.private.public_key())
    kek = HKDF(hashes.SHA256(), 32, salt=None, info=cbor(change.get("context", KDF_CONTEXT))).derive(z)
    epk = change.get("epk", ephemeral.cose)
    header = change.get("header", cbor({1: WRAP}))
    unprotected = change.get("unprotected", {4: change.get("kid", to.kid), -1: epk})
    return [header, unprotected, change.get("wrapped", aes_key_wrap(kek, key.k))]


def encrypt(key: Symmetric, iv: bytes, ciphertext: bytes | None, recipients: list[Any], **change: Any) -> cbor2.CBORTag:
    header = change.get("header", cbor({1: key.alg}))
    return cbor2.CBORTag(change.get("tag", 96), [header, change.get("unprotected", {5: iv}), ciphertext, recipients])


def attached(key: Symmetric, iv: bytes, plaintext: bytes, aad: bytes, to: list[Pair]) -> cbor2.CBORTag:
    ciphertext = key.encrypt(iv, plaintext, cbor(["Encrypt", cbor({1: key.alg}), aad]))
    return encrypt(key, iv, ciphertext, [recipient(pair, key) for pair in to])


# --- enrolment records ------------------------------------------------------------------------------


def record_payload(role: str, name: str, sign: Pair, ecdh: Pair | None, /, **change: Any) -> bytes:
    fields: dict[str, Any] = {"role": role, "id": name, "sign": sign.cose, "created": NOW - DAY}
    if ecdh is not None:
        fields["ecdh"] = ecdh.cose
    if role == "device":
        fields["aead"] = GCM
    fields.update(change)
    return cbor({key: value for key, value in fields.items() if value is not ...})


def record(role: str, name: str, sign: Pair, ecdh: Pair | None, /, **change: Any) -> bytes:
    return sign1(sign, record_payload(role, name, sign, ecdh, **change), ENROL_AAD)


BOARD_RECORD = record("device", "press-07", BOARD_SIGN, BOARD)
