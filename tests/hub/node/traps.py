"""Prints vectors of what JavaScript, cbor-x or a short memory would get wrong, made with the tools of tests/vectors."""

from __future__ import annotations

import json
import sys

import cbor2
from hub import FIRST, MODEL_DIGEST, SECOND, Steps, announce, announcement, epoch, message, result, result_map
from kit import DAY, NOW, cbor, encrypt0

IV = (1).to_bytes(8, "big") + b"salt"


def with_entry(key: object, value: object) -> bytes:
    """Return a sealed result with one more entry, of any key."""
    whole = result_map(1, {})
    plaintext = bytes((whole[0] + 1,)) + whole[1:] + cbor2.dumps(key) + cbor2.dumps(value)
    return encrypt0(FIRST.key, IV, plaintext, cbor(["edged.result.1", "press-07", "c1"]))


def main() -> None:
    good = announce(announcement(FIRST))
    closes = announcement(SECOND, fields={"closed": {FIRST.key.kid: 5}})
    both, newest = announce(closes, announcement(FIRST)), announce(closes)
    late = message(result(FIRST, 3, fields={"late": True}))
    now, again = message(result(FIRST, 1)), message(result(SECOND, 1, fields={"redelivered": True}))
    far = epoch(2**40 + 1)
    steps = Steps()
    add = steps.add
    add(
        "epoch-of-41-bits",
        "cbor-x encodes it as a float",
        "opens",
        announce(announcement(far)),
        message(result(far, 1)),
    )
    clock = {"input": [bytes(8), 1_800_000_000_000_000, 1_800_000_000_000_001]}
    add("clock-counts", "cbor-x decodes them to BigInts", "opens", good, message(result(FIRST, 1, fields=clock)))
    typed = {"digest": cbor2.CBORTag(64, MODEL_DIGEST)}
    add("typed-array", "cbor-x decodes it to bytes", "FormatError", good, message(result(FIRST, 1, fields=typed)))
    add("bytes-key", "as a property it is `model`", "FormatError", good, message(with_entry(b"model", "gearbox")))
    add(
        "constructor",
        "each object has it; unknown keys are passed over",
        "opens",
        good,
        message(with_entry("constructor", "gearbox")),
    )
    rule = "an epoch that was cut off is not forgotten"
    add("cut-off-and-back", rule, "ReplayError", both, late, newest, both, late)
    add("answered-again", "redelivered, and answered under another key", "RepeatedError", both, late, newest, again)
    add("later", "the announcement has lapsed since", "ExpiredError", good, {**now, "now": NOW + 3 * DAY})
    json.dump(steps.vectors, sys.stdout)


if __name__ == "__main__":
    main()
