"""Vectors: sealed readings."""

from __future__ import annotations

from typing import Any

from kit import DAY, NOW, Symmetric, Vector, cbor, encrypt0


def reading(key: Symmetric, count: int, topic: tuple[str, str] = ("press-07", "vibration"), **change: Any) -> bytes:
    iv = count.to_bytes(8, "big") + b"salt"
    context = change.pop("context", "edged.reading.1")
    return encrypt0(key, iv, b'{"a1": 0.5}', cbor([context, *topic]), **change)


def reading_vectors() -> list[Vector]:
    key = Symmetric("sensor")
    clock = NOW * 1_000_000

    def vector(name: str, rule: str, expect: str, *messages: bytes, synchronised: bool = True) -> Vector:
        return {
            "name": name, "rule": rule, "key": cbor(key.cose).hex(), "topic": "factory/press-07/vibration",
            "now": NOW, "synchronised": synchronised, "messages": [one.hex() for one in messages], "expect": expect,
        }  # fmt: skip

    def read(count: int, **change: Any) -> bytes:
        return reading(key, count, **change)

    ahead = clock + DAY * 1_000_000
    return [
        vector("counter", "a counter's counts grow", "opens", read(0), read(1), read(7)),
        vector("clock", "a clock's counts grow", "opens", read(clock), read(clock + 1)),
        vector("clock-a-day-ahead", "a clock may be a day ahead", "opens", read(ahead)),
        vector("clock-over-a-day-ahead", "not more than a day", "ReplayError", read(ahead + 1)),
        vector(
            "clock-ahead-unsynchronised",
            "a board without a clock cannot tell",
            "opens",
            read(ahead + 1),
            synchronised=False,
        ),
        vector("counter-not-a-clock", "below 2^48 it is a counter", "opens", read((1 << 48) - 1)),
        vector("replayed", "each count once", "ReplayError", read(7), read(7)),
        vector("older", "only above the last", "ReplayError", read(7), read(6)),
        vector("largest-count", "counts are below 2^64", "opens", read((1 << 64) - 1), synchronised=False),
        vector(
            "moved-sensor", "bound to the sensor's level", "DecryptionError", read(1, topic=("press-08", "vibration"))
        ),
        vector("moved-channel", "bound to the last level", "DecryptionError", read(1, topic=("press-07", "current"))),
        vector("result-as-reading", "a result is no reading", "DecryptionError", read(1, context="edged.result.1")),
        vector("other-sensor", "another sensor's key", "UnknownKeyError", reading(Symmetric("other sensor"), 1)),
        vector("plain", "what is configured sealed is sealed", "FormatError", b'{"a1": 0.5}'),
        vector("flipped-bit", "a flipped bit", "DecryptionError", read(1)[:-1] + bytes([read(1)[-1] ^ 1])),
    ]
