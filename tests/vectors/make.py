"""Writes the test vectors beside it: `python tests/vectors/make.py`. They are committed; run this when a format grows.

It is a second implementation of docs/formats.md on purpose: nothing of edged is imported, so that what the vectors
say is what the document says. All keys are fixed, ephemeral ones too, and signatures are deterministic (RFC 6979): two
runs write the same bytes. Never use any of these keys for anything else.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from announcements import announcement_vectors
from audit import audit_vectors
from board import inventory_vectors, report_vectors
from cose_objects import encrypt0_vectors, encrypt_vectors, sign1_vectors
from kit import BOARD_RECORD, PAIRS
from orders import masking_vectors, order_vectors
from packages import package_vectors
from readings import reading_vectors
from records import key_vectors, record_vectors
from results import result_vectors
from strict_cbor import cbor_vectors

HERE = Path(__file__).parent
FILES = {
    "cbor": (cbor_vectors, "Strict CBOR: `mode` is decode, canonical or sequence"),
    "sign1": (sign1_vectors, "COSE_Sign1, verified with `key` for the purpose `aad`"),
    "encrypt0": (encrypt0_vectors, "COSE_Encrypt0, opened with `key` for the purpose `aad`"),
    "encrypt": (encrypt_vectors, "COSE_Encrypt of at most 4 recipients, opened by `key` for the purpose `aad`"),
    "record": (record_vectors, "Enrolment records; `replaces` is the record that was known before"),
    "announcement": (announcement_vectors, "What a hub hears, in order; the last step is judged"),
    "result": (result_vectors, "What a hub hears, in order; the last step is judged"),
    "report": (report_vectors, "What a hub hears, in order; the last step is judged"),
    "inventory": (inventory_vectors, "What a hub hears, in order; the last step is judged"),
    "reading": (reading_vectors, "What a board hears from a sensor, in order; the last message is judged"),
    "key": (key_vectors, "Key files of sensors and boards"),
    "audit": (audit_vectors, "Exported audit logs of press-07, which signs with `board sign`"),
    "package": (package_vectors, "Packages, from bytes to weights, on a board"),
    "order": (order_vectors, "Orders of an aggregator to boards"),
    "masking": (
        masking_vectors,
        "Statements that answer `order`, and what boards sign for a sum of `active` and `dead`",
    ),
}


def main() -> None:
    keys = {
        pair.name: {"d": pair.d.hex(), "x": pair.x.hex(), "y": pair.y.hex(), "kid": pair.kid.hex()} for pair in PAIRS
    }
    _write("keys", {"about": "Key pairs that the vectors name, P-256. For tests only", "keys": keys})
    for name, (make, about) in FILES.items():
        vectors = make()
        names = [vector["name"] for vector in vectors]
        assert len(set(names)) == len(names), f"a name comes twice in {name}"
        _write(name, {"about": about, "enrolled": BOARD_RECORD.hex(), "vectors": vectors})


def _write(name: str, value: dict[str, Any]) -> None:
    if name not in ("announcement", "result"):
        value.pop("enrolled", None)
    (HERE / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    main()
