"""The board's side: which epoch seals, what is announced of it, and what another board's announcement means."""

from __future__ import annotations

import time

import pytest

from edged.base.errors import DuplicateDeviceError, NotARecipientError, StateError
from edged.formats.channel import MOST_HUBS
from edged.formats.channel import announcer as announcer_module
from edged.formats.channel import epoch as epoch_module
from edged.formats.channel.announce import LIFETIME, LIMITS, MOST_EPOCHS, RESIGN_AFTER, Announcement, split
from edged.formats.channel.epoch import MAX_COUNT, Epoch
from edged.formats.cose import cbor
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.encrypt0 import parse
from edged.formats.cose.keys import ContentKey, PrivateKey
from support.parties import ANSWER, INPUT, NOW, Board, Hub, encoder, seal


def read(payload: bytes, board: Board) -> list[Announcement]:
    return [Announcement.parse(item, board.name, board.sign.public) for item in split(payload)]


def iv_of(message: bytes) -> tuple[int, bytes]:
    iv = parse(message, 4096).iv
    return int.from_bytes(iv[:8], "big"), iv[8:]


@pytest.mark.parametrize("aead", list(Aead))
def test_announcement_unwraps_for_each_hub(aead: Aead) -> None:
    board, hubs = Board(), [Hub(), Hub()]
    (announced,) = read(board.announcer(*hubs, aead=aead).announcement(NOW), board)
    keys = {announced.unwrap(hub.key).secret for hub in hubs}
    assert len(keys) == 1
    assert announced.expires - announced.issued == LIFETIME
    with pytest.raises(NotARecipientError):
        announced.unwrap(Hub().key)


def test_counts_begin_at_one_and_each_message_has_a_salt_of_its_own() -> None:
    announcer = Board().announcer(Hub())
    ivs = [iv_of(seal(announcer, channel)) for channel in ("c1", "c2", "c1")]
    assert [count for count, _ in ivs] == [1, 2, 3]
    assert len({salt for _, salt in ivs}) == 3


def test_a_snapshot_resumed_twice_uses_no_iv_for_two_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key, count and even the kernel's random bytes may come twice: then what is said tells the IVs apart."""
    epoch = Epoch("press-07", 1, ContentKey.generate(Aead.A256GCM), None)
    monkeypatch.setattr(epoch_module.os, "urandom", bytes)
    ivs = set()
    for message in (b"healthy", b"broken", b"healthy"):
        epoch.count = 0
        ivs.add(iv_of(epoch.seal("c1", message)))
    assert len(ivs) == 2


