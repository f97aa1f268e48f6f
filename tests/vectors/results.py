"""Vectors: sealed results."""

from __future__ import annotations

from typing import Any

from hub import FIRST, SECOND, EpochKey, Steps, announce, announcement, message, result
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
    fine("redelivered", "a reading that was handed out before, and never answered", redelivered=True)
    fine("regressor", "a value in the place of label and score", label=..., score=..., value=4.5)
    fine("sealed-input", "sealed readings are named by key id and counts", input=[bytes(8), 7, 9])
    fine("tuned", "what the site has tuned stands in the result", tune={"decide.enter": 0.8})
    fine("anomaly", "an anomaly detector has two labels and one score, its error", scores=[0.75])
    best = [["broken", 0.75], ["healthy", 0.25]]
    fine("top", "the best labels in the place of all scores", scores=..., top=best)
    fine("top-of-another", "the label that holds need not be among the best", scores=..., top=best[1:])
    fine("pad-65535", "a pad of 65,535 bytes", pad=bytes(65_535))
    fine("label-alone", "the author may leave out scores", scores=..., score=...)
    fine("label-and-score", "the author may leave out scores", scores=...)
    fine("value-alone", "the author may leave out scores", scores=..., label=..., score=..., value=4.5)
    fine("label-and-value", "one model may name and measure", value=1.0)
    fine("source", "what `+` stood for", source="hall-2/press-07")
    fine("source-128", "a source of 128 bytes in UTF-8", source="ä" * 64)
    nothing = {"label": ..., "score": ..., "scores": ...}
    fine("values", "several named outputs", values={"wear": 0.5, "heat": 41.5}, **nothing)
    fine("values-64", "at most 64 named outputs", values={f"v{n}": 1.0 for n in range(64)}, **nothing)
    fine("counts", "counts by label", counts={"person": 2, "dog": 0}, **nothing)
    box = ["person", 0.75, 0.0, 0.25, 0.5, 1.0]
    fine("boxes", "boxes beside counts", counts={"person": 1}, boxes=[box], **nothing)
    fine("boxes-none", "a detector that sees nothing", counts={"person": 0}, boxes=[], **nothing)
    fine("boxes-32", "at most 32 boxes", counts={"person": 40}, boxes=[box] * 32, **nothing)
    fine("unknown-key", "unknown keys are passed over", note={"a": [1, 2]})
    fine("scores-4096", "at most 4,096 scores", scores=[0.5] * 4096)
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
    for name, channel in (("reserved", "nonce"), ("no-name", "C1"), ("empty", "")):
        sealed = result(FIRST, 1, aad=cbor(["edged.result.1", "press-07", channel]))
        add(f"channel-{name}", "a channel is a name, and not reserved", "FormatError", heard, message(sealed, channel))
    channels = [message(result(FIRST, n, channel=f"c{n}"), f"c{n}") for n in range(1, 66)]
    add("64-channels", "a board has at most 64 channels", "opens", heard, *channels[:64])
    add("65-channels", "a board has at most 64 channels", "FormatError", heard, *channels)
    _repeated(out, heard)
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
    for name in ("model", "version", "digest", "time", "count", "late", "input", "pad"):
        bad(f"no-{name}", f"`{name}` is there", **{name: ...})
    add("key-a-number", "keys are text", "FormatError", heard, message(result(FIRST, 1, fields={1: 1})))
    bad("pad-255", "a pad has 256 to 65,535 bytes", pad=bytes(255))
    bad("pad-65536", "a pad has 256 to 65,535 bytes", pad=bytes(65_536))
    bad("pad-not-zero", "a pad is zero", pad=bytes(255) + b"\1")
    bad("source-empty", "no `source` where there is none", source="")
    bad("source-129", "a source has at most 128 bytes in UTF-8", source="ä" * 64 + "a")
    bad("source-bytes", "a source is text", source=b"hall-2")
    bad("values-one", "one value is `value`", values={"wear": 0.5}, **nothing)
    bad("values-65", "at most 64 named outputs", values={f"v{n}": 1.0 for n in range(65)}, **nothing)
    bad("values-integer", "values are floats", values={"wear": 1, "heat": 2}, **nothing)
    bad("values-by-number", "outputs are named by text", values={1: 1.0, 2: 2.0}, **nothing)
    bad("counts-none", "no `counts` where there are none", counts={}, **nothing)
    bad("counts-65", "at most 64 labels are counted", counts={f"l{n}": 1 for n in range(65)}, **nothing)
    bad("counts-float", "counts are integers", counts={"person": 1.0}, **nothing)
    bad("counts-negative", "counts are not negative", counts={"person": -1}, **nothing)
    bad("counts-true", "true is not a number", counts={"person": True}, **nothing)
    bad("boxes-alone", "boxes stand beside counts", boxes=[box])
    for name, wrong in (
        ("33", [box] * 33), ("short", [box[:5]]), ("long", [[*box, 0.5]]), ("a-map", {"person": box}),
        ("backwards", [["person", 0.75, 0.5, 0.25, 0.25, 1.0]]), ("upside-down", [["person", 0.75, 0.0, 0.5, 0.5, 0.25]]),
        ("outside", [["person", 0.75, 0.0, 0.25, 1.5, 1.0]]), ("left-of-it", [["person", 0.75, -0.25, 0.25, 0.5, 1.0]]),
        ("not-a-number", [["person", 0.75, float("nan"), 0.25, 0.5, 1.0]]), ("integers", [["person", 0.75, 0, 0, 1, 1]]),
        ("without-label", [[0.75, 0.0, 0.25, 0.5, 1.0, 1.0]]),
    ):  # fmt: skip
        bad(
            f"boxes-{name}", "at most 32 boxes, each a label, a score and four sides", counts={"person": 1}, boxes=wrong
        )
    bad("time-an-integer", "the time is a float", time=NOW)
    bad("late-a-number", "flags are booleans", late=0)
    bad("redelivered-false", "`redelivered` stands there only where it is true", redelivered=False)
    bad("redelivered-a-number", "flags are booleans", redelivered=1)
    bad("version-true", "true is not a number", version=True)
    bad("digest-short", "a digest is 32 bytes", digest=bytes(31))
    bad("scores-integers", "scores are floats", scores=[0, 1])
    bad("scores-none", "no `scores` where there are none", scores=[])
    bad("scores-4097", "at most 4,096 scores", scores=[0.5] * 4097)
    bad("score-without-label", "a score is a label's", label=..., value=1.0)
    bad("no-answer", "a result has a label, a value, values or counts", label=..., score=...)
    bad("top-and-scores", "all scores or the best", top=best)
    bad("top-and-value", "a regressor has no labels", scores=..., label=..., score=..., value=1.0, top=best)
    bad("top-without-label-score", "the best stand beside the score of what holds", scores=..., score=..., top=best)
    bad("top-6", "at most 5 of the best", scores=..., top=[["broken", 0.5]] * 6)
    bad("top-empty", "no `top` where there is none", scores=..., top=[])
    bad("top-a-map", "`top` has an order", scores=..., top=dict(best))
    bad("top-without-score", "each of the best has its score", scores=..., top=[["broken"]])
    bad("top-backwards", "label, then score", scores=..., top=[[0.75, "broken"]])
    bad("top-score-integer", "scores are floats", scores=..., top=[["broken", 1]])
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

    late = {"late": True}
    add(
        "closed-late",
        "a closed epoch opens results up to its last",
        "opens",
        heard,
        closed(5),
        message(result(FIRST, 5, fields=late)),
    )
    add(
        "closed-not-late",
        "they stay as they were sealed, late or not",
        "opens",
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
        "unsigned results of a removed hub's epochs are not trusted",
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


def closed(last: int, hubs: list[Pair] | None = None, **more: Any) -> Vector:
    """Return an announcement of the second epoch that closes the first."""
    newest = announcement(SECOND, fields={"closed": {FIRST.key.kid: last}, **more})
    return announce(newest, announcement(FIRST, hubs, fields=more))


def _repeated(out: Steps, heard: Vector) -> None:
    """Add results to equal readings: what one more of them answers, after those before."""

    def said(of: EpochKey, count: int, *, again: bool = False, **fields: Any) -> Vector:
        return message(result(of, count, fields={**fields, **({"redelivered": True} if again else {})}))

    def add(name: str, rule: str, expect: str, *steps: Vector) -> None:
        out.add(name, rule, expect, heard, *steps)

    once, both = "only a redelivered result repeats another", closed(5)
    measured, again = said(FIRST, 1), said(SECOND, 1, again=True)
    add("measured-again", once, "opens", measured, both, said(SECOND, 1))
    add("measured-again-late", once, "opens", measured, both, said(SECOND, 1, late=True))
    add("measured-again-in-one-epoch", once, "opens", measured, said(FIRST, 2))
    add("answered-again", "a board died before it acknowledged", "RepeatedError", measured, both, again)
    add("stored-and-answered-again", "the outbox came later", "RepeatedError", both, again, measured)
    add("stored-and-measured-again", once, "opens", both, said(SECOND, 1), measured)
    died_twice = said(FIRST, 1, again=True)
    add("died-twice", "redelivered results repeat one another", "RepeatedError", died_twice, both, again)
    add("died-twice-and-stored", "in any order", "RepeatedError", both, again, died_twice)
    add("redelivered-before-measured", "a newer reading repeats nothing", "opens", died_twice, both, said(SECOND, 1))
    add("redelivered-after-measured", "a newer reading repeats nothing", "opens", both, said(SECOND, 1), died_twice)
    twice = said(FIRST, 2, again=True)
    add("redelivered-twice-in-one-epoch", "a process answers each reading once", "opens", died_twice, twice)
    more = said(SECOND, 2, again=True)
    add("stored-once-and-answered-again-twice", "in any order", "RepeatedError", both, again, more, measured)
    for name, source, expect in (("same", "press-01", "RepeatedError"), ("another", "press-02", "opens")):
        add(
            f"answered-again-of-{name}-source", "readings are remembered with their source", expect,
            said(FIRST, 1, source="press-01"), both, said(SECOND, 1, again=True, source=source),
        )  # fmt: skip
