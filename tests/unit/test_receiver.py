"""The hub's side, attack by attack. Whoever runs the broker can do all of this."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.base.errors import (
    DecryptionError,
    DuplicateDeviceError,
    EdgedError,
    ExpiredError,
    FormatError,
    NotAllowedError,
    NotARecipientError,
    NotYetValidError,
    RepeatedError,
    ReplayError,
    SignatureError,
    UnknownKeyError,
    UnknownSignerError,
)
from edged.formats.channel import MOST_CHANNELS
from edged.formats.channel.announce import LIFETIME, split
from edged.formats.channel.announcer import Announcer
from edged.formats.channel.epoch import health_aad, signed_report_aad
from edged.formats.channel.inventory import Inventory, ServedModel
from edged.formats.channel.report import Report
from edged.formats.cose import cbor
from edged.formats.cose.encrypt0 import Box
from edged.formats.cose.keys import PrivateKey
from edged.formats.cose.sign1 import sign
from support.parties import ANSWER, INPUT, NOW, Board, Hub, encoder, hear, open_all, seal

TOPIC = "edged/press-07/c1"
DAY = 86_400


def test_results_open_once_announced() -> None:
    board, hub = Board(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub)
    hear(receiver, announcer)
    opened = open_all(receiver, [seal(announcer) for _ in range(3)])
    assert [(one.device, one.channel, one.count, one.signed) for one in opened] == [
        ("press-07", "c1", count, False) for count in (1, 2, 3)
    ]
    assert opened[0].result.label == "broken"


def test_result_before_its_announcement_is_an_unknown_key_and_opens_afterwards() -> None:
    board, hub = Board(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub)
    message = seal(announcer)
    with pytest.raises(UnknownKeyError):
        receiver.open(TOPIC, message, NOW)
    hear(receiver, announcer)
    assert receiver.open(TOPIC, message, NOW).count == 1


# --- attacks on announcements ----------------------------------------------------------------


def test_announcement_replayed_after_a_newer_one() -> None:
    board, hub = Board(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub)
    old = hear(receiver, announcer)
    hear(receiver, announcer)
    with pytest.raises(ReplayError):
        receiver.announce("press-07", old, NOW)


def test_announcement_of_an_older_epoch_replayed() -> None:
    board, hub = Board(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub)
    old = hear(receiver, announcer)
    announcer.rotate()
    hear(receiver, announcer)
    with pytest.raises(ReplayError):
        receiver.announce("press-07", old, NOW)
    assert receiver.open(TOPIC, seal(announcer), NOW).count == 1, "what was known stays as it was"


def test_announcement_copied_by_another_board() -> None:
    board, other, hub = Board(), Board("press-08"), Hub()
    receiver = hub.receiver(board, other)
    with pytest.raises(UnknownSignerError):
        receiver.announce("press-08", board.announcer(hub).announcement(NOW), NOW)


def test_announcement_copied_to_another_name_of_the_same_key() -> None:
    board, hub = Board(), Hub()
    renamed = Board("press-08", board.sign, board.ecdh)
    receiver = hub.receiver(board, renamed)
    with pytest.raises(SignatureError):
        receiver.announce("press-08", board.announcer(hub).announcement(NOW), NOW)


def test_channel_key_copied_into_another_boards_announcement() -> None:
    """A board that copies a sealed key cannot make hubs believe that it belongs to its own channel."""
    board, thief, hub = Board(), Board("press-08"), Hub()
    announcer, stealing = board.announcer(hub), thief.announcer(hub)
    stealing._current.epoch.key = announcer._current.epoch.key
    stealing._current.sealed_key = announcer._current.sealed_key
    with pytest.raises(DecryptionError):
        hub.receiver(thief).announce("press-08", stealing.announcement(NOW), NOW)


def test_second_board_with_one_identity() -> None:
    board, hub = Board(), Hub()
    receiver = hub.receiver(board)
    hear(receiver, board.announcer(hub, first=5))
    with pytest.raises(DuplicateDeviceError):
        hear(receiver, board.announcer(hub, first=5))


def test_announcement_by_a_stranger() -> None:
    board, hub = Board(), Hub()
    with pytest.raises(UnknownSignerError):
        hear(hub.receiver(board), Board(sign=PrivateKey.generate()).announcer(hub))
    with pytest.raises(UnknownSignerError):
        hear(hub.receiver(), board.announcer(hub))


def test_announcement_with_a_flipped_bit_at_every_byte() -> None:
    board, hub = Board(), Hub()
    payload = board.announcer(hub).announcement(NOW)
    for at in range(len(payload)):
        altered = bytearray(payload)
        altered[at] ^= 1 << at % 8
        with pytest.raises(EdgedError):
            hub.receiver(board).announce("press-07", bytes(altered), NOW)


def test_announcement_cut_at_every_byte() -> None:
    board, hub = Board(), Hub()
    receiver = hub.receiver(board)
    payload = board.announcer(hub).announcement(NOW)
    for end in range(len(payload)):
        with pytest.raises(FormatError):
            receiver.announce("press-07", payload[:end], NOW)


@given(st.binary(max_size=300))
def test_announcement_of_random_bytes(data: bytes) -> None:
    with pytest.raises(EdgedError):
        Hub().receiver(Board()).announce("press-07", data, NOW)


def test_announcement_lapses_by_the_hubs_clock() -> None:
    board, hub = Board(), Hub()
    receiver = hub.receiver(board)
    payload = board.announcer(hub).announcement(NOW)
    receiver.announce("press-07", payload, NOW + LIFETIME)
    with pytest.raises(ExpiredError):
        receiver.announce("press-07", payload, NOW + LIFETIME + 1)


def test_announcement_from_the_future() -> None:
    board, hub = Board(), Hub()
    with pytest.raises(NotYetValidError):
        hub.receiver(board).announce("press-07", board.announcer(hub).announcement(NOW + 3 * DAY), NOW)


def test_board_without_a_clock_answers_the_hubs_question() -> None:
    board, hub = Board(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub)
    with pytest.raises(ExpiredError):
        receiver.announce("press-07", announcer.announcement(1000), NOW)
    announcer.asked(hub.name, receiver.nonce("press-07"))
    receiver.announce("press-07", announcer.announcement(1001), NOW)
    assert receiver.open(TOPIC, seal(announcer), NOW).count == 1


def test_answer_to_a_hubs_question_is_good_for_as_long_as_an_announcement() -> None:
    """Kept back and replayed two days later, it proves nothing any more; the hub asks anew."""
    board, hub = Board(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub)
    with pytest.raises(ExpiredError):
        receiver.announce("press-07", announcer.announcement(1000), NOW)
    nonce = receiver.nonce("press-07")
    announcer.asked(hub.name, nonce)
    answer = announcer.announcement(1001)
    receiver.announce("press-07", answer, NOW + LIFETIME)
    with pytest.raises(ExpiredError):
        receiver.announce("press-07", answer, NOW + LIFETIME + 1)
    assert receiver.nonce("press-07") != nonce


def test_answer_of_a_board_whose_clock_is_years_ahead_is_good_for_no_longer() -> None:
    board, hub = Board(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub)
    with pytest.raises(ExpiredError):
        receiver.announce("press-07", announcer.announcement(1000), NOW)
    announcer.asked(hub.name, receiver.nonce("press-07"))
    receiver.announce("press-07", announcer.announcement(NOW + 3650 * DAY), NOW)
    assert receiver.open(TOPIC, seal(announcer), NOW + LIFETIME).count == 1
    with pytest.raises(ExpiredError):
        receiver.open(TOPIC, seal(announcer), NOW + LIFETIME + 1)


def test_answer_to_another_hubs_question_proves_nothing() -> None:
    board, hub, other = Board(), Hub(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub, other)
    with pytest.raises(ExpiredError):
        receiver.announce("press-07", announcer.announcement(1000), NOW)
    announcer.asked(other.name, receiver.nonce("press-07"))
    with pytest.raises(ExpiredError):
        receiver.announce("press-07", announcer.announcement(1000), NOW)


# --- attacks on results ----------------------------------------------------------------------


def test_result_replayed() -> None:
    board, hub = Board(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub)
    hear(receiver, announcer)
    messages = [seal(announcer) for _ in range(20)]
    open_all(receiver, reversed(messages))  # any order
    for message in messages:
        with pytest.raises(ReplayError):
            receiver.open(TOPIC, message, NOW)


def test_result_replayed_after_the_announcement_came_again() -> None:
    board, hub = Board(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub)
    hear(receiver, announcer)
    message = seal(announcer)
    receiver.open(TOPIC, message, NOW)
    hear(receiver, announcer)
    with pytest.raises(ReplayError):
        receiver.open(TOPIC, message, NOW)


def test_result_moved_to_another_topic() -> None:
    board, other, hub = Board(), Board("press-08"), Hub()
    receiver, announcer = hub.receiver(board, other), board.announcer(hub)
    hear(receiver, announcer)
    hear(receiver, other.announcer(hub))
    message = seal(announcer)
    with pytest.raises(DecryptionError):
        receiver.open("edged/press-07/c2", message, NOW)
    with pytest.raises(UnknownKeyError):
        receiver.open("edged/press-08/c1", message, NOW)
    with pytest.raises(UnknownSignerError):
        receiver.open("edged/press-09/c1", message, NOW)
    assert receiver.open(TOPIC, message, NOW).count == 1, "a refused copy does not use up the count"


def test_result_with_a_flipped_bit_at_every_byte() -> None:
    board, hub = Board(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub)
    hear(receiver, announcer)
    message = seal(announcer)
    for at in range(8 * len(message)):
        altered = bytearray(message)
        altered[at // 8] ^= 1 << at % 8
        with pytest.raises(EdgedError):
            receiver.open(TOPIC, bytes(altered), NOW)
    assert receiver.open(TOPIC, message, NOW).count == 1


@given(st.binary(max_size=300), st.sampled_from([TOPIC, "press-07", "", "/", "edged/press-07/", "edged//c1"]))
def test_result_of_random_bytes_on_odd_topics(data: bytes, topic: str) -> None:
    with pytest.raises(EdgedError):
        Hub().receiver(Board()).open(topic, data, NOW)


def test_result_of_ten_megabytes() -> None:
    board, hub = Board(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub)
    hear(receiver, announcer)
    for payload in (bytes(10_000_000), seal(announcer)[:40] + bytes(10_000_000)):
        with pytest.raises(EdgedError):
            receiver.open(TOPIC, payload, NOW)


def test_channels_that_nobody_uses_leave_nothing_behind() -> None:
    """Topics are the sender's to choose: a thousand made-up channels must not cost a hub its memory."""
    board, hub = Board(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub)
    hear(receiver, announcer)
    message = seal(announcer)
    for number in range(1000):
        with pytest.raises(DecryptionError):
            receiver.open(f"edged/press-07/x{number}", message, NOW)
    current = receiver._devices["press-07"].current
    assert current is not None
    assert not current.boxes


