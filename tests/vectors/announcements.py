"""Vectors: announcements."""

from __future__ import annotations

from typing import Any

from hub import FIRST, SECOND, Steps, announce, announcement, epoch
from kit import (
    BOARD,
    BOARD_RECORD,
    CHACHA,
    DAY,
    ENROL_AAD,
    HUB,
    HUB2,
    HUB2_SIGN,
    HUB_SIGN,
    NOW,
    OTHER_SIGN,
    Symmetric,
    Vector,
    cbor,
)


def announcement_vectors() -> list[Vector]:  # noqa: PLR0915  a list
    out = Steps()
    good = announcement(FIRST)

    def fields(**change: Any) -> Vector:
        return announce(announcement(FIRST, fields=change))

    add = out.add
    add("good", "an announcement by the enrolled board", "opens", announce(good))
    add("two-hubs", "every granted hub opens it", "opens", announce(announcement(FIRST, [HUB, HUB2])), hub="hub2")
    add("chacha", "a channel of ChaCha20/Poly1305", "opens", announce(announcement(epoch(FIRST.number, "", CHACHA))))
    add("again", "the retained announcement comes again after each connection", "opens", announce(good), announce(good))
    add("re-signed", "the serial grows", "opens", announce(good), fields(serial=2))
    add("empty", "there is an announcement", "FormatError", announce(b""))
    add("not-granted", "sealed to other hubs", "NotARecipientError", announce(good), hub="hub2")
    add("cut-short", "the announcement is whole", "FormatError", announce(good[:-1]))
    for name in (
        "device",
        "epoch",
        "serial",
        "issued",
        "expires",
        "kid",
        "commit",
        "alg",
        "sign_results",
        "closed",
        "hubs",
        "echo",
        "key",
    ):
        add(f"no-{name}", f"`{name}` is there", "FormatError", fields(**{name: ...}))
    add("unknown-key", "unknown keys are refused", "FormatError", fields(note=1))
    add("epoch-a-float", "numbers are integers", "FormatError", fields(epoch=1.5))
    add("epoch-true", "true is not a number", "FormatError", fields(epoch=True))
    add("epoch-negative", "numbers are not negative", "FormatError", fields(epoch=-1))
    add("epoch-2-to-the-53", "numbers are below 2^53", "FormatError", fields(epoch=1 << 53))
    add("sign-results-a-number", "flags are booleans", "FormatError", fields(sign_results=1))
    add("lasts-too-long", "an announcement lasts two days at most", "FormatError", fields(expires=NOW - 59 + 2 * DAY))
    add("closed-short-kid", "key ids are 8 bytes", "FormatError", fields(closed={b"kid": 1}))
    add("closed-negative", "counts are not negative", "FormatError", fields(closed={bytes(8): -1}))
    add("echo-long-nonce", "nonces are 16 bytes", "FormatError", fields(echo={HUB_SIGN.kid: bytes(17)}))
    add("echo", "a hub's nonce, by what it is called", "opens", fields(echo={HUB_SIGN.kid: bytes(16)}))
    add(
        "echo-by-agreement-key",
        "hubs are called by their signing keys",
        "FormatError",
        fields(echo={HUB.kid: bytes(16)}),
    )
    add("hubs-none", "there is at least one hub", "FormatError", fields(hubs=[]))
    add("hubs-twice", "each hub once", "FormatError", fields(hubs=[HUB_SIGN.kid] * 2))
    both = sorted([HUB_SIGN.kid, HUB2_SIGN.kid])
    add("hubs-backwards", "hubs are sorted", "FormatError", fields(hubs=both[::-1]))
    add("hubs-short", "thumbprints are 32 bytes", "FormatError", fields(hubs=[bytes(31)]))
    add("hubs-a-map", "`hubs` is a list", "FormatError", fields(hubs={HUB_SIGN.kid: True}))
    many = sorted([HUB_SIGN.kid, *(n.to_bytes(32, "big") for n in range(64))])
    add("hubs-65", "at most 64 hubs", "FormatError", fields(hubs=many))
    add("not-among-hubs", "sealed to this hub, and not granted", "NotARecipientError", fields(hubs=[HUB2_SIGN.kid]))
    add("more-hubs-than-entries", "granted, and not sealed to it", "NotARecipientError", fields(hubs=both), hub="hub2")
    add("kid-not-of-commit", "the kid is the start of the commitment", "MismatchError", fields(kid=bytes(8)))
    add("alg-unknown", "content algorithms are 3 and 24", "FormatError", fields(alg=1))
    add("alg-not-that-of-the-seal", "algorithms agree", "MismatchError", fields(alg=CHACHA))
    other_alg = {**FIRST.key.cose, 3: CHACHA}
    add("alg-not-that-of-the-key", "algorithms agree", "MismatchError", announce(announcement(FIRST, inner=other_alg)))
    other_key = Symmetric("some other channel")
    add(
        "another-key-inside",
        "the key is the one committed to",
        "MismatchError",
        announce(announcement(FIRST, inner=other_key.cose)),
    )
    add(
        "key-id-not-of-the-key",
        "a key's id is its own",
        "MismatchError",
        announce(announcement(FIRST, inner={**other_key.cose, 2: FIRST.key.kid})),
    )
    add(
        "key-with-more-labels",
        "a COSE_Key has exactly four labels",
        "FormatError",
        announce(announcement(FIRST, inner={**FIRST.key.cose, 4: [4]})),
    )
    add(
        "key-of-another-epoch",
        "the channel key is bound to its epoch",
        "DecryptionError",
        announce(
            announcement(FIRST, key_aad=cbor(["edged.channel.1", "press-07", FIRST.number + 1, FIRST.key.commit]))
        ),
    )
    add(
        "key-of-another-board",
        "the channel key is bound to its board",
        "DecryptionError",
        announce(announcement(FIRST, key_aad=cbor(["edged.channel.1", "press-08", FIRST.number, FIRST.key.commit]))),
    )
    add(
        "signed-by-another",
        "the enrolled board signs",
        "UnknownSignerError",
        announce(announcement(FIRST, signer=OTHER_SIGN)),
    )
    add(
        "signed-by-the-agreement-key",
        "a key has one purpose",
        "UnknownSignerError",
        announce(announcement(FIRST, signer=BOARD)),
    )
    add(
        "signed-for-another-purpose",
        "the external_aad names the purpose",
        "SignatureError",
        announce(announcement(FIRST, aad=ENROL_AAD)),
    )
    add(
        "copied-by-another-board",
        "the announcement of one board says nothing of another",
        "SignatureError",
        announce(announcement(FIRST, device="press-08")),
    )
    add(
        "names-another-board",
        "an announcement names the board that signs it",
        "MismatchError",
        announce(announcement(FIRST, device="press-08", signed_as="press-07")),
    )
    add(
        "board-not-enrolled",
        "only enrolled boards are believed",
        "UnknownSignerError",
        announce(good, topic="edged/press-08/announce"),
    )
    add("record-as-announcement", "a record announces nothing", "SignatureError", announce(BOARD_RECORD))
    add("lapsed", "past `expires` by the hub's clock", "ExpiredError", announce(good, now=NOW + 3 * DAY))
    add(
        "issued-in-the-future",
        "more than a day ahead of the hub's clock",
        "NotYetValidError",
        announce(good, now=NOW - 2 * DAY),
    )
    add("older-serial", "an older announcement came again", "ReplayError", fields(serial=2), announce(good))
    add("older-epoch", "an older epoch came again", "ReplayError", announce(announcement(SECOND)), announce(good))
    add(
        "second-board",
        "one epoch under two keys: two boards share an identity",
        "DuplicateDeviceError",
        announce(good),
        announce(announcement(epoch(FIRST.number, " of a second board"))),
    )
    signs = {"sign_results": True}
    add(
        "signing-given-up",
        "a board that signs its results is not believed without",
        "NotAllowedError",
        announce(announcement(FIRST, fields=signs)),
        announce(announcement(SECOND)),
    )
    add("two-epochs", "newest first", "opens", announce(announcement(SECOND), good))
    add("oldest-first", "newest first", "FormatError", announce(good, announcement(SECOND)))
    add("one-epoch-twice", "each epoch once", "FormatError", announce(good, good))
    never = {"serial": 0, "issued": 0, "expires": 0}
    add(
        "older-one-undated",
        "the dates of an older one do not matter",
        "opens",
        announce(announcement(SECOND), announcement(FIRST, fields=never)),
    )
    add("undated", "what stands behind a newer one cannot take its place", "ExpiredError", fields(**never))
    add("garbage", "all of it is garbage", "FormatError", announce((b"\x99\x0f\xff" + bytes(4095)) * 32))
    add("33-epochs", "at most 32 epochs", "FormatError", announce(*[announcement(epoch(n)) for n in range(33, 0, -1)]))
    add(
        "older-one-forged",
        "each item is signed",
        "SignatureError",
        announce(announcement(SECOND), good[:-1] + bytes([good[-1] ^ 1])),
    )
    add(
        "older-one-not-granted",
        "a hub that was added later passes over the epochs before",
        "opens",
        announce(announcement(SECOND, [HUB, HUB2]), good),
        hub="hub2",
    )
    return out.vectors  # fmt: skip
