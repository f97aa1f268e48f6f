"""`edged inspect` on records: whose each is, and none whose signature does not hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edged.formats.cose.algorithms import Aead
from edged.formats.cose.keys import PrivateKey
from edged.formats.identity import Record, Role
from support.commands import edged


@pytest.mark.parametrize(("role", "suffix"), [(Role.DEVICE, "enrol"), (Role.HUB, "pub")])
def test_inspect_record_says_whose_it_is(tmp_path: Path, role: Role, suffix: str) -> None:
    sign, ecdh = PrivateKey.generate(), PrivateKey.generate()
    aead = Aead.A256GCM if role is Role.DEVICE else None
    record = Record(role, "press-07", sign.public, ecdh.public, aead, 1_800_000_000)
    (tmp_path / f"a.{suffix}").write_bytes(record.encode(sign))
    facts = json.loads(edged("inspect", f"a.{suffix}", "--json", cwd=tmp_path).stdout)
    assert (facts["role"], facts["id"], facts["fingerprint"]) == (role.value, "press-07", record.fingerprint)


def test_inspect_record_whose_signature_does_not_hold_is_refused(tmp_path: Path) -> None:
    sign, ecdh = PrivateKey.generate(), PrivateKey.generate()
    data = Record(Role.HUB, "home", sign.public, ecdh.public, None, 1_800_000_000).encode(sign)
    (tmp_path / "a.pub").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    done = edged("inspect", "a.pub", cwd=tmp_path, check=False)
    assert done.returncode == 77
    assert "a.pub: " in done.stderr