def test_garbage_sealed_by_another_hub_is_refused_as_a_format() -> None:
    """Every granted hub knows the channel key: what it seals is well sealed and still not believed to be well formed."""
    board, hub = Board(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub)
    hear(receiver, announcer)
    box = Box(announcer._current.epoch.key, cbor.encode(["edged.result.1", "press-07", "c1"]))
    for count, plaintext in enumerate([b"", b"\xff", b"\xa0", b"\x80", bytes(1000), cbor.encode({"model": []})], 1):
        with pytest.raises(FormatError):
            receiver.open(TOPIC, box.seal(count.to_bytes(8, "big") + b"salt", plaintext), NOW)


def test_garbage_as_announcement_is_refused_before_anything_is_scanned(monkeypatch: pytest.MonkeyPatch) -> None:
    """130 kB of it cost a hub 60 ms, and anybody may publish there."""
    board, hub = Board(), Hub()
    receiver = hub.receiver(board)
    good = board.announcer(hub).announcement(NOW)
    forged = good[:42] + b"\x59\x0f\xff" + b"\x99\x0f\xfc" + bytes(4092) + b"\x58\x40" + bytes(64)
    monkeypatch.setattr(cbor, "scan", lambda *_: pytest.fail("scanned"))
    with pytest.raises(FormatError):
        receiver.announce("press-07", (b"\x99\x0f\xff" + bytes(4095)) * 32, NOW)
    with pytest.raises(SignatureError):
        receiver.announce("press-07", forged * 32, NOW)


