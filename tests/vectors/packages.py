"""Vectors: model packages."""

from __future__ import annotations

import struct
from typing import Any

from kit import (
    BOARD,
    CHACHA,
    DAY,
    ENROL_AAD,
    GCM,
    MANIFEST_AAD,
    NOW,
    OPERATOR,
    OTHER,
    PUBLISHER,
    Symmetric,
    Vector,
    cbor,
    encrypt,
    filler,
    recipient,
    record,
    sha256,
    sign1,
)

WEIGHTS = b"\x1c\0\0\0TFL3" + filler(
    "weights", 56
)  # no real model: what a runtime says of it is not a format's business
CONTENT = Symmetric("package content")
PACKAGE_IV = filler("package iv", 12)


def manifest(**change: Any) -> dict[str, Any]:
    version = change.get("version", 3)
    name = change.get("name", "gearbox")
    aad = cbor(["Encrypt", cbor({1: GCM}), cbor(["edged.package.1", name, version])])
    ciphertext = CONTENT.encrypt(PACKAGE_IV, WEIGHTS, change.pop("package_aad", aad))
    fields: dict[str, Any] = {
        "name": name, "version": version, "created": NOW - DAY, "expires": NOW + 300 * DAY, "publisher": PUBLISHER.kid,
        "edged": "0.1.0", "alg": GCM, "iv": PACKAGE_IV, "commit": CONTENT.commit,
        "ciphertext": {"size": len(ciphertext), "sha256": sha256(ciphertext)},
        "plaintext": {"size": len(WEIGHTS), "sha256": sha256(WEIGHTS)},
        "input": {"channels": ["a1", "a2"]},
        "window": {"size": 2},
        "output": {"kind": "classifier", "labels": ["healthy", "broken"]},
        "self_test": {
            "tolerance": 0.02,
            "cases": [{"window": struct.pack("<4f", 1, 2, 3, 4), "scores": struct.pack("<2f", 0.25, 0.75)}],
        },
    }  # fmt: skip
    fields.update(change)
    return {key: value for key, value in fields.items() if value is not ...}


def package(fields: dict[str, Any] | None = None, **change: Any) -> bytes:
    fields = manifest() if fields is None else fields
    signed = change.get("signed", sign1(change.get("signer", PUBLISHER), cbor(fields), change.get("aad", MANIFEST_AAD)))
    entries = change.get("entries", [recipient(BOARD, CONTENT), recipient(OPERATOR, CONTENT)])
    recipients = change.get("recipients", encrypt(CONTENT, change.get("iv", PACKAGE_IV), None, entries,
                                                  header=cbor({1: change.get("alg", GCM)})))  # fmt: skip
    aad = cbor(["Encrypt", cbor({1: GCM}), cbor(["edged.package.1", fields["name"], fields["version"]])])
    ciphertext = change.get("ciphertext", CONTENT.encrypt(PACKAGE_IV, WEIGHTS, change.get("package_aad", aad)))
    return signed + cbor(recipients) + change.get("third", cbor(ciphertext))


