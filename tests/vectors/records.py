"""Vectors: enrolment records and key files."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from kit import (
    BOARD,
    BOARD_RECORD,
    BOARD_SIGN,
    ENROL_AAD,
    HUB,
    HUB_SIGN,
    MANIFEST_AAD,
    NEW,
    NEW_SIGN,
    NOW,
    OPERATOR,
    OPERATOR_SIGN,
    OTHER,
    OTHER_SIGN,
    PUBLISHER,
    Symmetric,
    Vector,
    cbor,
    encrypt0,
    filler,
    record,
    record_payload,
    sha256,
    sign1,
)

P = 2**256 - 2**224 + 2**192 + 2**96 - 1
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B


def point_at(x: int) -> dict[int, Any]:
    """Return the point of P-256 with the lower y at an x; it is nobody's key."""
    square = (x**3 - 3 * x + B) % P
    root = pow(square, (P + 1) // 4, P)
    assert root * root % P == square
    return {1: 2, -1: 1, -2: x.to_bytes(32, "big"), -3: min(root, P - root).to_bytes(32, "big")}


def plus_p(coordinate: bytes) -> bytes:
    return (int.from_bytes(coordinate, "big") + P).to_bytes(32, "big")


ZERO_X, LOW_X = point_at(0), point_at(5)


def record_vectors() -> list[Vector]:
    def vector(name: str, rule: str, data: bytes, expect: str = "FormatError", **more: object) -> Vector:
        return {"name": name, "rule": rule, "data": data.hex(), "expect": expect, **more}

    def board(**change: Any) -> bytes:
        return record("device", "press-07", BOARD_SIGN, BOARD, **change)

    new_payload = record_payload("device", "press-07", NEW_SIGN, NEW)
    new = sign1(NEW_SIGN, new_payload, ENROL_AAD)
    old = {"replaces": BOARD_RECORD.hex()}
    other = record_payload("device", "press-07", NEW_SIGN, NEW, created=NOW)
    shown = {"role": "device", "id": "press-07", "fingerprint": BOARD_SIGN.kid.hex()[:32]}
    return [
        {**vector("device", "a board's record", BOARD_RECORD, "opens"), **shown},
        vector("publisher", "a publisher has no key to seal to", record("publisher", "acme", PUBLISHER, None), "opens"),
        vector("operator", "an operator has both keys", record("operator", "fleet", OPERATOR_SIGN, OPERATOR), "opens"),
        vector("hub", "a hub has both keys", record("hub", "home", HUB_SIGN, HUB), "opens"),
        vector("empty", "there is a record", b""),
        vector("unsigned", "a record is signed", record_payload("device", "press-07", BOARD_SIGN, BOARD)),
        vector("missing-key", "all keys are there", board(created=...)),
        vector("unknown-key", "unknown keys are refused", board(note="x")),
        vector("unknown-role", "roles are a closed list", record("auditor", "press-07", BOARD_SIGN, BOARD)),
        vector("role-a-list", "a role is text", board(role=["device"])),
        vector("name-upper-case", "names are in lower case", board(id="Press-07")),
        vector("name-with-slash", "a name is one topic level", board(id="press/07")),
        vector("name-too-long", "a name has at most 64 characters", board(id="p" * 65)),
        vector("date-negative", "dates are not negative", board(created=-1)),
        vector("date-2-to-the-53", "dates are below 2^53", board(created=1 << 53)),
        vector("date-a-float", "dates are integers", board(created=1.5)),
        vector("aead-unknown", "content algorithms are 3 and 24", board(aead=1)),
        vector("device-without-aead", "a board says which algorithm suits it", board(aead=...)),
        vector("device-without-ecdh", "a board has two keys", board(ecdh=...)),
        vector("one-key-twice", "a key has one purpose", board(ecdh=BOARD_SIGN.cose)),
        vector("publisher-with-ecdh", "nothing is sealed to a publisher", record("publisher", "acme", PUBLISHER, OTHER)),
        vector("point-off-the-curve", "points are on the curve", board(ecdh={**BOARD.cose, -3: BOARD.x})),
        vector("x-p-more", "coordinates are below p, even where the same point is meant",
               board(ecdh={**LOW_X, -2: plus_p(LOW_X[-2])})),
        vector("x-is-p", "coordinates are below p", board(ecdh={**ZERO_X, -2: plus_p(ZERO_X[-2])})),
        vector("y-p-or-more", "coordinates are below p", board(ecdh={**BOARD.cose, -3: b"\xff" * 32})),
        vector("x-zero", "0 is a coordinate", board(ecdh=ZERO_X), "opens"),
        vector("x-low", "a coordinate below 2^224 is in 32 bytes", board(ecdh=LOW_X), "opens"),
        vector("signed-by-another", "the record's own key signs it",
               sign1(OTHER, record_payload("device", "press-07", BOARD_SIGN, BOARD), ENROL_AAD), "UnknownSignerError"),
        vector("another-purpose", "the external_aad names the purpose",
               sign1(BOARD_SIGN, record_payload("device", "press-07", BOARD_SIGN, BOARD), MANIFEST_AAD), "SignatureError"),
        vector("same-keys-again", "the same keys need no endorsement", board(created=NOW), "opens", **old),
        vector("replaced-endorsed", "the old key signs the change",
               new + sign1(BOARD_SIGN, new_payload, ENROL_AAD), "opens", **old),
        vector("replaced-not-endorsed", "the old key signs the change", new, "UnknownSignerError", **old),
        vector("replaced-by-another", "the old key signs the change",
               new + sign1(OTHER_SIGN, new_payload, ENROL_AAD), "UnknownSignerError", **old),
        vector("endorsement-forged", "the old key signs the change",
               new + sign1(OTHER_SIGN, new_payload, ENROL_AAD, kid=BOARD_SIGN.kid), "SignatureError", **old),
        vector("endorsement-of-another-record", "both signatures are over the same bytes",
               new + sign1(BOARD_SIGN, other, ENROL_AAD), "FormatError", **old),
        vector("three-signatures", "at most two", new * 3),
    ]  # fmt: skip


def key_vectors() -> list[Vector]:
    sensor, secret = Symmetric("sensor"), b"a systemd credential"
    plain = cbor({**BOARD_SIGN.cose, -4: BOARD_SIGN.d})

    def sealed(purpose: str, payload: bytes = plain) -> bytes:
        info = f"edged.keystore.1 {purpose}".encode()
        key = Symmetric("")
        key.k = HKDF(hashes.SHA256(), 32, salt=None, info=info).derive(secret)
        key.kid = sha256(b"edged.key.1", key.k)[:8]
        return encrypt0(key, filler("key file", 12), payload, cbor(["edged.keystore.1", purpose]))

    def vector(name: str, rule: str, kind: str, data: bytes, expect: str = "KeystoreError", **more: object) -> Vector:
        return {"name": name, "rule": rule, "kind": kind, "data": data.hex(), "expect": expect, **more}

    def value(**change: Any) -> bytes:
        labels = {"kty": 1, "kid": 2, "alg": 3, "k": -1, "more": 4}
        changed = {**sensor.cose, **{labels[name]: part for name, part in change.items()}}
        return cbor({label: part for label, part in changed.items() if part is not ...})

    wrap = {"secret": secret.hex()}
    return [
        vector("sensor", "a sensor's key", "sensor", cbor(sensor.cose), "opens", kid=sensor.kid.hex()),
        vector("sensor-not-canonical", "deterministic encoding", "sensor", cbor(sensor.cose).replace(b"\xa4\x01\x04", b"\xa4\x01\x18\x04")),
        vector("sensor-other-kid", "the kid is the key's", "sensor", value(kid=bytes(8))),
        vector("sensor-short", "a key is 32 bytes", "sensor", value(k=bytes(16))),
        vector("sensor-alg", "content algorithms are 3 and 24", "sensor", value(alg=1)),
        vector("sensor-kty-float", "4.0 is not 4", "sensor", value(kty=4.0)),
        vector("sensor-more-labels", "exactly four labels", "sensor", value(more=[3])),
        vector("sensor-a-pair", "symmetric", "sensor", cbor(BOARD.cose)),
        vector("board", "a board's signing key", "sign", plain, "opens", kid=BOARD_SIGN.kid.hex()),
        vector("board-wrapped", "sealed under a credential", "sign", sealed("sign"), "opens",
               kid=BOARD_SIGN.kid.hex(), **wrap),
        vector("board-wrapped-as-the-other", "a key file says which key it is", "sign", sealed("ecdh"), **wrap),
        vector("board-wrapped-no-credential", "the credential is needed", "sign", sealed("sign")),
        vector("board-wrapped-other-credential", "the right credential is needed", "sign", sealed("sign"),
               secret=b"another".hex()),
        vector("board-plain-with-credential", "wrapped where a credential is given", "sign", plain, **wrap),
        vector("board-other-public", "both halves belong together", "sign", cbor({**BOARD.cose, -4: BOARD_SIGN.d})),
        vector("board-zero", "a scalar is not zero", "sign", cbor({**BOARD_SIGN.cose, -4: bytes(32)})),
        vector("board-long-scalar", "a scalar is 32 bytes", "sign",
               cbor({**BOARD_SIGN.cose, -4: b"\0" + BOARD_SIGN.d})),
        vector("board-public-only", "a private key", "sign", cbor(BOARD_SIGN.cose)),
    ]  # fmt: skip