def test_sixty_four_channels_are_accepted_and_one_more_once_the_board_serves_others() -> None:
    board, hub = Board(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub)
    hear(receiver, announcer)
    for number in range(MOST_CHANNELS):
        receiver.open(f"edged/press-07/c{number}", seal(announcer, f"c{number}"), NOW)
    further = seal(announcer, "further")
    with pytest.raises(FormatError, match="more than 64 channels"):
        receiver.open("edged/press-07/further", further, NOW)
    served = ServedModel("c0", "gearbox", 3, 3, "classifier")
    receiver.open_inventory(
        "edged/press-07/inventory", announcer.seal_inventory(Inventory("1", 30.0, (served,)).encode()), NOW
    )
    assert receiver.open("edged/press-07/further", further, NOW).channel == "further", "it used up no count"
    current = receiver._devices["press-07"].current
    assert current is not None
    assert set(current.boxes) == {"c0", "further"}


@pytest.mark.parametrize("channel", ["C1", "health", "a b", "", "c" * 65])
def test_a_channel_that_is_not_a_name_or_reserved_is_refused(channel: str) -> None:
    board, hub = Board(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub)
    hear(receiver, announcer)
    with pytest.raises(FormatError, match="no channel"):
        receiver.open(f"edged/press-07/{channel}", seal(announcer, channel), NOW)


