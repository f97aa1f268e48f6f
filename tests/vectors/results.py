"""Vectors: sealed results."""

from __future__ import annotations

from typing import Any

from hub import FIRST, SECOND, Steps, announce, announcement, message, result
from kit import (
    BOARD_SIGN,
    HUB,
    HUB2,
    HUB_SIGN,
    NOW,
    Pair,
    Vector,
    cbor,
)


def result_vectors() -> list[Vector]:  # noqa: PLR0915  a list
    out = Steps()
    add = out.add
    heard = announce(announcement(FIRST))
    good = result(FIRST, 1)
    signing = announce(announcement(FIRST, fields={"sign_results": True}))
    signed = result(FIRST, 1, signer=BOARD_SIGN)

    def bad(name: str, rule: str, **change: Any) -> None:
        add(name, rule, "FormatError", heard, message(result(FIRST, 1, fields=change)))

    def fine(name: str, rule: str, **change: Any) -> None:
        add(name, rule, "opens", heard, message(result(FIRST, 1, fields=change)))

    add("good", "a result by an announced epoch", "opens", heard, message(good))
    fine("late", "a result that waited for the broker", late=True)
    fine("regressor", "a value in the place of label and score", label=..., score=..., value=4.5)
    fine("sealed-input", "sealed readings are named by key id and counts", input=[bytes(8), 7, 9])
    fine("tuned", "what the site has tuned stands in the result", tune={"decide.enter": 0.8})
    fine("anomaly", "an anomaly detector has two labels and one score, its error", scores=[0.75])
    best = [["broken", 0.75], ["healthy", 0.25]]
    fine("top", "the best labels in the place of all scores", scores=[], top=best)
    fine("top-of-another", "the label that holds need not be among the best", scores=[], top=best[1:])
    fine("pad-255", "a pad of 255 bytes", pad=bytes(255))
    add("last-count", "count 2^20", "opens", heard, message(result(FIRST, 1 << 20)))
    add("out-of-order", "counts may come in any order", "opens", heard, message(result(FIRST, 2)), message(good))
    add("no-announcement", "its epoch was not announced", "UnknownKeyError", message(good))
    add("replayed", "each count is accepted once", "ReplayError", heard, message(good), message(good))
    add(
        "another-under-one-count",
        "each count is accepted once",
        "ReplayError",
        heard,
        message(good),
        message(result(FIRST, 1, fields={"label": "healthy"})),
    )
    add("moved", "a result is bound to its channel", "DecryptionError", heard, message(good, "c2"))
    add(
        "of-another-board",
        "a result is bound to its board",
        "DecryptionError",
        heard,
        message(result(FIRST, 1, aad=cbor(["edged.result.1", "press-08", "c1"]))),
    )
    add(
        "reading-as-result",
        "a reading is no result",
        "DecryptionError",
        heard,
        message(result(FIRST, 1, aad=cbor(["edged.reading.1", "press-07", "c1"]))),
    )
    add("flipped-bit", "a flipped bit", "DecryptionError", heard, message(good[:-1] + bytes([good[-1] ^ 1])))
    add("count-0", "counts begin at 1", "FormatError", heard, message(result(FIRST, 0)))
    add("count-beyond", "counts end at 2^20", "FormatError", heard, message(result(FIRST, (1 << 20) + 1)))
    add(
        "count-disagrees",
        "the result says the count of its IV",
        "MismatchError",
        heard,
        message(result(FIRST, 1, says=2)),
    )
    for name in ("model", "version", "digest", "time", "count", "late", "scores", "input", "pad"):
        bad(f"no-{name}", f"`{name}` is there", **{name: ...})
    bad("unknown-key", "unknown keys are refused", note=1)
    bad("pad-23", "a pad has 24 to 255 bytes", pad=bytes(23))
    bad("pad-256", "a pad has 24 to 255 bytes", pad=bytes(256))
    bad("pad-not-zero", "a pad is zero", pad=bytes(23) + b"\1")
    bad("time-an-integer", "the time is a float", time=NOW)
    bad("late-a-number", "flags are booleans", late=0)
    bad("version-true", "true is not a number", version=True)
    bad("digest-short", "a digest is 32 bytes", digest=bytes(31))
    bad("scores-integers", "scores are floats", scores=[0, 1])
    bad("label-without-score", "a label has a score", score=...)
    bad("label-and-value", "a result has a label or a value", value=1.0)
    bad("neither-label-nor-value", "a result has a label or a value", label=..., score=...)
    bad("top-and-scores", "all scores or the best", top=best)
    bad("top-and-value", "a regressor has no labels", scores=[], label=..., score=..., value=1.0, top=best)
    bad("top-empty", "no `top` where there is none", scores=[], top=[])
    bad("top-a-map", "`top` has an order", scores=[], top=dict(best))
    bad("top-without-score", "each of the best has its score", scores=[], top=[["broken"]])
    bad("top-backwards", "label, then score", scores=[], top=[[0.75, "broken"]])
    bad("top-score-integer", "scores are floats", scores=[], top=[["broken", 1]])
    bad("input-short-digest", "an input's digest is 32 bytes", input=bytes(16))
    bad("input-backwards", "counts go up", input=[bytes(8), 9, 7])
    bad("tune-nested", "tunables are floats", tune={"decide.enter": {}})
    add("signed", "a result signed inside its seal", "opens", signing, message(signed))
    add("unsigned-where-signed", "a board that signs is not believed without", "FormatError", signing, message(good))
    add("signed-where-unsigned", "nothing is sniffed", "FormatError", heard, message(signed))
    add(
        "signed-by-a-hub",
        "a hub knows the channel key and forges nothing",
        "UnknownSignerError",
        signing,
        message(result(FIRST, 1, signer=HUB_SIGN)),
    )
    add(
        "signed-for-another-count",
        "the signature binds the IV",
        "SignatureError",
        signing,
        message(
            result(
                FIRST,
                2,
                says=2,
                signer=BOARD_SIGN,
                signed_aad=["edged.signed-result.1", "press-07", "c1", FIRST.key.kid, (1).to_bytes(8, "big") + b"salt"],
            )
        ),
    )
    add(
        "signed-for-another-channel",
        "the signature binds the channel",
        "SignatureError",
        signing,
        message(
            result(
                FIRST,
                1,
                signer=BOARD_SIGN,
                signed_aad=["edged.signed-result.1", "press-07", "c2", FIRST.key.kid, (1).to_bytes(8, "big") + b"salt"],
            )
        ),
    )

    def closed(last: int, hubs: list[Pair] | None = None, **more: Any) -> Vector:
        newest = announcement(SECOND, fields={"closed": {FIRST.key.kid: last}, **more})
        return announce(newest, announcement(FIRST, hubs, fields=more))

    late = {"late": True}
    add(
        "closed-late",
        "a closed epoch opens late results up to its last",
        "opens",
        heard,
        closed(5),
        message(result(FIRST, 5, fields=late)),
    )
    add(
        "closed-not-late",
        "a closed epoch opens late results only",
        "ReplayError",
        heard,
        closed(5),
        message(result(FIRST, 5)),
    )
    add(
        "closed-beyond",
        "a closed epoch opens nothing above its last",
        "ReplayError",
        heard,
        closed(5),
        message(result(FIRST, 6, fields=late)),
    )
    add(
        "closed-replayed",
        "closing forgets no count",
        "ReplayError",
        heard,
        message(result(FIRST, 5, fields=late)),
        closed(5),
        message(result(FIRST, 5, fields=late)),
    )
    add(
        "closed-not-listed",
        "an old announcement appended by somebody else opens nothing",
        "ReplayError",
        announce(announcement(SECOND), announcement(FIRST)),
        message(result(FIRST, 1, fields=late)),
    )
    add(
        "forgotten",
        "an epoch that is announced no more",
        "UnknownKeyError",
        heard,
        announce(announcement(SECOND)),
        message(result(FIRST, 1, fields=late)),
    )
    add(
        "hub-removed",
        "late unsigned results of a removed hub's epochs are not trusted",
        "UnknownKeyError",
        closed(5, [HUB, HUB2]),
        message(result(FIRST, 1, fields=late)),
    )
    add(
        "hub-removed-signed",
        "signed ones are",
        "opens",
        closed(5, [HUB, HUB2], sign_results=True),
        message(result(FIRST, 1, fields=late, signer=BOARD_SIGN)),
    )
    return out.vectors  # fmt: skip
