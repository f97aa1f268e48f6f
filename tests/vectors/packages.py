"""Vectors: model packages."""

from __future__ import annotations

import math
import struct
from typing import Any

import cbor2
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
IVS = [filler(f"package iv {number}", 12) for number in range(9)]
FLOAT32 = 85


def array(tag: int, form: str, *values: float) -> cbor2.CBORTag:
    """RFC 8746, section 2.1: a typed array, little-endian."""
    return cbor2.CBORTag(tag, struct.pack(f"<{len(values)}{form}", *values))


WINDOW, SCORES = array(FLOAT32, "f", 1, 2, 3, 4), array(FLOAT32, "f", 0.25, 0.75)


def self_test(*cases: dict[str, Any], **change: Any) -> bytes:
    return cbor({"tolerance": 0.02, "cases": list(cases or [{"window": WINDOW, "scores": SCORES}]), **change})


def with_window(window: object) -> bytes:
    return self_test({"window": window, "scores": SCORES})


def with_scores(*scores: object) -> bytes:
    return self_test(*({"window": WINDOW, "scores": one} for one in scores))


MODEL, TEST = ("model", WEIGHTS), ("self_test", self_test())
Contents = list[tuple[str, bytes]]


def part_aad(name: str, version: int, number: int) -> bytes:
    return cbor(["Encrypt", cbor({1: GCM}), cbor(["edged.package.1", name, version, number])])


def sealed(contents: Contents, name: str, version: int, aads: list[bytes] | None = None) -> list[bytes]:
    """Return the ciphertext of each part."""
    aads = aads or [part_aad(name, version, number) for number in range(len(contents))]
    return [CONTENT.encrypt(iv, data, aad) for iv, (_, data), aad in zip(IVS, contents, aads, strict=False)]


def described(contents: Contents, ciphertexts: list[bytes]) -> list[dict[str, Any]]:
    """Return `parts` as a manifest has them."""
    return [
        {"kind": kind, "iv": iv, "ciphertext": sized(ciphertext), "plaintext": sized(data)}
        for (kind, data), iv, ciphertext in zip(contents, IVS, ciphertexts, strict=False)
    ]


def sized(data: bytes) -> dict[str, Any]:
    return {"size": len(data), "sha256": sha256(data)}


def manifest(contents: Contents | None = None, aads: list[bytes] | None = None, **change: Any) -> dict[str, Any]:
    contents = contents or [MODEL, TEST]
    name, version = change.get("name", "gearbox"), change.get("version", 3)
    fields: dict[str, Any] = {
        "name": name, "version": version, "created": NOW - DAY, "expires": NOW + 300 * DAY, "publisher": PUBLISHER.kid,
        "edged": "0.1.0", "alg": GCM, "commit": CONTENT.commit,
        "parts": described(contents, sealed(contents, name, version, aads)),
        "input": {"channels": ["a1", "a2"]},
        "window": {"size": 2},
        "output": {"kind": "classifier", "labels": ["healthy", "broken"]},
    }  # fmt: skip
    fields.update(change)
    return {key: value for key, value in fields.items() if value is not ...}


def package(fields: dict[str, Any] | None = None, contents: Contents | None = None, **change: Any) -> bytes:
    contents = contents or [MODEL, TEST]
    fields = manifest(contents) if fields is None else fields
    signed = change.get("signed", sign1(change.get("signer", PUBLISHER), cbor(fields), change.get("aad", MANIFEST_AAD)))
    entries = change.get("entries", [recipient(BOARD, CONTENT), recipient(OPERATOR, CONTENT)])
    recipients = change.get("recipients", grant(*entries, iv=change.get("iv", IVS[0]), alg=change.get("alg", GCM)))
    ciphertexts = change.get("ciphertexts", sealed(contents, fields["name"], fields["version"], change.get("aads")))
    return signed + recipients + b"".join(map(cbor, ciphertexts))


def grant(*entries: object, ciphertext: bytes | None = None, iv: bytes = IVS[0], alg: int = GCM) -> bytes:
    return cbor(encrypt(CONTENT, iv, ciphertext, list(entries), header=cbor({1: alg})))