def test_the_same_redelivered_bytes_of_two_sensors_are_two_readings() -> None:
    """One model reads `factory/+/state`: the second of two sensors with equal bytes was refused as repeated."""
    board, hub = Board(), Hub()
    receiver, before = hub.receiver(board), board.announcer(hub, first=7)
    hear(receiver, before)

    def again(announcer: Announcer, source: str) -> bytes:
        return announcer.seal("c1", encoder(), ANSWER._replace(source=source), INPUT, redelivered=True)[2]

    assert receiver.open(TOPIC, again(before, "press-01"), NOW).result.source == "press-01"
    after = board.announcer(hub, first=8)
    hear(receiver, after)
    assert receiver.open(TOPIC, again(after, "press-02"), NOW).to_json()["source"] == "press-02"
    with pytest.raises(RepeatedError):
        receiver.open(TOPIC, again(after, "press-01"), NOW)


# --- signed results --------------------------------------------------------------------------


def test_signed_results_open() -> None:
    board, hub = Board(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub, sign_results=True)
    hear(receiver, announcer)
    assert receiver.open(TOPIC, seal(announcer), NOW).signed


def test_signed_results_forged_by_another_hub() -> None:
    board, hub = Board(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub, sign_results=True)
    hear(receiver, announcer)
    announcer._current.epoch._signer = hub.key
    with pytest.raises(UnknownSignerError):
        receiver.open(TOPIC, seal(announcer), NOW)
    announcer._current.epoch._signer = None
    with pytest.raises(FormatError):
        receiver.open(TOPIC, seal(announcer), NOW)


REPORT = Report(
    time=NOW, uptime=1.0, messages=3, results=2, rate=1.5, refused=1, repeated=0, dropped=0, lost=0, waiting=0,
    stored=0, set_aside=0, error="", models={"c1": ("gearbox", 1)},
)  # fmt: skip


def test_reports_forged_by_another_hub_shut_no_result_out() -> None:
    """With the channel key 198 of them were forged, and the results under those counts refused as replays."""
    board, hub = Board(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub, sign_results=True)
    hear(receiver, announcer)
    key, kid = announcer._current.epoch.key, announcer._current.epoch.key.kid
    box = Box(key, health_aad("press-07"))
    for count in range(1, 200):
        iv = count.to_bytes(8, "big") + b"salt"
        with pytest.raises(FormatError):
            receiver.open_report("edged/press-07/health", box.seal(iv, REPORT.encode()), NOW)
        forged = sign(REPORT.encode(), signed_report_aad("press-07", kid, iv), hub.key)
        with pytest.raises(UnknownSignerError):
            receiver.open_report("edged/press-07/health", box.seal(iv, forged), NOW)
    assert len(open_all(receiver, [seal(announcer) for _ in range(199)])) == 199


def test_signed_reports_open() -> None:
    board, hub = Board(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub, sign_results=True)
    hear(receiver, announcer)
    message = announcer.seal_health(REPORT.encode())
    assert receiver.open_report("edged/press-07/health", message, NOW).models == REPORT.models


def test_signed_result_sealed_again_by_another_hub_under_another_count() -> None:
    board, hub = Board(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub, sign_results=True)
    hear(receiver, announcer)
    epoch = announcer._current.epoch
    box = Box(epoch.key, cbor.encode(["edged.result.1", "press-07", "c1"]))
    iv, signed = box.open(seal(announcer), 4096)
    with pytest.raises(SignatureError):
        receiver.open(TOPIC, box.seal((9).to_bytes(8, "big") + iv[8:], signed), NOW)


