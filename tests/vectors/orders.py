"""Vectors: orders, what boards state in a masked round, and what they sign for a sum."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from kit import AGGREGATOR, BOARD_SIGN, HUB_SIGN, NEW_SIGN, NOW, OTHER_SIGN, Pair, Vector, cbor, filler, sha256, sign1

ORDER_AAD = cbor(["edged.order.1"])
BOARDS = {"press-07": BOARD_SIGN, "press-08": OTHER_SIGN, "press-09": NEW_SIGN}
NODES = {"press-07": 31, "press-08": (1 << 64) - 2, "press-09": 7}
PLAN = {"epochs": 1, "batch": 8, "rate": 0.5, "proximal": 0.0, "clip": None, "noise": 0.0, "bound": 1.0}


def order_payload(**change: Any) -> bytes:
    fields: dict[str, Any] = {
        "run": NOW, "round": 2, "model": "bearing", "weights": filler("weights", 32), "plan": PLAN, "masked": True,
        "issued": NOW, "boards": {name: key.kid for name, key in BOARDS.items()},
    }  # fmt: skip
    return cbor({key: value for key, value in (fields | change).items() if value is not ...})


def order(**change: Any) -> bytes:
    return sign1(AGGREGATOR, order_payload(**change), ORDER_AAD)


def order_vectors() -> list[Vector]:
    def vector(name: str, rule: str, data: bytes, expect: str = "FormatError", **more: object) -> Vector:
        return {"name": name, "rule": rule, "data": data.hex(), "expect": expect, **more}

    def good(name: str, rule: str, **change: Any) -> Vector:
        return vector(name, rule, order(**change), "opens", digest=sha256(order_payload(**change)).hex())

    kids = {name: key.kid for name, key in BOARDS.items()}
    many = {f"b{number}": filler(f"board {number}", 32) for number in range(1024)}
    return [
        good("masked", "a masked round names its boards"),
        good("open", "a round that is not masked names none", masked=False, boards=...),
        vector("masked-no-boards", "a masked round names its boards", order(boards=...)),
        vector("open-with-boards", "a round that is not masked names none", order(masked=False)),
        vector("one-board", "at least two boards", order(boards={"press-07": BOARD_SIGN.kid})),
        vector("1024-boards", "at most 1,023 boards", order(boards=many)),
        vector("two-boards-one-key", "a key is one board's", order(boards=kids | {"press-10": BOARD_SIGN.kid})),
        vector("board-no-name", "boards have names", order(boards=kids | {"Press/10": filler("x", 32)})),
        vector("board-short-thumbprint", "a thumbprint is 32 bytes", order(boards=kids | {"press-10": bytes(16)})),
        vector("boards-a-list", "boards by name", order(boards=[*kids.values()])),
        vector("unknown-key", "unknown keys are refused", order(note="x")),
        vector("missing-key", "all keys are there", order(issued=...)),
        vector("run-negative", "runs are counted", order(run=-1)),
        vector("weights-short", "a digest is 32 bytes", order(weights=bytes(31))),
        vector("plan-unbounded", "plans are bounded", order(plan={**PLAN, "epochs": 1001})),
        vector("plan-noise-without-clip", "noise is a multiple of the clip", order(plan={**PLAN, "noise": 1.0})),
        vector("another-purpose", "the external_aad names the purpose",
               sign1(AGGREGATOR, order_payload(), cbor(["edged.enrol.1"])), "SignatureError"),
        vector("another-aggregator", "the pinned aggregator signs it",
               sign1(HUB_SIGN, order_payload(), ORDER_AAD), "UnknownSignerError"),
    ]  # fmt: skip


def keys_of(name: str) -> list[bytes]:
    return [filler(f"pk1 {name}", 120), filler(f"pk2 {name}", 120)]


def masking_vectors() -> list[Vector]:
    asked = order()
    order_digest = sha256(order_payload())

    def payload(name: str, **change: Any) -> bytes:
        pk1, pk2 = keys_of(name)
        fields = {"order": order_digest, "node": NODES[name], "key": BOARDS[name].cose, "pk1": pk1, "pk2": pk2} | change
        return cbor({key: value for key, value in fields.items() if value is not ...})

    def aad(context: str, name: str, number: int = 2) -> bytes:
        return cbor([context, NOW, number, name])

    def statement(name: str, by: Pair | None = None, number: int = 2, **change: Any) -> bytes:
        return sign1(by or BOARDS[name], payload(name, **change), aad("edged.secagg.1", name, number))

    binding = order_digest + sha256(cbor([payload(name) for name in sorted(BOARDS)]))
    active, dead = [NODES["press-09"], NODES["press-07"]], [NODES["press-08"]]

    def confirmation(name: str, number: int = 2, **change: Any) -> bytes:
        signed = cbor({"binding": binding, "active": sorted(active), "dead": dead} | change)
        return sign1(BOARDS[name], signed, aad("edged.secagg-sum.1", name, number))

    key = HKDF(hashes.SHA256(), 32, salt=None, info=b"edged.mask.1" + binding).derive(bytes(32))
    mask = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(32))
    both = [confirmation("press-07"), confirmation("press-09")]

    def vector(name: str, rule: str, expect: str, **change: Any) -> Vector:
        said, extra = change.get("said", {}), change.get("extra", [])
        statements = [said.get(board, statement(board)) for board in BOARDS] + extra
        keys = {str(NODES[board]): [one.hex() for one in keys_of(board)] for board in BOARDS}
        return {
            "name": name, "rule": rule, "expect": expect, "order": asked.hex(),
            "statements": [one.hex() for one in statements if one],
            "keys": keys | change.get("keys", {}),
            "active": active, "dead": dead,
            "confirmations": [one.hex() for one in change.get("confirmations", both)],
            "binding": binding.hex(), "mask": mask.hex(),
        }  # fmt: skip

    swapped = {str(NODES["press-08"]): [filler("theirs", 120).hex()] * 2}
    other_digest = sha256(order_payload(round=3))
    seven, eight = "press-07", "press-08"
    return [
        vector("good", "every board states its keys, and those in a sum sign for it", "opens"),
        vector("statement-left-out", "keys are those that were stated", "NotAllowedError", said={eight: b""}),
        vector("statement-twice", "each board once", "FormatError", extra=[statement(seven)]),
        vector("node-twice", "each node once", "FormatError", said={eight: statement(eight, node=NODES[seven])}),
        vector("node-negative", "a node is a number of 64 bits", "FormatError", said={eight: statement(eight, node=-1)}),
        vector("keys-swapped", "keys are those that were stated", "NotAllowedError", keys=swapped),
        vector("keys-too-many", "keys are those that were stated", "NotAllowedError",
               keys={"99": [one.hex() for one in keys_of("x")]}),
        vector("board-not-in-the-order", "the order names the boards", "NotAllowedError",
               said={eight: statement(eight, HUB_SIGN, key=HUB_SIGN.cose)}),
        vector("signed-by-another", "the board's own key signs", "UnknownSignerError",
               said={eight: statement(eight, HUB_SIGN)}),
        vector("another-board", "the external_aad names the board", "SignatureError",
               said={eight: sign1(OTHER_SIGN, payload(eight), aad("edged.secagg.1", seven))}),
        vector("another-round", "the external_aad names the round", "SignatureError",
               said={eight: statement(eight, number=3)}),
        vector("another-order", "a statement answers one order", "MismatchError",
               said={eight: statement(eight, order=other_digest)}),
        vector("statement-missing-key", "all keys are there", "FormatError", said={eight: statement(eight, pk2=...)}),
        vector("statement-unknown-key", "unknown keys are refused", "FormatError",
               said={eight: statement(eight, note=1)}),
        vector("keys-too-long", "a key has at most 1,024 bytes", "FormatError",
               said={eight: statement(eight, pk1=bytes(1025))}),
        vector("confirmed-twice", "each board once", "NotAllowedError", confirmations=[both[0], both[0]]),
        vector("confirmed-by-one-not-in-it", "boards in the sum sign", "NotAllowedError",
               confirmations=[confirmation(eight)]),
        vector("confirmed-another-sum", "all sign for one sum", "MismatchError",
               confirmations=[both[0], confirmation("press-09", dead=[])]),
        vector("confirmed-in-another-round", "the external_aad names the round", "SignatureError",
               confirmations=[confirmation(seven, number=1)]),
        vector("confirmed-among-others", "a sum has one set of parties", "MismatchError",
               confirmations=[confirmation(seven, binding=order_digest + bytes(32))]),
    ]  # fmt: skip