def test_salt_depends_on_a_key_that_nobody_else_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who guesses a message must not be able to compute its salt."""
    epochs = [Epoch("press-07", 1, ContentKey.generate(Aead.A256GCM), None) for _ in range(2)]
    monkeypatch.setattr(epoch_module.os, "urandom", bytes)
    assert len({iv_of(epoch.seal("c1", b"healthy")) for epoch in epochs}) == 2


def test_restart_has_a_new_key_and_a_higher_epoch() -> None:
    board, hub = Board(), Hub()
    before, after = board.announcer(hub, first=7), board.announcer(hub, first=8)
    assert after.epoch > before.epoch
    assert read(before.announcement(NOW), board)[0].kid != read(after.announcement(NOW), board)[0].kid


def test_epoch_seals_no_more_than_its_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    epoch = Epoch("press-07", 1, ContentKey.generate(Aead.A256GCM), None)
    monkeypatch.setattr(epoch, "count", MAX_COUNT - 1)
    epoch.seal("c1", b"")
    assert epoch.spent
    with pytest.raises(StateError, match="1048576"):
        epoch.seal("c1", b"")


def test_announcer_rotates_when_an_epoch_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    announcer = Board().announcer(Hub())
    first = announcer.epoch
    monkeypatch.setattr(announcer._current.epoch, "count", MAX_COUNT)
    assert iv_of(seal(announcer))[0] == 1
    assert announcer.epoch > first


def test_announcer_rotates_by_age() -> None:
    announcer = Board().announcer(Hub(), max_age=-1)
    first = announcer.epoch
    seal(announcer)
    assert announcer.epoch > first


def test_an_aged_epoch_ends_with_results_on_their_way_and_is_announced_until_these_have_arrived() -> None:
    board = Board()
    announcer = board.announcer(Hub())
    kid, *_ = announcer.seal("c1", encoder(), ANSWER, INPUT)
    announcer._max_age = -1
    seal(announcer)
    assert read(announcer.announcement(NOW), board)[0].closed == {kid: 1}


def test_closed_epochs_are_announced_until_their_results_are_delivered() -> None:
    board = Board()
    announcer = board.announcer(Hub())
    kid, *_ = announcer.seal("c1", encoder(), ANSWER, INPUT, late=True)
    announcer.seal("c1", encoder(), ANSWER, INPUT, late=True)
    announcer.rotate()
    newest, closed = read(announcer.announcement(NOW), board)
    assert newest.epoch > closed.epoch
    assert closed.kid == kid
    assert newest.closed == {kid: 2}
    announcer.delivered(kid)
    assert len(read(announcer.announcement(NOW), board)) == 2
    announcer.delivered(kid)
    assert len(read(announcer.announcement(NOW), board)) == 1


def test_announcements_fit_their_limits_at_the_most() -> None:
    """64 hubs that all asked, 32 epochs; those behind the first cannot take its place."""
    hubs = [Hub() for _ in range(MOST_HUBS)]
    board = Board("p" * 64)
    announcer = board.announcer(*hubs)
    for hub in hubs:
        announcer.asked(hub.name, bytes(16))
    for _ in range(MOST_EPOCHS + 3):
        seal(announcer, late=True)
        announcer.rotate()
    payload = announcer.announcement(NOW)
    assert len(read(payload, board)) == MOST_EPOCHS
    assert max(map(len, cbor.split_sequence(payload, LIMITS, MOST_EPOCHS))) < LIMITS.size
    assert {one.expires for one in read(payload, board)[1:]} == {0}


@pytest.mark.parametrize("hubs", [1, MOST_HUBS])
def test_announcements_fit_into_what_the_broker_takes(hubs: int) -> None:
    announcer = Board("p" * 64).announcer(*[Hub() for _ in range(hubs)])
    announcer._echo = dict.fromkeys(announcer._hubs, bytes(16))
    for _ in range(MOST_EPOCHS):
        seal(announcer, late=True)
        announcer.rotate()
    whole, numbers = len(announcer.announcement(NOW)), set()
    for most in range(0, whole + 20_000, whole // 50):
        announcer.most_bytes = most
        payload = announcer.announcement(NOW)
        numbers.add(len(split(payload)))
        assert len(payload) <= most or numbers == {1}
    assert max(numbers) == MOST_EPOCHS


def test_a_hub_that_is_granted_no_more_is_echoed_no_more() -> None:
    board, kept, removed = Board(), Hub(), Hub()
    announcer = board.announcer(kept, removed)
    announcer.asked(removed.name, bytes(16))
    announcer.set_hubs([kept.record])
    (newest,) = read(announcer.announcement(NOW), board)
    assert (newest.hubs, newest.echo) == ((kept.name,), {})


def test_hub_list_changed_begins_an_epoch_that_a_removed_hub_cannot_read() -> None:
    board, kept, removed = Board(), Hub(), Hub()
    announcer = board.announcer(kept, removed)
    first = announcer.epoch
    announcer.set_hubs([removed.record, kept.record])
    assert announcer.epoch == first, "the same hubs in another order"
    announcer.set_hubs([kept.record])
    assert announcer.epoch > first
    newest = read(announcer.announcement(NOW), board)[0]
    newest.unwrap(kept.key)
    with pytest.raises(NotARecipientError):
        newest.unwrap(removed.key)


def test_announcement_is_due_when_new_and_twice_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    announcer = Board().announcer(Hub())
    assert announcer.due
    announcer.announcement(NOW)
    assert not announcer.due
    begin = time.monotonic()
    monkeypatch.setattr(announcer_module.time, "monotonic", lambda: begin + RESIGN_AFTER + 60)
    assert announcer.due


def test_announcement_is_due_when_a_hub_asks_and_once_a_second_at_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody on the broker can ask in a hub's name; signing costs a board time."""
    hub = Hub()
    announcer = Board().announcer(hub)
    announcer.announcement(NOW)
    announcer.asked(hub.name, bytes(16))
    assert not announcer.due
    begin = time.monotonic()
    monkeypatch.setattr(announcer_module.time, "monotonic", lambda: begin + 1.5)
    assert announcer.due
    announcer.announcement(NOW)
    assert not announcer.due