def test_downgrade_of_signed_results() -> None:
    """Pinned: signing cannot be given up without anybody's noticing, whoever asks for it."""
    board, hub = Board(), Hub()
    receiver = hub.receiver(board)
    hear(receiver, board.announcer(hub, first=1, sign_results=True))
    with pytest.raises(NotAllowedError):
        hear(receiver, board.announcer(hub, first=2, sign_results=False))


# --- closed epochs and changed hubs ----------------------------------------------------------


def test_closed_epoch_opens_late_results_up_to_its_last() -> None:
    board, hub = Board(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub)
    hear(receiver, announcer)
    late = [seal(announcer, late=True) for _ in range(3)]
    old = announcer._current.epoch
    announcer.rotate()
    hear(receiver, announcer)
    assert [one.result.late for one in open_all(receiver, late)] == [True] * 3
    beyond = old.seal("c1", encoder().encode(ANSWER, old.count + 1, NOW, INPUT, late=True))
    with pytest.raises(ReplayError):
        receiver.open(TOPIC, beyond, NOW)
    assert receiver.open(TOPIC, seal(announcer), NOW).count == 1


def test_closed_epoch_opens_for_a_hub_that_came_later() -> None:
    """The hub was away while the board rotated: both epochs stand in the retained announcement."""
    board, hub = Board(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub)
    late = seal(announcer, late=True)
    announcer.rotate()
    hear(receiver, announcer)
    assert receiver.open(TOPIC, late, NOW).result.late


def test_closed_epoch_opens_what_was_sealed_before_the_outage() -> None:
    """It waited in the board's outbox as it was sealed: nobody knew then that it would."""
    board, hub = Board(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub)
    prompt = seal(announcer)
    announcer.rotate()
    hear(receiver, announcer)
    assert not receiver.open(TOPIC, prompt, NOW).result.late


def test_closed_epoch_replays_nothing() -> None:
    board, hub = Board(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub)
    hear(receiver, announcer)
    late = seal(announcer, late=True)
    receiver.open(TOPIC, late, NOW)
    announcer.rotate()
    hear(receiver, announcer)
    with pytest.raises(ReplayError):
        receiver.open(TOPIC, late, NOW)


def test_old_announcement_appended_to_a_newer_one_opens_nothing() -> None:
    """Each item is signed by itself, so a broker can put an old one behind the newest; `closed` stands in the newest."""
    board, hub = Board(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub)
    old = announcer.announcement(NOW)
    late = seal(announcer, late=True)
    announcer.delivered(announcer._current.epoch.key.kid)
    announcer.rotate()
    receiver.announce("press-07", announcer.announcement(NOW) + old, NOW)
    with pytest.raises(ReplayError):
        receiver.open(TOPIC, late, NOW)


def test_hub_removed_late_unsigned_results_of_its_epochs_are_not_trusted() -> None:
    board, hub, removed = Board(), Hub(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub, removed)
    hear(receiver, announcer)
    late = seal(announcer, late=True)
    announcer.set_hubs([hub.record])
    hear(receiver, announcer)
    with pytest.raises(UnknownKeyError):
        receiver.open(TOPIC, late, NOW)


def test_hub_removed_late_signed_results_of_its_epochs_are_trusted() -> None:
    board, hub, removed = Board(), Hub(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub, removed, sign_results=True)
    hear(receiver, announcer)
    late = seal(announcer, late=True)
    announcer.set_hubs([hub.record])
    hear(receiver, announcer)
    assert receiver.open(TOPIC, late, NOW).signed


def test_hub_removed_opens_nothing_more() -> None:
    board, hub, removed = Board(), Hub(), Hub()
    receiver, announcer = removed.receiver(board), board.announcer(hub, removed)
    hear(receiver, announcer)
    announcer.set_hubs([hub.record])
    with pytest.raises(NotARecipientError):
        hear(receiver, announcer)
    with pytest.raises(UnknownKeyError):
        receiver.open(TOPIC, seal(announcer), NOW)


def test_hub_added_passes_over_the_epochs_before_it() -> None:
    """An older epoch that was never granted to it is no reason to refuse the new one."""
    board, hub, added = Board(), Hub(), Hub()
    receiver, announcer = added.receiver(board), board.announcer(hub)
    before = seal(announcer, late=True)
    announcer.set_hubs([hub.record, added.record])
    payload = hear(receiver, announcer)
    assert len(split(payload)) == 2
    assert receiver.open(TOPIC, seal(announcer), NOW).count == 1
    with pytest.raises(UnknownKeyError):
        receiver.open(TOPIC, before, NOW)