def package_vectors() -> list[Vector]:
    good = package()
    manifest_id = sha256(cbor(manifest()))

    def vector(name: str, rule: str, data: bytes, expect: str, **more: object) -> Vector:
        return {
            "name": name, "rule": rule, "data": data.hex(), "board": "board", "publisher": "publisher", "models": ["gearbox"],
            "now": NOW, "synchronised": True, "floor": None, "expect": expect, **more,
        }  # fmt: skip

    def bad(name: str, rule: str, data: bytes, expect: str = "FormatError") -> Vector:
        return vector(name, rule, data, expect)

    def with_manifest(**change: Any) -> bytes:
        return package(manifest(**change))

    flipped = CONTENT.encrypt(PACKAGE_IV, WEIGHTS, b"")
    unlike = manifest(package_aad=b"")
    other_plain = {"size": len(WEIGHTS), "sha256": bytes(32)}
    other_sizes = {"size": len(WEIGHTS) - 1, "sha256": sha256(WEIGHTS[:-1])}
    ciphertext_at = len(good) - len(WEIGHTS) - 16
    head = good[: ciphertext_at - 2]
    return [
        {**vector("good", "signed, for this board, in date", good, "opens"),
         "plaintext": WEIGHTS.hex(), "identity": manifest_id.hex()},
        vector("good-again", "the same package again", good, "opens", floor=[3, manifest_id.hex()]),
        vector("good-above-floor", "above the floor", good, "opens", floor=[2, bytes(32).hex()]),
        vector("for-the-operator", "the operator opens it too", good, "opens", board="operator"),
        vector("for-others", "sealed to others", good, "NotARecipientError", board="other"),
        vector("no-expiry", "a package may never expire", with_manifest(expires=...), "opens"),
        vector("below-floor", "below the version floor", good, "RollbackError", floor=[4, bytes(32).hex()]),
        vector("another-at-floor", "another package of one version", good, "RollbackError", floor=[3, bytes(32).hex()]),
        vector("expired", "past `expires`", good, "ExpiredError", now=NOW + 301 * DAY),
        vector("not-yet-valid", "created ahead of a synchronised clock", good, "NotYetValidError", now=NOW - 2 * DAY),
        vector("not-yet-valid-unsynchronised", "a board without a clock cannot tell", good, "opens", now=NOW - 2 * DAY,
               synchronised=False),
        vector("unknown-publisher", "the publisher is pinned", good, "UnknownSignerError", publisher="other"),
        vector("model-not-allowed", "the publisher may sign this model", good, "NotAllowedError", models=["pump"]),
        bad("newer-edged", "the release is new enough", with_manifest(edged="999.0.0"), "MismatchError"),
        bad("empty", "three items", b""),
        bad("two-items", "three items", head),
        bad("cut-short", "the ciphertext is whole", good[:-1]),
        bad("trailing-byte", "nothing stands behind", good + b"\0"),
        bad("ciphertext-of-2-to-the-64", "the ciphertext is whole", head + b"\x5b" + b"\xff" * 8 + bytes(64)),
        bad("ciphertext-long-head", "the ciphertext's head is the shortest", head + b"\x59\0\x50" + good[-80:]),
        bad("ciphertext-text", "the third item is a byte string", head + b"\x78\x50" + b"a" * 80),
        bad("ciphertext-attached", "the ciphertext is detached",
            package(recipients=encrypt(CONTENT, PACKAGE_IV, bytes(16), [recipient(BOARD, CONTENT)]))),
        bad("no-recipients", "there is a recipient", package(entries=[])),
        bad("duplicate-recipient", "one entry to a kid", package(entries=[recipient(BOARD, CONTENT)] * 2)),
        bad("not-canonical", "deterministic encoding", good.replace(b"\xd2\x84", b"\xd2\x98\x04", 1)),
        bad("signature", "the signature holds",
            package(signed=sign1(PUBLISHER, cbor(manifest()), MANIFEST_AAD, signature=bytes(63) + b"\1")), "SignatureError"),
        bad("signed-for-another-purpose", "the external_aad names the purpose", package(aad=ENROL_AAD), "SignatureError"),
        bad("publisher-in-manifest", "manifest and signature name one publisher",
            with_manifest(publisher=OTHER.kid), "MismatchError"),
        bad("unknown-key", "unknown keys are refused", with_manifest(note=1)),
        bad("no-commit", "all keys are there", with_manifest(commit=...)),
        bad("no-self-test", "all keys are there", with_manifest(self_test=...)),
        bad("chain-unknown-key", "the signal chain's keys are known", with_manifest(window={"size": 2, "note": 1})),
        bad("chain-no-labels", "the signal chain fits together", with_manifest(output={"kind": "classifier"})),
        bad("self-test-empty", "1 to 64 cases", with_manifest(self_test={"tolerance": 0.02, "cases": []})),
        bad("self-test-short-window", "a case holds one window",
            with_manifest(self_test={"tolerance": 0.02, "cases": [{"window": bytes(12), "scores": bytes(8)}]})),
        bad("self-test-no-scores", "a case holds scores",
            with_manifest(self_test={"tolerance": 0.02, "cases": [{"window": bytes(16), "scores": b""}]})),
        bad("created-negative", "dates are not negative", with_manifest(created=-1)),
        bad("created-2-to-the-53", "dates are below 2^53", with_manifest(created=1 << 53)),
        bad("version-0", "versions begin at 1", with_manifest(version=0)),
        bad("version-2-to-the-32", "versions are below 2^32", with_manifest(version=1 << 32)),
        bad("name", "names are in lower case", with_manifest(name="../Gearbox")),
        bad("alg-unknown", "content algorithms are 3 and 24", with_manifest(alg=1)),
        bad("iv-short", "an IV is 12 bytes", with_manifest(iv=bytes(8))),
        bad("alg-of-recipients", "algorithms agree", package(alg=CHACHA), "MismatchError"),
        bad("iv-of-recipients", "IVs agree", package(iv=bytes(12)), "MismatchError"),
        bad("another-ciphertext", "the ciphertext is the one signed", package(ciphertext=flipped), "MismatchError"),
        bad("another-key", "the key is the one committed to",
            package(entries=[recipient(BOARD, Symmetric("another"))]), "MismatchError"),
        bad("entry-of-another", "the entry is one's own",
            package(entries=[recipient(OTHER, CONTENT, kid=BOARD.kid)]), "DecryptionError"),
        bad("content-for-another-purpose", "the external_aad names the purpose",
            package(unlike, package_aad=b""), "DecryptionError"),
        bad("another-plaintext", "the plaintext is the one signed", with_manifest(plaintext=other_plain), "MismatchError"),
        bad("sizes", "ciphertext and plaintext sizes belong together", with_manifest(plaintext=other_sizes), "MismatchError"),
        bad("record-as-manifest", "a record is no manifest",
            package(signed=record("publisher", "acme", PUBLISHER, None))),
    ]  # fmt: skip
