"""The audit log: what is missing or changed is found, whoever wrote it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.base.errors import FormatError, KeystoreError
from edged.board.audit import KEEP, SIGN_EVERY, AuditLog, Entry, export, parse_export, verify
from edged.board.state import State
from edged.formats.cose.keys import PrivateKey

KEY = PrivateKey.generate()


def log_of(directory: Path, entries: int, *, sign: bool = True) -> tuple[list[bytes], list[bytes]]:
    state = State(directory)
    log = AuditLog(state, "press-07", KEY)
    for number in range(entries):
        log.add("swap", model="gearbox", version=number)
    if sign:
        log.sign()
    found = state.audit()
    state.close()
    return found


def problems(entries: list[bytes], signatures: list[bytes], device: str = "press-07") -> list[str]:
    return verify(entries, signatures, device, KEY.public).problems


def test_entries_follow_one_another_and_are_signed_every_so_often(tmp_path: Path) -> None:
    entries, signatures = log_of(tmp_path / "s", 2 * SIGN_EVERY + 3, sign=False)
    verdict = verify(entries, signatures, "press-07", KEY.public)

    assert (verdict.problems, verdict.signed, len(signatures)) == ([], 2 * SIGN_EVERY, 1)
    assert [entry.number for entry in verdict.entries] == list(range(1, 2 * SIGN_EVERY + 4))
    assert verdict.entries[4].facts == {"model": "gearbox", "version": 4}


def test_two_writers_share_one_chain(tmp_path: Path) -> None:
    """The daemon and `edged install` write at the same time."""
    first, second = State(tmp_path / "s"), State(tmp_path / "s")
    logs = [AuditLog(state, "press-07", KEY) for state in (first, second)]
    for number in range(20):
        logs[number % 2].add("install", version=number)

    assert problems(*first.audit()) == []
    first.close()
    second.close()


@settings(max_examples=40)
@given(data=st.data())
def test_any_changed_bit_is_found(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    entries, signatures = log_of(tmp_path_factory.mktemp("a") / "s", 6)
    at = data.draw(st.integers(0, 5))
    bit = data.draw(st.integers(0, 8 * len(entries[at]) - 1))
    changed = bytearray(entries[at])
    changed[bit // 8] ^= 1 << bit % 8

    assert problems([*entries[:at], bytes(changed), *entries[at + 1 :]], signatures)


@pytest.mark.parametrize("at", range(6))
def test_a_missing_entry_is_found(tmp_path: Path, at: int) -> None:
    """The first one, too, and the last, which was signed."""
    entries, signatures = log_of(tmp_path / "s", 6)

    assert problems(entries[:at] + entries[at + 1 :], signatures)


@pytest.mark.parametrize("cut", [1, 15, 16, 17, 39])
def test_a_cut_head_is_found(tmp_path: Path, cut: int) -> None:
    """Whoever can write `state.db` removes the entry of an install as the board itself would prune it."""
    entries, _ = log_of(tmp_path / "s", 40)
    state = State(tmp_path / "s")
    state.db.execute("DELETE FROM audit WHERE number <= ?", (cut,))

    assert problems(*state.audit()) == [f"entries 1 to {cut} were signed and are missing"]
    assert problems(entries[cut:], []) == [
        f"entries 1 to {cut} are missing, and no signature says that the board removed them"
    ]
    state.close()


def test_a_head_that_is_cut_after_pruning_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signature that was made when the log was longer is gone, and would not fit either."""
    entries, early = log_of(tmp_path / "s", 5)
    monkeypatch.setattr("edged.board.audit.KEEP", 20)
    pruned, signatures = log_of(tmp_path / "s", 40)

    assert [Entry.parse(pruned[0]).number, len(signatures)] == [26, 1]
    assert problems(pruned, signatures) == []
    assert problems(pruned[1:], signatures) == ["entries 26 to 26 were signed and are missing"]
    assert problems(pruned, early) == ["entries 1 to 25 were signed and are missing", *problems(pruned, early)[1:]]
    assert problems(entries, signatures)


def test_a_long_log_without_its_signatures_is_found(tmp_path: Path) -> None:
    entries, signatures = log_of(tmp_path / "s", 2 * SIGN_EVERY)

    assert problems(entries, signatures) == []
    assert problems(entries, []) == ["no signature over entries 1 to 32, though boards sign every 16th"]


def test_a_kill_between_pruning_and_signing_leaves_the_log_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a token that goes away just then."""
    before = log_of(tmp_path / "s", 30)
    monkeypatch.setattr("edged.board.audit.KEEP", 20)
    state = State(tmp_path / "s")

    class Gone:
        public = KEY.public

        def sign(self, _digest: bytes) -> bytes:
            raise KeystoreError("the token is gone")

    with pytest.raises(KeystoreError):
        AuditLog(state, "press-07", Gone()).sign()
    assert state.audit() == before
    assert problems(*before) == []
    state.close()


def test_two_entries_that_changed_places_are_found(tmp_path: Path) -> None:
    entries, signatures = log_of(tmp_path / "s", 6)
    entries[2], entries[3] = entries[3], entries[2]

    assert problems(entries, signatures)


def test_a_chain_that_was_worked_out_anew_misses_its_signature(tmp_path: Path) -> None:
    """Who can write the file can work out every hash, and cannot sign."""
    entries, signatures = log_of(tmp_path / "s", 6)
    forged, _ = log_of(tmp_path / "t", 6, sign=False)

    assert problems(forged, []) == []
    assert verify(forged, [], "press-07", KEY.public).signed == 0
    assert problems(forged, signatures) == [f"entry {number} is not the one that was signed" for number in (1, 6)]
    assert problems(entries, signatures, device="press-08")


def test_a_signature_by_another_key_is_not_believed(tmp_path: Path) -> None:
    entries, signatures = log_of(tmp_path / "s", 6)

    assert verify(entries, signatures, "press-07", PrivateKey.generate().public).signed == 0
    assert verify(entries, signatures, "press-07", PrivateKey.generate().public).problems


def test_a_log_is_pruned_and_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edged.board.audit.KEEP", 20)
    entries, signatures = log_of(tmp_path / "s", 5 * SIGN_EVERY)

    assert len(entries) == 20 < KEEP
    assert problems(entries, signatures) == []


def test_an_export_holds_it_all_and_nothing_else_is_one(tmp_path: Path) -> None:
    log = log_of(tmp_path / "s", 3)

    assert parse_export(export(*log)) == log
    for data in (b"", export(*log)[:-1], export(*log) + b"\0", b"\x82\x01\x02"):
        with pytest.raises(FormatError):
            parse_export(data)


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x85\x01\x02\x03\x04\x05", b"\xa0"])
def test_what_is_no_entry_is_named(data: bytes) -> None:
    with pytest.raises(FormatError):
        Entry.parse(data)
    assert problems([data], [])


def test_a_state_of_the_release_before_gains_a_log(tmp_path: Path) -> None:
    state = State(tmp_path / "s")
    state.db.executescript("DROP TABLE audit; DROP TABLE audit_signature; PRAGMA user_version = 1;")
    state.close()

    assert problems(*log_of(tmp_path / "s", 2)) == []