def test_results_are_refused_once_the_announcement_has_lapsed() -> None:
    """A broker that holds newer announcements back must not keep an old epoch, and a removed hub's key, alive."""
    board, hub = Board(), Hub()
    announcer = board.announcer(hub)
    receiver = hub.receiver(board)
    hear(receiver, announcer)
    message = seal(announcer)
    with pytest.raises(ExpiredError):
        receiver.open(TOPIC, message, NOW + LIFETIME + 1)
    announcer.asked(hub.name, receiver.nonce("press-07"))
    receiver.announce("press-07", announcer.announcement(NOW), NOW + LIFETIME + 2)
    assert receiver.open(TOPIC, message, NOW + LIFETIME + 3).count == 1


# --- boards that died, and what they say of themselves ---------------------------------------


def test_readings_that_a_board_answers_again_after_it_died_are_accepted_once() -> None:
    """It had published, and died before it acknowledged its reading."""
    board, hub = Board(), Hub()
    receiver = hub.receiver(board)
    before = board.announcer(hub, first=7)
    hear(receiver, before)
    assert open_all(receiver, [seal(before)])
    after = board.announcer(hub, first=8)
    hear(receiver, after)
    again = seal(after, redelivered=True)
    with pytest.raises(RepeatedError, match="answered before"):
        receiver.open(TOPIC, again, NOW)
    with pytest.raises(ReplayError, match="accepted before"):
        receiver.open(TOPIC, again, NOW)


def test_an_outbox_that_is_sent_after_its_last_reading_was_answered_again() -> None:
    """Its board died between storing a result and acknowledging the reading: that one is refused, and no other."""
    board, hub = Board(), Hub()
    receiver, announcer = hub.receiver(board), board.announcer(hub, first=7)
    stored = [seal(announcer) for _ in range(3)]
    announcer.rotate()
    hear(receiver, announcer)
    assert open_all(receiver, [seal(announcer, redelivered=True), seal(announcer)])
    with pytest.raises(RepeatedError):
        receiver.open(TOPIC, stored[0], NOW)
    assert len(open_all(receiver, stored[1:])) == 2


def test_the_same_readings_measured_again_are_answered_again() -> None:
    """A sensor that stands still sends the same bytes, before an outage, in it, and after a restart."""
    board, hub = Board(), Hub()
    receiver = hub.receiver(board)
    before = board.announcer(hub, first=7)
    hear(receiver, before)
    assert len(open_all(receiver, [seal(before), seal(before, late=True), seal(before)])) == 3
    after = board.announcer(hub, first=8)
    hear(receiver, after)
    assert len(open_all(receiver, [seal(after), seal(after, late=True)])) == 2


def test_a_report_opens_once_on_its_boards_topic_and_under_its_epoch_alone() -> None:
    board, hub = Board(), Hub()
    receiver = hub.receiver(board)
    announcer = board.announcer(hub)
    hear(receiver, announcer)
    report = Report(
        time=NOW, uptime=1.0, messages=3, results=2, rate=1.5, refused=1, repeated=0, dropped=0, lost=0, waiting=0,
        stored=0, set_aside=0, error="", models={"c1": ("gearbox", 1)},
    )  # fmt: skip
    message = announcer.seal_health(report.encode())
    found = receiver.open_report("edged/press-07/health", message, NOW)
    assert (found.messages, found.models) == (3, {"c1": ("gearbox", 1)})
    with pytest.raises(ReplayError):
        receiver.open_report("edged/press-07/health", message, NOW)
    with pytest.raises(DecryptionError):
        receiver.open("edged/press-07/c1", announcer.seal_health(report.encode()), NOW)
    with pytest.raises(DecryptionError):
        receiver.open_report("edged/press-07/health", seal(announcer), NOW)


def test_a_reports_size_says_little() -> None:
    def size(error: str) -> int:
        return len(
            Report(
                time=NOW, uptime=1.0, messages=3, results=2, rate=1.5, refused=1, repeated=0, dropped=0, lost=0,
                waiting=0, stored=0, set_aside=0, error=error, models={"c1": ("gearbox", 1)},
            ).encode()
        )  # fmt: skip

    assert {size("x" * length) % 256 for length in range(300)} == {0}
    assert len({size("x" * length) for length in range(300)}) <= 2
