"""Vectors: strict CBOR."""

from __future__ import annotations

from kit import Vector


def cbor_vectors() -> list[Vector]:
    def bad(name: str, rule: str, data: str, **more: object) -> Vector:
        return {"name": name, "rule": rule, "data": data, "expect": "FormatError", **more}

    def good(name: str, rule: str, data: str, **more: object) -> Vector:
        return {"name": name, "rule": rule, "data": data, "expect": "opens", **more}

    deep = "81" * 16
    return [
        good("map", "a map with integer, text and byte string keys", "a301026141034101f6"),
        good("nested-16", "sixteen levels of nesting are allowed", deep + "00"),
        good("typed-array", "RFC 8746 typed arrays are allowed", "d85548000000000000803f"),
        good("matrix", "RFC 8746 multi-dimensional arrays are allowed", "d828828201028100"),
        good("long-head", "a head longer than needed is allowed where no trust depends on it", "1801"),
        bad("long-head-canonical", "trust structures are in deterministic encoding", "1801", mode="canonical"),
        bad("unsorted-keys-canonical", "trust structures have their keys sorted", "a202000100", mode="canonical"),
        bad(
            "long-float-canonical",
            "trust structures have their floats shortest",
            "fb3ff0000000000000",
            mode="canonical",
        ),
        good("short-float-canonical", "a float in half precision", "f93c00", mode="canonical"),
        bad("empty", "there is one data item", ""),
        bad("trailing-byte", "nothing stands behind the item", "0000"),
        bad("duplicate-integer-key", "no duplicate keys", "a201000102"),
        bad("duplicate-text-key", "no duplicate keys", "a2616100616101"),
        bad("duplicate-key-longer-head", "no duplicate keys, however encoded", "a20100180102"),
        bad("duplicate-key-nested", "no duplicate keys at any depth", "8181a2410100410101"),
        bad("bool-key", "keys are integers or strings", "a1f500"),
        bad("float-key", "keys are integers or strings", "a1f93c0000"),
        bad("array-key", "keys are integers or strings", "a1810000"),
        bad("indefinite-array", "no indefinite lengths", "9f00ff"),
        bad("indefinite-map", "no indefinite lengths", "bf0000ff"),
        bad("indefinite-bytes", "no indefinite lengths", "5f4100ff"),
        bad("indefinite-text", "no indefinite lengths", "7f6161ff"),
        bad("break-alone", "no indefinite lengths", "ff"),
        bad("reserved-head", "no reserved heads", "1c"),
        bad("undefined", "no simple value but false, true, null", "f7"),
        bad("simple-value", "no simple value but false, true, null", "f0"),
        bad("simple-value-2", "no simple value but false, true, null", "f820"),
        bad("tag-datetime", "no tag but those listed", "c074323032372d30312d31355430303a30303a30305a"),
        bad("tag-bignum", "no tag but those listed", "c24101"),
        bad("tag-shared", "no tag but those listed", "d81c81d81d00"),
        bad("tag-regex", "no tag but those listed", "d823612e"),
        bad("tag-mime", "no tag but those listed", "d8246161"),
        bad("tag-self-described", "no tag but those listed", "d9d9f700"),
        bad("text-not-utf8", "text is UTF-8", "61ff"),
        bad("string-cut-short", "strings are whole", "43aabb"),
        bad("string-of-2-to-the-64", "strings are whole", "5bffffffffffffffff00"),
        bad("array-cut-short", "arrays are whole", "8200"),
        bad("array-of-2-to-the-64", "arrays are whole", "9bffffffffffffffff00"),
        bad("map-without-value", "maps are whole", "a100"),
        bad("head-cut-short", "heads are whole", "19ff"),
        bad("nested-17", "at most sixteen levels of nesting", "81" + deep + "00"),
        bad("too-many-items", "at most 4096 items", "991000" + "00" * 4096),
        bad("too-large", "at most 65536 bytes", "5a00010000" + "00" * 65536),
        good("sequence", "a sequence of two", "0001", mode="sequence", most=2),
        bad("sequence-too-long", "a sequence has a bound", "000102", mode="sequence", most=2),
        bad("sequence-cut-short", "each item of a sequence is whole", "0041", mode="sequence", most=2),
    ]
