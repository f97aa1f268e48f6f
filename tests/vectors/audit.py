"""Vectors: audit logs, as `edged audit --export` writes them."""

from __future__ import annotations

from kit import BOARD_SIGN, NOW, OTHER_SIGN, Pair, Vector, cbor, sha256, sign1

DEVICE = "press-07"


def entries_of(device: str = DEVICE, count: int = 6) -> list[bytes]:
    found: list[bytes] = []
    for number in range(1, count + 1):
        before = sha256(found[-1]) if found else bytes(32)
        facts = {"model": "gearbox", "version": number, "device": device}
        found.append(cbor([number, before, (NOW + number) * 10**6, "swap", facts]))
    return found


def signature(entries: list[bytes], first: int, number: int, key: Pair = BOARD_SIGN, device: str = DEVICE) -> bytes:
    """Sign ``entries``, all of a log from its beginning, as a board does that removed those before ``first``."""
    payload = [device, number, sha256(entries[number - 1]), first, sha256(entries[first - 1])]
    return sign1(key, cbor(payload), cbor(["edged.audit.1", device]))


def audit_vectors() -> list[Vector]:
    log, other = entries_of(), entries_of("press-08")
    long = entries_of(count=32)
    whole, pruned, early = (signature(log, *reach) for reach in ((1, 6), (3, 6), (1, 3)))
    short = cbor([DEVICE, 6, sha256(log[5])])

    def vector(
        name: str, rule: str, entries: list[bytes], *signatures: bytes, problems: int = 1, signed: int = 0
    ) -> Vector:
        data = cbor([entries, list(signatures)]).hex()
        return {"name": name, "rule": rule, "data": data, "expect": "opens", "problems": problems, "signed": signed}

    def refused(name: str, rule: str, data: bytes) -> Vector:
        return {"name": name, "rule": rule, "data": data.hex(), "expect": "FormatError"}

    return [
        vector("one-entry", "a log and its signature", log[:1], signature(log, 1, 1), problems=0, signed=1),
        vector("whole", "a log and its signature", log, whole, problems=0, signed=6),
        vector("unsigned-tail", "entries behind the last signature", log, early, problems=0, signed=3),
        vector("pruned", "the signature says where the log begins", log[2:], pruned, problems=0, signed=6),
        vector("newest-counts", "the signature that reaches farthest", log[2:], early, pruned, problems=0, signed=6),
        vector("head-cut", "the first entry is the one that was signed", log[1:], whole),
        vector("head-of-a-pruned-log-cut", "the first entry is the one that was signed", log[3:], pruned),
        vector("head-put-back", "the first entry is the one that was signed", log, pruned),
        vector("head-cut-unsigned", "a board removes entries only while it signs", log[1:]),
        vector("middle-cut", "entries have numbers without gaps", [*log[:2], *log[3:]], whole, signed=6),
        vector("tail-cut", "signed entries are there", log[:5], whole),
        vector("all-cut", "signed entries are there", [], whole),
        vector("another-log", "the last entry is the one that was signed", other, whole, problems=2),
        vector("no-signature", "a board signs every sixteenth entry", long),
        vector("long-tail", "a board signs every sixteenth entry", entries_of(count=35), signature(long, 1, 3)),
        vector("by-another-key", "the board's key signs", log, signature(log, 1, 6, OTHER_SIGN)),
        vector("of-another-device", "the external_aad names the device", log, signature(log, 1, 6, device="press-08")),
        vector("without-first", "five elements", log, sign1(BOARD_SIGN, short, cbor(["edged.audit.1", DEVICE]))),
        refused("not-a-pair", "two arrays", cbor([log])),
        refused("entry-not-bytes", "entries stand encoded", cbor([[1], []])),
    ]  # fmt: skip