def package_vectors() -> list[Vector]:
    good = package()
    manifest_id = sha256(cbor(manifest()))

    def vector(name: str, rule: str, data: bytes, expect: str, **more: object) -> Vector:
        return {
            "name": name, "rule": rule, "data": data.hex(), "board": "board", "publisher": "publisher", "models": ["gearbox"],
            "now": NOW, "synchronised": True, "floor": None, "lowest": 1, "grant": None, "expect": expect, **more,
        }  # fmt: skip

    def bad(name: str, rule: str, data: bytes, expect: str = "FormatError") -> Vector:
        return vector(name, rule, data, expect)

    def with_manifest(**change: Any) -> bytes:
        return package(manifest(**change))

    def with_part(number: int, **change: Any) -> bytes:
        """Change what the manifest says of one part."""
        parts = manifest()["parts"]
        return with_manifest(parts=[{**one, **change} if at == number else one for at, one in enumerate(parts)])

    def with_contents(*contents: tuple[str, bytes]) -> bytes:
        return package(contents=list(contents))

    def with_test(data: bytes) -> bytes:
        return with_contents(MODEL, ("self_test", data))

    def bad_test(name: str, rule: str, data: bytes) -> Vector:
        return bad(f"self-test-{name}", rule, with_test(data))

    def granted(name: str, rule: str, entry: bytes, expect: str, **more: object) -> Vector:
        """A package that is sealed to the operator alone, with a grant beside it."""
        data = package(entries=[recipient(OPERATOR, CONTENT)])
        return vector(f"grant-{name}", rule, data, expect, grant=entry.hex(), **more)

    def answered(name: str, rule: str, answers: list[list[float]], expect: str = "SelfTestError", *,
                 signed: list[list[float]] | None = None, output: dict[str, Any] | None = None,
                 tolerance: float = 0.125, **tables: Any) -> Vector:  # fmt: skip
        """What a runtime answers to the windows of a self-test; the chain gives as many scores as it says."""
        scores = [array(FLOAT32, "f", *one) for one in signed or [[0.25, 0.75], [1.0, 0.0]]]
        test = self_test(*({"window": WINDOW, "scores": one} for one in scores), tolerance=tolerance)
        contents = [MODEL, ("self_test", test)]
        fields = manifest(contents, **({} if output is None else {"output": output}), **tables)
        return vector(f"answer-{name}", rule, package(fields, contents), expect, answers=answers)

    regressor = {"kind": "regressor"}
    anomaly = {"output": {"kind": "anomaly", "labels": ["normal", "anomaly"]}, "decide": {"enter": 0.5}}
    above = {"decide": {"thresholds": {"broken": 0.75}, "otherwise": "unsure"}}
    watched = {"decide": {"watch": "broken", "enter": 0.75, "leave": 0.25, "needed": {"n": 3, "of": 4}}}
    first, second = sealed([MODEL, TEST], "gearbox", 3)
    head = good[
        : len(good) - len(first) - len(second) - len(cbor(first)) + len(first) - len(cbor(second)) + len(second)
    ]
    order = [TEST, MODEL]
    more = [MODEL, ("reference", b"sketch"), TEST, ("front_end", b"front end")]
    eight = [MODEL, TEST, *(("reference", bytes([number])) for number in range(6))]
    swapped_aads = [part_aad("gearbox", 3, 1), part_aad("gearbox", 3, 0)]
    old_aads = [cbor(["Encrypt", cbor({1: GCM}), cbor(["edged.package.1", "gearbox", 3])])] * 2
    flipped = bytes([first[0] ^ 1]) + first[1:]
    attached_recipients = grant(recipient(BOARD, CONTENT), ciphertext=bytes(16))
    first_edition = {
        "iv": IVS[0], "ciphertext": sized(first), "plaintext": sized(WEIGHTS), "parts": ...,
        "self_test": {
            "tolerance": 0.02,
            "cases": [{"window": struct.pack("<4f", 1, 2, 3, 4), "scores": struct.pack("<2f", 0.25, 0.75)}],
        },
    }  # fmt: skip
    off_curve = {1: 2, -1: 1, -2: bytes(31) + b"\1", -3: bytes(31) + b"\1"}
    case = {"window": WINDOW, "scores": SCORES}
    return [
        {**vector("good", "signed, for this board, in date", good, "opens"),
         "plaintexts": [WEIGHTS.hex(), self_test().hex()], "identity": manifest_id.hex()},
        vector("good-again", "the same package again", good, "opens", floor=[3, manifest_id.hex()]),
        vector("good-above-floor", "above the floor", good, "opens", floor=[2, bytes(32).hex()]),
        vector("for-the-operator", "the operator opens it too", good, "opens", board="operator"),
        vector("for-others", "sealed to others", good, "NotARecipientError", board="other"),
        vector("no-expiry", "a package may never expire", with_manifest(expires=...), "opens"),
        vector("below-floor", "below the version floor", good, "RollbackError", floor=[4, bytes(32).hex()]),
        vector("another-at-floor", "another package of one version", good, "RollbackError", floor=[3, bytes(32).hex()]),
        vector("minimum", "a minimum up to the version", with_manifest(minimum=3), "opens"),
        vector("at-the-minimum", "not below the lowest that may be served", good, "opens", lowest=3),
        vector("below-the-minimum", "not below the lowest that may be served", good, "RollbackError", lowest=4,
               floor=[3, manifest_id.hex()]),
        bad("minimum-above-version", "minimum <= version", with_manifest(minimum=4)),
        bad("minimum-0", "minimums begin at 1", with_manifest(minimum=0)),
        bad("minimum-float", "a minimum is a whole number", with_manifest(minimum=2.5)),
        vector("expired", "past `expires`", good, "ExpiredError", now=NOW + 301 * DAY),
        vector("not-yet-valid", "created ahead of a synchronised clock", good, "NotYetValidError", now=NOW - 2 * DAY),
        vector("not-yet-valid-unsynchronised", "a board without a clock cannot tell", good, "opens", now=NOW - 2 * DAY,
               synchronised=False),
        vector("unknown-publisher", "the publisher is pinned", good, "UnknownSignerError", publisher="other"),
        vector("model-not-allowed", "the publisher may sign this model", good, "NotAllowedError", models=["pump"]),
        bad("newer-edged", "the release is new enough", with_manifest(edged="999.0.0"), "MismatchError"),
        bad("empty", "three items or more", b""),
        bad("two-items", "three items or more", head),
        bad("cut-short", "every part is whole", good[:-1]),
        bad("trailing-byte", "nothing stands behind", good + b"\0"),
        bad("part-of-2-to-the-64", "every part is whole", head + b"\x5b" + b"\xff" * 8 + bytes(64)),
        bad("part-long-head", "a part's head is the shortest",
            head + b"\x59" + len(first).to_bytes(2, "big") + first + cbor(second)),
        bad("part-text", "a part is a byte string", head + b"\x78\x50" + b"a" * 80 + cbor(second)),
        bad("part-indefinite", "a part's length is definite", head + b"\x5f" + cbor(first) + b"\xff" + cbor(second)),
        bad("ciphertext-attached", "the ciphertext is detached", package(recipients=attached_recipients)),
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
        bad("no-parts", "all keys are there", with_manifest(parts=...)),
        bad("first-edition", "packages of release 0.1.0 are refused by their shape",
            package(manifest(**first_edition), ciphertexts=[first])),
        bad("chain-unknown-key", "the signal chain's keys are known", with_manifest(window={"size": 2, "note": 1})),
        bad("chain-no-labels", "the signal chain fits together", with_manifest(output={"kind": "classifier"})),
        vector("layout", "windows may go in channel by channel",
               with_manifest(input={"channels": ["a1", "a2"], "layout": "channels_first"}), "opens"),
        vector("orientation", "pictures may be turned upright",
               with_manifest(input={"image": {"width": 2, "height": 1, "orientation": "exif"}, "channels": ["r", "g"]}, window=...), "opens"),
        bad("orientation-unknown", "orientations are a closed list",
            with_manifest(input={"image": {"width": 2, "height": 1, "orientation": "up"}, "channels": ["r", "g"]}, window=...)),
        bad("layout-unknown", "layouts are a closed list", with_manifest(input={"channels": ["a1", "a2"], "layout": "NCHW"})),
        bad("created-negative", "dates are not negative", with_manifest(created=-1)),
        bad("created-2-to-the-53", "dates are below 2^53", with_manifest(created=1 << 53)),
        bad("version-0", "versions begin at 1", with_manifest(version=0)),
        bad("version-2-to-the-32", "versions are below 2^32", with_manifest(version=1 << 32)),
        bad("name", "names are in lower case", with_manifest(name="../Gearbox")),
        bad("alg-unknown", "content algorithms are 3 and 24", with_manifest(alg=1)),
        # --- parts
        vector("self-test-first", "parts come in any order", with_contents(*order), "opens"),
        vector("every-kind", "a front end and references, which this release does not use", with_contents(*more), "MismatchError"),
        vector("eight-parts", "1 to 8 parts; references are not used yet", with_contents(*eight), "MismatchError"),
        bad("nine-parts", "1 to 8 parts", with_contents(*eight, ("reference", b"9"))),
        bad("part-of-unknown-kind", "kinds are a closed list", with_contents(MODEL, TEST, ("labels", b"x"))),
        bad("no-model", "exactly one model", with_contents(TEST)),
        bad("two-models", "exactly one model", with_contents(MODEL, MODEL, TEST)),
        bad("no-self-test", "exactly one self-test", with_contents(MODEL)),
        bad("two-self-tests", "exactly one self-test", with_contents(MODEL, TEST, TEST)),
        bad("part-missing", "as many parts as were signed", package(ciphertexts=[first]), "MismatchError"),
        bad("part-more", "as many parts as were signed", package(ciphertexts=[first, second, first]), "MismatchError"),
        bad("parts-swapped", "each part in its place", package(ciphertexts=[second, first]), "MismatchError"),
        bad("part-sealed-for-another-place", "the external_aad names the part",
            package(manifest(aads=swapped_aads), aads=swapped_aads), "DecryptionError"),
        bad("part-sealed-without-number", "the external_aad names the part",
            package(manifest(aads=old_aads), aads=old_aads), "DecryptionError"),
        bad("iv-short", "an IV is 12 bytes", with_part(1, iv=bytes(8))),
        bad("iv-twice", "no two parts have one IV", with_part(1, iv=IVS[0])),
        bad("iv-of-another-part", "each part under its own IV", with_part(1, iv=IVS[5]), "DecryptionError"),
        bad("part-unknown-key", "unknown keys are refused", with_part(0, note=1)),
        bad("part-empty", "a part holds something", with_part(1, plaintext={"size": 0, "sha256": sha256(b"")})),
        bad("part-size-negative", "sizes are not negative", with_part(0, plaintext={"size": -1, "sha256": bytes(32)})),
        bad("part-digest-short", "a digest is 32 bytes", with_part(0, plaintext={"size": len(WEIGHTS), "sha256": bytes(31)})),
        bad("another-ciphertext", "each ciphertext is the one signed", package(ciphertexts=[flipped, second]), "MismatchError"),
        bad("another-plaintext", "each plaintext is the one signed",
            with_part(0, plaintext={"size": len(WEIGHTS), "sha256": bytes(32)}), "MismatchError"),
        bad("another-self-test", "each plaintext is the one signed",
            with_part(1, plaintext={"size": len(TEST[1]), "sha256": bytes(32)}), "MismatchError"),
        bad("sizes", "ciphertext and plaintext sizes belong together", with_part(0, plaintext=sized(WEIGHTS[:-1])), "MismatchError"),
        # --- recipients and grants
        bad("alg-of-recipients", "algorithms agree", package(alg=CHACHA), "MismatchError"),
        bad("iv-of-recipients", "the list has the IV of the first part", package(iv=IVS[1]), "MismatchError"),
        bad("another-key", "the key is the one committed to",
            package(entries=[recipient(BOARD, Symmetric("another"))]), "MismatchError"),
        bad("entry-of-another", "the entry is one's own",
            package(entries=[recipient(OTHER, CONTENT, kid=BOARD.kid)]), "DecryptionError"),
        bad("own-entry-off-the-curve", "one's own entry holds a point",
            package(entries=[recipient(BOARD, CONTENT, epk=off_curve)])),
        vector("others-entry-off-the-curve", "the points of others are theirs to check",
               package(entries=[recipient(OPERATOR, CONTENT, epk=off_curve), recipient(BOARD, CONTENT)]), "opens"),
        bad("others-entry-without-y", "every entry has the shape of one",
            package(entries=[recipient(OPERATOR, CONTENT, epk={1: 2, -1: 1, -2: bytes(32)}), recipient(BOARD, CONTENT)])),
        granted("good", "a grant is opened in the place of the list", grant(recipient(BOARD, CONTENT)), "opens"),
        granted("without", "without its grant it is sealed to others", grant(recipient(OPERATOR, CONTENT)), "NotARecipientError"),
        granted("for-two", "a grant has one recipient",
                grant(recipient(BOARD, CONTENT), recipient(OTHER, CONTENT)), "FormatError"),
        granted("empty", "a grant has one recipient", grant(), "FormatError"),
        granted("attached", "the ciphertext is detached", grant(recipient(BOARD, CONTENT), ciphertext=bytes(16)), "FormatError"),
        granted("trailing-byte", "nothing stands behind", grant(recipient(BOARD, CONTENT)) + b"\0", "FormatError"),
        granted("of-another-package", "the key is the one committed to",
                grant(recipient(BOARD, Symmetric("another"))), "MismatchError"),
        granted("iv", "the IV is that of the first part", grant(recipient(BOARD, CONTENT), iv=IVS[1]), "MismatchError"),
        granted("alg", "algorithms agree", grant(recipient(BOARD, CONTENT), alg=CHACHA), "MismatchError"),
        # --- the self-test
        *(vector(f"self-test-{name}", "a window is a typed array that is exact in float32",
                 with_test(with_window(array(tag, form, *values))), "opens")
          for name, tag, form, values in (
              ("uint8", 64, "B", (0, 1, 2, 255)), ("uint16", 69, "H", (0, 1, 2, 65535)),
              ("uint32", 70, "I", (0, 1, 1 << 24, 0xFFFFFF00)), ("sint8", 72, "b", (-128, 0, 1, 127)),
              ("sint16", 77, "h", (-32768, 0, 1, 2)), ("sint32", 78, "i", (-(1 << 31), 0, 1, 1 << 24)),
          )),
        bad_test("uint32-not-exact", "a window is exact in float32", with_window(array(70, "I", 0, 0, 0, (1 << 24) + 1))),
        bad_test("sint32-not-exact", "a window is exact in float32", with_window(array(78, "i", 0, 0, 0, -(1 << 24) - 1))),
        bad_test("float64", "windows are arrays of 7 types", with_window(cbor2.CBORTag(86, bytes(32)))),
        bad_test("float32-big-endian", "windows are arrays of 7 types", with_window(cbor2.CBORTag(81, bytes(16)))),
        bad_test("untagged", "a window is a typed array", with_window(bytes(16))),
        bad_test("half-a-value", "arrays are of whole values", with_window(cbor2.CBORTag(FLOAT32, bytes(15)))),
        bad_test("short-window", "a case holds one window", with_window(array(FLOAT32, "f", 1, 2, 3))),
        bad_test("two-windows", "a case holds one window", with_window(array(FLOAT32, "f", *range(8)))),
        bad_test("empty-window", "a case holds one window", with_window(array(FLOAT32, "f"))),
        bad_test("empty", "1 to 64 cases", self_test(cases=[])),
        vector("self-test-64-cases", "1 to 64 cases", with_test(self_test(*[case] * 64)), "opens"),
        bad_test("65-cases", "1 to 64 cases", self_test(*[case] * 65)),
        bad_test("no-scores", "a case holds scores", with_scores(array(FLOAT32, "f"))),
        bad_test("scores-sint8", "scores are float32", with_scores(array(72, "b", 0, 1))),
        bad_test("scores-of-two-sizes", "as many scores in each case", with_scores(SCORES, array(FLOAT32, "f", 1))),
        bad_test("no-tolerance", "all keys are there", cbor({"cases": [case]})),
        bad_test("unknown-key", "unknown keys are refused", self_test(note=1)),
        bad_test("case-unknown-key", "unknown keys are refused", self_test({**case, "note": 1})),
        bad_test("tolerance-nan", "a tolerance is a number from 0", self_test(tolerance=math.nan)),
        bad_test("tolerance-negative", "a tolerance is a number from 0", self_test(tolerance=-0.5)),
        bad_test("tolerance-int", "a tolerance is a float", self_test(tolerance=1)),
        bad_test("tolerance-long", "deterministic encoding",
                 self_test(tolerance=0.5).replace(b"\xf9\x38\0", b"\xfa\x3f\0\0\0")),
        bad_test("not-canonical", "deterministic encoding", self_test().replace(b"\x81\xa2", b"\x98\1\xa2", 1)),
        bad_test("trailing-byte", "nothing stands behind", self_test() + b"\0"),
        bad_test("cut-short", "arrays are whole", self_test()[:40]),
        answered("as-signed", "within tolerance times spread", [[0.25, 0.75], [1.0, 0.0]], "opens"),
        answered("at-the-tolerance", "within tolerance times spread", [[0.375, 0.625], [0.875, 0.125]], "opens"),
        answered("beyond-the-tolerance", "within tolerance times spread", [[0.25, 0.75], [0.8125, 0.0]]),
        answered("of-a-wide-spread", "the spread is of all scores", [[-95.0, 95.0], [0.0, 20.0]], "opens",
                 signed=[[-100.0, 100.0], [0.0, 10.0]]),
        answered("another-label", "the best output is the one signed", [[0.5, 0.4375], [1.0, 0.0]],
                 signed=[[0.4375, 0.5], [1.0, 0.0]]),
        answered("either-of-two", "equal best outputs are both right", [[0.5, 0.4375], [1.0, 0.0]], "opens",
                 signed=[[0.5, 0.5], [1.0, 0.0]]),
        answered("too-few", "as many scores as were signed", [[0.25], [1.0]]),
        answered("of-a-regressor", "a regressor's outputs have a spread each", [[1.0, 100.0], [3.0, 300.0]], "opens",
                 signed=[[1.0, 110.0], [3.0, 300.0]], output=regressor),
        answered("of-a-regressors-narrow-output", "a regressor's outputs have a spread each", [[1.5, 100.0], [3.0, 300.0]],
                 signed=[[1.0, 100.0], [3.0, 300.0]], output=regressor),
        answered("without-spread", "without spread, the largest magnitude counts", [[7.0], [7.0]], "opens",
                 signed=[[8.0], [8.0]], output=regressor),
        answered("of-zeros", "of nothing but zeros, 1 counts", [[0.125], [0.0]], "opens", signed=[[0.0], [0.0]], output=regressor),
        answered("of-zeros-beyond", "of nothing but zeros, 1 counts", [[0.25], [0.0]], signed=[[0.0], [0.0]], output=regressor),
        answered("of-a-false-alarm", "an error stays on its side of decide.enter", [[0.5], [1.0]],
                 signed=[[0.4375], [1.0]], **anomaly),
        answered("on-its-side", "an error stays on its side of decide.enter", [[0.4921875], [0.9375]], "opens",
                 signed=[[0.4375], [1.0]], **anomaly),
        answered("beyond-a-threshold", "the label is the one signed, by decide.thresholds", [[0.75, 0.25], [0.25, 0.75]],
                 signed=[[0.75, 0.25], [0.25, 0.6875]], **above),
        answered("watched", "the label is the one signed, by decide.watch, and of each window by itself",
                 [[0.3125, 0.6875], [0.0, 1.0]], "opens", signed=[[0.25, 0.71875], [0.0, 1.0]], **watched),
        answered("watched-beyond-enter", "the label is the one signed, by decide.watch", [[0.25, 0.75], [0.0, 1.0]],
                 signed=[[0.25, 0.71875], [0.0, 1.0]], **watched),
        vector("outputs", "how many scores the model gives", with_manifest(outputs=2), "opens"),
        bad("outputs-0", "a model gives something", with_manifest(outputs=0)),
        vector("tested", "the engines that answered the self-test are named", with_manifest(tested=["litert 2.3.0"]), "opens"),
        bad("tested-without-name", "engines have names", with_manifest(tested=[""])),
        bad("tested-too-many", "at most 8 engines", with_manifest(tested=["litert 2.3.0"] * 9)),
        bad("self-test-too-large", "a self-test is at most 4 MiB",
            with_part(1, plaintext={"size": (4 << 20) + 1, "sha256": bytes(32)})),
        bad("record-as-manifest", "a record is no manifest",
            package(signed=record("publisher", "acme", PUBLISHER, None))),
    ]  # fmt: skip