def test_nonces_of_strangers_are_not_echoed() -> None:
    board, hub = Board(), Hub()
    announcer = board.announcer(hub)
    announcer.asked(Hub().name, bytes(16))
    announcer.asked(hub.name, bytes(15))
    assert read(announcer.announcement(NOW), board)[0].echo == {}
    announcer.asked(hub.name, bytes(16))
    assert read(announcer.announcement(NOW), board)[0].echo == {hub.name: bytes(16)}


# --- what stands on the board's own topic ----------------------------------------------------


def test_own_retained_announcement_above_the_stored_epoch_lifts_it() -> None:
    """The state was lost: the epoch goes above what hubs have seen, or they would take it for a replay."""
    board, hub = Board(), Hub()
    old, new = board.announcer(hub, first=50), board.announcer(hub, first=1)
    new.saw(old.announcement(NOW), retained=True)
    assert new.epoch == 51


def test_own_retained_announcement_below_the_stored_epoch_changes_nothing() -> None:
    board, hub = Board(), Hub()
    old, new = board.announcer(hub, first=1), board.announcer(hub, first=50)
    new.saw(old.announcement(NOW), retained=True)
    assert new.epoch == 50


@pytest.mark.parametrize("retained", [False, True])
def test_a_snapshot_of_this_board_that_runs_elsewhere_begins_a_new_epoch_here(*, retained: bool) -> None:
    """It announces the same key under a serial that this process has not signed."""
    board = Board()
    ours = board.announcer(Hub())
    before = ours.epoch
    own = ours.announcement(NOW)
    ours.saw(own, retained=retained)
    assert ours.epoch == before
    elsewhere = ours.announcement(NOW)
    ours._current.serial -= 1  # as it was when the snapshot was made
    ours.saw(elsewhere, retained=retained)
    assert ours.epoch > before
    assert ours.due


def test_a_second_board_s_announcement_that_is_garbage_is_refused_before_anything_is_scanned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """130 kB of it cost the loop of a board 60 ms."""
    announcer = Board().announcer(Hub())
    own = announcer.announcement(NOW)
    forged = own[:42] + b"\x59\x0f\xff" + b"\x99\x0f\xfc" + bytes(4092) + b"\x58\x40" + bytes(64)
    monkeypatch.setattr(cbor, "scan", lambda *_: pytest.fail("scanned"))
    epoch = announcer.epoch
    for garbage in ((b"\x99\x0f\xff" + bytes(4095)) * 32, forged * 32):
        announcer.saw(garbage, retained=False)
    assert announcer.epoch == epoch


def test_second_board_with_one_identity_is_noticed() -> None:
    board, hub = Board(), Hub()
    ours, copy = board.announcer(hub, first=1), board.announcer(hub, first=2)
    with pytest.raises(DuplicateDeviceError, match="press-07"):
        ours.saw(copy.announcement(NOW), retained=False)


def test_second_board_with_one_identity_and_epoch_is_noticed() -> None:
    board, hub = Board(), Hub()
    ours, copy = board.announcer(hub, first=1), board.announcer(hub, first=1)
    with pytest.raises(DuplicateDeviceError):
        ours.saw(copy.announcement(NOW), retained=False)


@pytest.mark.parametrize("retained", [False, True])
def test_own_announcement_coming_back_changes_nothing(*, retained: bool) -> None:
    announcer = Board().announcer(Hub())
    epoch = announcer.epoch
    announcer.saw(announcer.announcement(NOW), retained=retained)
    assert announcer.epoch == epoch


@pytest.mark.parametrize("retained", [False, True])
def test_strangers_announcements_on_the_own_topic_change_nothing(*, retained: bool) -> None:
    """Anybody who may publish there could otherwise stop the board or move its epoch."""
    hub = Hub()
    announcer = Board().announcer(hub)
    epoch = announcer.epoch
    stranger = Board(sign=PrivateKey.generate()).announcer(hub, first=1000)
    for payload in (stranger.announcement(NOW), b"", b"\xff", bytes(100), stranger.announcement(NOW)[:-1]):
        announcer.saw(payload, retained=retained)
    assert announcer.epoch == epoch
