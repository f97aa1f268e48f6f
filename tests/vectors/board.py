"""Vectors: what a board says of itself, in reports and inventories."""

from __future__ import annotations

from typing import Any

from hub import FIRST, INVENTORY, REPORT, SECOND, Steps, announce, announcement, message, of_board, result
from kit import BOARD_SIGN, HUB_SIGN, Vector

SIGNS = {"sign_results": True}
HEARD, SIGNING = announce(announcement(FIRST)), announce(announcement(FIRST, fields=SIGNS))


def _both(level: str, out: Steps) -> None:
    add = out.add
    good = of_board(level, FIRST, 1)

    def bad(name: str, rule: str, **change: Any) -> None:
        add(name, rule, "FormatError", HEARD, of_board(level, FIRST, 1, fields=change))

    add("good", "under an announced epoch", "opens", HEARD, good)
    add("unknown-key", "unknown keys are passed over", "opens", HEARD, of_board(level, FIRST, 1, fields={"note": [1]}))
    add("no-announcement", "its epoch was not announced", "UnknownKeyError", good)
    closed = announce(announcement(SECOND, fields={"closed": {FIRST.key.kid: 5}}), announcement(FIRST))
    add("closed", "only the newest epoch", "ReplayError", HEARD, closed, good)
    add("result-in-its-place", "a result is neither", "DecryptionError", HEARD, message(result(FIRST, 1), level))
    add("signed", "signed where results are", "opens", SIGNING, of_board(level, FIRST, 1, signer=BOARD_SIGN))
    add("unsigned-where-signed", "a board that signs is not believed without", "FormatError", SIGNING, good)
    add(
        "signed-where-unsigned",
        "nothing is sniffed",
        "FormatError",
        HEARD,
        of_board(level, FIRST, 1, signer=BOARD_SIGN),
    )
    add(
        "signed-by-a-hub",
        "a hub forges nothing",
        "UnknownSignerError",
        SIGNING,
        of_board(level, FIRST, 1, signer=HUB_SIGN),
    )
    add(
        "signed-for-another-count",
        "the signature binds the IV",
        "SignatureError",
        SIGNING,
        of_board(level, FIRST, 2, signer=BOARD_SIGN, signed_for=1),
    )
    for name in REPORT if level == "health" else INVENTORY:
        if name != "pad":
            bad(f"no-{name}", f"`{name}` is there", **{name: ...})
            bad(f"{name}-of-another-type", f"the type of `{name}`", **{name: b""})


def report_vectors() -> list[Vector]:
    out = Steps()
    _both("health", out)
    good = of_board("health", FIRST, 1)
    out.add("replayed", "each count is accepted once", "ReplayError", HEARD, good, good)
    out.add(
        "count-of-a-result", "results and reports share counts", "ReplayError", HEARD, message(result(FIRST, 1)), good
    )
    out.add(
        "negative", "counts are not negative", "FormatError", HEARD, of_board("health", FIRST, 1, fields={"lost": -1})
    )
    return out.vectors


def inventory_vectors() -> list[Vector]:
    out = Steps()
    _both("inventory", out)
    model = INVENTORY["models"][0]

    def models(*changes: dict[str, Any]) -> Vector:
        return of_board("inventory", FIRST, 1, fields={"models": [{**model, **change} for change in changes]})

    add, good = out.add, of_board("inventory", FIRST, 2)
    add("again", "the retained one comes as often as it likes", "opens", HEARD, good, good)
    add("older", "an older one came again", "ReplayError", HEARD, good, of_board("inventory", FIRST, 1))
    add("none", "a board that serves nothing", "opens", HEARD, models())
    add("unknown-key-of-a-model", "unknown keys are passed over", "opens", HEARD, models({"note": 1}))
    add("64-channels", "at most 64 channels", "opens", HEARD, models(*[{"channel": f"c{n}"} for n in range(64)]))
    add("65-channels", "at most 64 channels", "FormatError", HEARD, models(*[{"channel": f"c{n}"} for n in range(65)]))
    add("one-channel-twice", "each channel once", "FormatError", HEARD, models({}, {}))
    add(
        "channel-reserved", "a channel is a name, and not reserved", "FormatError", HEARD, models({"channel": "health"})
    )
    add("channel-no-name", "a channel is a name, and not reserved", "FormatError", HEARD, models({"channel": "C1"}))
    add("kind-unknown", "three kinds", "FormatError", HEARD, models({"kind": "oracle"}))
    return out.vectors
