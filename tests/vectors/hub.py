"""What a hub hears: announcements, results, and the order in which they come."""

from __future__ import annotations

from typing import Any, NamedTuple

import cbor2
from kit import (
    BOARD_SIGN,
    DAY,
    GCM,
    HUB,
    HUB2,
    HUB2_SIGN,
    HUB_SIGN,
    NOW,
    Pair,
    Symmetric,
    Vector,
    attached,
    cbor,
    encrypt0,
    filler,
    sha256,
    sign1,
)

BASE = "edged/press-07"


class EpochKey(NamedTuple):
    number: int
    key: Symmetric


def epoch(number: int, label: str = "", alg: int = GCM) -> EpochKey:
    return EpochKey(number, Symmetric(f"channel {number}{label}", alg))


FIRST, SECOND = epoch(NOW - DAY), epoch(NOW - 60)
NAMES = {HUB.kid: HUB_SIGN.kid, HUB2.kid: HUB2_SIGN.kid}
"""What a hub is called by, beside the key that channel keys are sealed to."""


def announcement(of: EpochKey, hubs: list[Pair] | None = None, signer: Pair = BOARD_SIGN, **change: Any) -> bytes:
    number, key = of
    hubs = hubs or [HUB]
    wrapping = Symmetric(f"wrapping {number}", change.get("wrapping", key.alg))
    device = change.get("device", "press-07")
    aad = change.get("key_aad", cbor(["edged.channel.1", device, number, key.commit]))
    inner = cbor(change.get("inner", key.cose))
    fields: dict[str, Any] = {
        "device": device, "epoch": number, "serial": 1, "issued": NOW - 60, "expires": NOW - 60 + 2 * DAY,
        "kid": key.kid, "commit": key.commit, "alg": key.alg, "sign_results": False, "closed": {}, "echo": {},
        "hubs": sorted(NAMES[hub.kid] for hub in hubs),
        "key": attached(wrapping, filler(f"iv {number}", 12), inner, aad, hubs),
    }  # fmt: skip
    fields.update(change.get("fields", {}))
    payload = cbor({name: value for name, value in fields.items() if value is not ...})
    return sign1(signer, payload, change.get("aad", cbor(["edged.announce.1", change.get("signed_as", device)])))


MODEL_DIGEST = sha256(b"a manifest")


def result_map(count: int, change: dict[Any, Any]) -> bytes:
    """Return a result as edged orders it; any order of keys is valid."""
    fields: dict[Any, Any] = {
        "model": "gearbox", "version": 3, "digest": MODEL_DIGEST, "time": float(NOW), "count": count, "late": False,
        "scores": [0.25, 0.75], "label": "broken", "score": 0.75, "input": sha256(sha256(b"a reading")),
    }  # fmt: skip
    fields.update(change)
    fields.setdefault("pad", bytes(256))
    return cbor2.dumps({name: value for name, value in fields.items() if value is not ...})


def result(of: EpochKey, count: int, channel: str = "c1", **change: Any) -> bytes:
    iv = count.to_bytes(8, "big") + b"salt"
    plaintext = result_map(change.pop("says", count), change.pop("fields", {}))
    if signer := change.pop("signer", None):
        aad = change.pop("signed_aad", ["edged.signed-result.1", "press-07", channel, of.key.kid, iv])
        plaintext = sign1(signer, plaintext, cbor(aad))
    return encrypt0(of.key, iv, plaintext, change.pop("aad", cbor(["edged.result.1", "press-07", channel])), **change)


REPORT: dict[str, Any] = {
    "time": float(NOW), "uptime": 1.5, "messages": 3, "results": 2, "rate": 0.5, "refused": 1, "repeated": 0, "dropped": 0,
    "lost": 0, "waiting": 0, "stored": 0, "set_aside": 0, "error": "", "models": {"c1": ["gearbox", 3]}, "degraded": [],
    "temperature": None, "throttled": [], "pad": bytes(256),
}  # fmt: skip
INVENTORY: dict[str, Any] = {
    "edged": "0.2.0", "heartbeat": 30.0, "pad": bytes(1024),
    "models": [{"channel": "c1", "model": "gearbox", "version": 3, "installed": 3, "kind": "classifier"}],
}  # fmt: skip
OF_BOARD = {
    "health": (REPORT, "edged.health.1", "edged.signed-report.1"),
    "inventory": (INVENTORY, "edged.inventory.1", "edged.signed-inventory.1"),
}


def of_board(level: str, of: EpochKey, count: int, **change: Any) -> Vector:
    """Return what a board says of itself: a report (health) or an inventory."""
    fields, purpose, signed_purpose = OF_BOARD[level]
    iv = count.to_bytes(8, "big") + b"salt"
    plaintext = cbor(
        {name: value for name, value in {**fields, **change.get("fields", {})}.items() if value is not ...}
    )
    if signer := change.get("signer"):
        signed_for = change.get("signed_for", count).to_bytes(8, "big") + b"salt"
        plaintext = sign1(signer, plaintext, cbor([signed_purpose, "press-07", of.key.kid, signed_for]))
    return message(encrypt0(of.key, iv, plaintext, cbor([purpose, "press-07"])), level)


class Steps:
    """What a hub receives in order, and what it must say to the last of it; all that comes before is accepted."""

    def __init__(self) -> None:
        self.vectors: list[Vector] = []

    def add(self, name: str, rule: str, expect: str, *steps: Vector, hub: str = "hub") -> None:
        self.vectors.append({"name": name, "rule": rule, "hub": hub, "steps": list(steps), "expect": expect})


def announce(*items: bytes, now: int = NOW, topic: str = f"{BASE}/announce") -> Vector:
    return {"topic": topic, "data": b"".join(items).hex(), "now": now}


def message(data: bytes, channel: str = "c1") -> Vector:
    return {"topic": f"{BASE}/{channel}", "data": data.hex()}
