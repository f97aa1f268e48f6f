"""What whoever runs the broker in between, or publishes there, can do to a hub: it is refused, counted, and named.

After each attack a good result of a good board still comes through.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from edged.formats.channel.announce import LIFETIME, LIMITS, MOST_EPOCHS
from edged.formats.channel.result import Plain
from edged.formats.cose import cbor
from edged.formats.cose.encrypt0 import Box, parse
from edged.formats.cose.keys import ContentKey
from support.books import check_books, check_numbers
from support.faults import often
from support.hub_process import board_of
from support.parties import ANSWER, Board, Hub, encoder
from support.played import Played, Scene, Sent
from support.promises import HUB
from support.scrape import scrape

pytestmark = pytest.mark.broker

DAY = 86_400
METRICS = "metrics.sock"
NAMES = [f"board-{number}" for number in range(30)]
SECONDS = 15.0
"""Within which a good result comes through after each attack."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Scene, Played]]:
    """A hub, a good board that it shows, and boards for tests to play."""
    path = tmp_path_factory.mktemp("stage")
    path.chmod(0o700)
    with Scene(path, more_local=f'[metrics]\nlisten = "{path / METRICS}"') as scene:
        for one in NAMES:
            scene.enrol(Board(one))
            scene.enrol(Board(f"{one}-other"))
        good = scene.board("good")
        scene.hub.start()
        good.announce()
        good.serve("c1")
        scene.wait_arrived(good.send())
        yield scene, good


@pytest.fixture
def scene(stage: tuple[Scene, Played]) -> Iterator[Scene]:
    """The stage; after the test a good result comes through, and the hub's books balance."""
    scene, good = stage
    scene.home.deliveries.clear()
    scene.tap.deliveries.clear()
    yield scene
    sent = good.send()
    scene.wait_arrived(sent, timeout=SECONDS)
    assert scene.refused("good") == {}
    check_books(scene.hub.status())
    check_numbers(scrape(scene.hub.path.parent / METRICS))


@pytest.fixture
def name(stage: tuple[Scene, Played]) -> str:
    """The name of an enrolled board for this test alone."""
    used = stage[0].played
    return next(one for one in NAMES if one not in used)


def believed(scene: Scene, board: Played, epoch: int | None = None) -> None:
    """Wait until the hub, as it runs now, believes an epoch of a board."""
    wanted = f" {board.name} announces epoch {board.announcer.epoch if epoch is None else epoch}\n"
    scene.until(lambda: wanted in scene.hub.said)


def replay(scene: Scene, *sent: Sent) -> None:
    """Publish messages once more."""
    for one in sent:
        scene.tap.publish(one.topic, one.payload, qos=1)


def restart(scene: Scene) -> None:
    scene.hub.kill()
    scene.hub.start()


# --- announcements ---------------------------------------------------------------------------


@HUB
def test_announcement_forged_with_another_key(scene: Scene, name: str) -> None:
    board = scene.board(name)
    board.announce()
    believed(scene, board)
    forger = Played(Board(name), scene.tap, [scene.hub.record], first=99)

    forger.announce()
    scene.expect(name, "UnknownSignerError")
    held = forger.send()  # its key is never believed: it waits, and never arrives

    scene.wait(lambda status: status["counts"]["held"] >= 1)
    scene.wait_arrived(board.send())
    assert held.key not in scene.arrived()
    assert scene.hub.board(name)["epoch"] == 1


def test_announcement_with_a_flipped_bit(scene: Scene, name: str) -> None:
    board = scene.board(name)
    payload = bytearray(board.announcer.announcement(time.time()))
    payload[-1] ^= 1  # of its signature

    scene.tap.publish(board.topic("announce"), bytes(payload), qos=1, retain=True)

    scene.expect(name, "SignatureError")
    board.announce()
    scene.wait_arrived(board.send())


@HUB
def test_announcement_of_an_older_epoch_replayed_also_after_a_restart(scene: Scene, name: str) -> None:
    board = scene.board(name)
    old = board.announce()
    believed(scene, board)
    board.announcer.rotate()
    board.announce()
    believed(scene, board, 2)

    scene.tap.publish(board.topic("announce"), old, qos=1, retain=True)
    scene.expect(name, "ReplayError")
    restart(scene)  # what stands retained now is the old one

    scene.expect(name, "ReplayError")
    assert scene.hub.board(name)["epoch"] is None
    board.announce()
    scene.wait_arrived(board.send())


def test_announcement_that_was_superseded_replayed_after_a_restart(scene: Scene, name: str) -> None:
    """The same epoch, an older serial: it may name closed epochs that are done with."""
    board = scene.board(name)
    old = board.announce()
    believed(scene, board)
    board.announce()
    scene.wait_arrived(board.send())

    scene.tap.publish(board.topic("announce"), old, qos=1, retain=True)
    scene.expect(name, "ReplayError")
    restart(scene)

    scene.expect(name, "ReplayError")


def test_announcement_withheld_until_it_has_lapsed_and_the_board_is_asked(scene: Scene, name: str) -> None:
    board = scene.board(name)
    board.announce(time.time() - LIFETIME + 4)
    believed(scene, board)
    good = board.send()
    scene.wait_arrived(good)
    time.sleep(4.1)  # until it has lapsed, by the clocks of both

    board.send()
    scene.expect(name, "ExpiredError")
    scene.until(lambda: any(one.topic == board.topic("nonce") for one in scene.tap.deliveries))
    hub, nonce = cbor.decode(next(one.payload for one in scene.tap.deliveries if one.topic == board.topic("nonce")))

    board.announcer.asked(hub, nonce)
    board.announce(time.time() - 2 * LIFETIME)  # its clock is wrong, and the answer is fresh
    scene.wait_arrived(board.send())


def test_clocks_that_differ_by_a_day(scene: Scene, name: str) -> None:
    board = scene.board(name)
    now = time.time()

    board.announce(now - DAY)
    believed(scene, board)
    scene.wait_arrived(board.send())
    board.announcer.rotate()
    board.announce(now + DAY - 60)
    believed(scene, board, 2)
    scene.wait_arrived(board.send())
    assert scene.refused(name) == {}
    board.announcer.rotate()
    board.announce(now + DAY + 3600)

    scene.expect(name, "NotYetValidError")
    assert scene.hub.board(name)["epoch"] == 2


@HUB
def test_former_hub_forges_under_an_old_epoch(scene: Scene, name: str) -> None:
    """It knows the key of the epoch that it was granted: once it is removed, nothing opens under that."""
    former = Hub()
    board = scene.board(name)
    board.announcer.set_hubs([scene.hub.record, former.record])
    old = board.announcer._current.epoch
    board.announce()
    believed(scene, board)
    waiting = board.seal(late=True)
    board.announcer.set_hubs([scene.hub.record])
    board.announce()
    believed(scene, board)
    forged = old.seal("c1", encoder().encode(ANSWER, old.count + 1, time.time(), Plain(bytes(32)), late=True))

    scene.tap.publish(board.topic("c1"), forged, qos=1)
    replay(scene, waiting)  # even what the board itself sealed then: nobody can tell it from a forgery

    scene.wait(lambda status: status["counts"]["held"] >= 2)
    scene.wait_arrived(board.send())
    assert len(scene.arrived(f"edged-hub/{name}/")) == 1
    restart(scene)  # nothing was held in RAM alone: the broker still has what was not acknowledged
    scene.wait_arrived(board.send())
    assert len(scene.arrived(f"edged-hub/{name}/")) == 2


@HUB
def test_channel_key_of_one_board_announced_by_another(scene: Scene, name: str) -> None:
    board, thief = scene.board(name), scene.board(f"{name}-other")
    board.announce()
    believed(scene, board)
    thief.announcer._current.epoch.key = board.announcer._current.epoch.key
    thief.announcer._current.sealed_key = board.announcer._current.sealed_key

    thief.announce()

    scene.expect(thief.name, "DecryptionError")
    assert scene.hub.board(thief.name)["epoch"] is None
    scene.wait_arrived(board.send())


def test_announcement_of_one_board_copied_to_another(scene: Scene, name: str) -> None:
    board, other = scene.board(name), scene.board(f"{name}-other")
    payload = board.announce()

    scene.tap.publish(other.topic("announce"), payload, qos=1, retain=True)

    scene.expect(other.name, "UnknownSignerError")
    scene.wait_arrived(board.send())


@HUB
def test_board_that_is_not_enrolled_is_named(scene: Scene) -> None:
    name = "stranger"
    stranger = scene.board(name, enrolled=False)

    stranger.announce()
    stranger.serve("c1")
    unwanted = stranger.send()

    scene.wait(lambda status: name in status["strangers"])
    told = scene.hub.wait(lambda _: name in scene.hub.command("status")["strangers"])
    assert told["counts"]["refused"]["UnknownSignerError"] >= 1
    assert board_of(told, name) == {}
    assert unwanted.key not in scene.arrived()
    assert not [topic for topic in scene.standing() if name in topic]


def test_two_boards_with_one_identity(scene: Scene, name: str) -> None:
    board = scene.board(name, first=7)
    board.announce()
    believed(scene, board)
    copy = Played(board.board, scene.tap, [scene.hub.record], first=7)

    copy.announce()

    scene.expect(name, "DuplicateDeviceError")
    scene.wait_arrived(board.send())


@HUB
def test_signed_results_cannot_be_given_up_also_after_a_restart(scene: Scene, name: str) -> None:
    board = scene.board(name, sign_results=True)
    board.announce()
    believed(scene, board)
    scene.wait_arrived(board.send())
    downgraded = Played(board.board, scene.tap, [scene.hub.record], first=2)

    downgraded.announce()
    scene.expect(name, "NotAllowedError")
    restart(scene)

    scene.expect(name, "NotAllowedError")


# --- results ---------------------------------------------------------------------------------


@HUB
def test_result_replayed_also_after_a_restart(scene: Scene, name: str) -> None:
    board = scene.board(name)
    board.announce()
    believed(scene, board)
    sent = [board.send() for _ in range(20)]
    scene.wait_arrived(*sent)

    replay(scene, *sent)
    scene.expect(name, "ReplayError", 20)
    restart(scene)
    believed(scene, board)
    replay(scene, *sent)

    scene.expect(name, "ReplayError", 20)
    assert scene.hub.board(name)["opened"] == 0
    assert set(scene.arrived(f"edged-hub/{name}/").values()) == {1}


def test_late_result_replayed_after_its_epoch_was_hidden(scene: Scene, name: str) -> None:
    """The items of an announcement are signed one by one: a broker can leave an old epoch out, and put it back."""
    board = scene.board(name)
    board.announce()
    believed(scene, board)
    late = [board.send(late=True) for _ in range(3)]
    scene.wait_arrived(*late)
    board.announcer.rotate()
    whole = board.announcer.announcement(time.time())
    newest, old = cbor.split_sequence(whole, LIMITS, MOST_EPOCHS)

    scene.tap.publish(board.topic("announce"), newest, qos=1, retain=True)
    believed(scene, board, 2)
    restart(scene)
    believed(scene, board, 2)
    scene.tap.publish(board.topic("announce"), newest + old, qos=1, retain=True)
    replay(scene, *late)

    scene.expect(name, "ReplayError", 3)
    assert scene.hub.board(name)["opened"] == 0


def test_late_results_of_three_epochs_drained_at_once(scene: Scene, name: str) -> None:
    board = scene.board(name)
    waiting = []
    for _ in range(3):
        waiting += [board.seal(late=True) for _ in range(40)]
        board.announcer.rotate()
    board.announce()
    believed(scene, board, 4)

    replay(scene, *waiting)

    scene.wait_arrived(*waiting)
    live = board.send()
    scene.wait_arrived(live)
    assert scene.hub.wait(lambda status: board_of(status, name).get("opened") == 121)
    told = [json.loads(one.payload) for one in scene.home.deliveries if one.topic == f"edged-hub/{name}/c1/late"]
    assert [(one["kid"], one["count"]) for one in told] == [one.key for one in waiting]
    assert not any(one.retain for one in scene.home.deliveries)
    replay(scene, *waiting)
    scene.expect(name, "ReplayError", 120)


def test_readings_answered_again_by_a_board_that_had_died_are_no_attack(scene: Scene, name: str) -> None:
    board, of = scene.board(name), Plain(os.urandom(32))
    board.announce()
    believed(scene, board)
    _, _, before = board.announcer.seal("c1", encoder(), ANSWER, of)
    scene.tap.publish(board.topic("c1"), before, qos=1)
    scene.wait(lambda status: board_of(status, name).get("opened") == 1)
    again = Played(board.board, scene.tap, [scene.hub.record], first=2)
    again.announce()
    believed(scene, again)

    scene.tap.publish(board.topic("c1"), again.announcer.seal("c1", encoder(), ANSWER, of, redelivered=True)[2], qos=1)

    status = scene.wait(lambda status: board_of(status, name).get("repeated") == 1)
    assert (board_of(status, name)["opened"], scene.refused(name, status)) == (1, {})


@HUB
def test_result_moved_to_another_channel_and_another_board(scene: Scene, name: str) -> None:
    board, other = scene.board(name), scene.board(f"{name}-other")
    for one in (board, other):
        one.announce()
        believed(scene, one)
    sent = board.seal()

    scene.tap.publish(board.topic("c2"), sent.payload, qos=1)
    scene.expect(name, "DecryptionError")
    scene.tap.publish(other.topic("c1"), sent.payload, qos=1)
    scene.wait_arrived(other.send())  # and so the hub has seen the one before: it waits for a key that never comes

    assert sent.key not in scene.arrived()
    replay(scene, sent)
    scene.wait_arrived(sent)


@HUB
def test_result_with_a_flipped_bit(scene: Scene, name: str) -> None:
    board = scene.board(name)
    board.announce()
    believed(scene, board)
    sent = board.seal()
    at = len(sent.payload) - len(parse(sent.payload, 4096).ciphertext)

    for bit in range(8):
        altered = bytearray(sent.payload)
        altered[at + 11 * bit] ^= 1 << bit
        scene.tap.publish(sent.topic, bytes(altered), qos=1)

    scene.expect(name, "DecryptionError", 8)
    replay(scene, sent)
    scene.wait_arrived(sent)


def test_garbage_well_sealed_by_another_hub(scene: Scene, name: str) -> None:
    """Every granted hub knows the channel key: it can forge, and what it forges must not stop another."""
    board = scene.board(name)
    board.announce()
    believed(scene, board)
    key: ContentKey = board.announcer._current.epoch.key
    box = Box(key, cbor.encode(["edged.result.1", name, "c1"]))

    contents = [b"", b"\xff", b"\xa0", bytes(1000), cbor.encode({"model": []})]
    for count, plaintext in enumerate(contents, 1):
        scene.tap.publish(board.topic("c1"), box.seal(count.to_bytes(8, "big") + b"salt", plaintext), qos=1)

    scene.expect(name, "FormatError", len(contents))


def test_retained_result(scene: Scene, name: str) -> None:
    """It would come again at each start of a hub."""
    board = scene.board(name)
    board.announce()
    believed(scene, board)
    sent = board.seal()
    scene.tap.publish(sent.topic, sent.payload, qos=1, retain=True)
    scene.wait_arrived(sent)  # live, it is a result as any other

    restart(scene)

    scene.expect(name, "FormatError")
    scene.tap.publish(sent.topic, b"", qos=1, retain=True)
    scene.settle()


# --- floods ----------------------------------------------------------------------------------


@pytest.mark.timeout(900)
def test_a_flood_of_results_of_an_unknown_epoch_holds_up_nobody(scene: Scene, name: str) -> None:
    """They wait for an announcement, of which nobody knows that it will never come."""
    board, ghost = scene.board(name), Played(Board(name), scene.tap, [scene.hub.record])
    board.announce()
    believed(scene, board)
    before = scene.hub.rss_anon

    for _ in range(often(3000, 50_000)):
        ghost.send()
        if scene.tap.pending > 2000:
            scene.until(lambda: scene.tap.pending < 500)
    scene.wait_arrived(board.send(), timeout=60)

    status = scene.wait(lambda status: scene.refused(name, status)["UnknownKeyError"] >= 2000)
    assert status["counts"]["held"] <= 500
    report("memory that results of an unknown epoch took", scene.hub.rss_anon - before)
    assert scene.hub.rss_anon - before < 30e6


def test_large_messages_of_an_unknown_epoch_take_little_memory(scene: Scene, name: str) -> None:
    board = scene.board(name)
    before = scene.hub.rss_anon
    key = ContentKey.generate(board.announcer._current.epoch.key.aead)
    large = Box(key, b"x").seal(os.urandom(12), bytes(255 * 1024))

    for _ in range(300):
        scene.tap.publish(board.topic("c1"), large, qos=1)
        scene.until(lambda: scene.tap.pending < 20)
    scene.wait(lambda status: scene.refused(name, status)["UnknownKeyError"] > 200)

    report("memory that large ones took", scene.hub.rss_anon - before)
    assert scene.hub.rss_anon - before < 30e6


@pytest.mark.timeout(900)
def test_retained_garbage_under_the_base_topic(scene: Scene, name: str) -> None:
    """It stands there when a hub starts, and all of it comes at once."""
    board = scene.board(name)
    board.announce()
    believed(scene, board)
    scene.wait_arrived(board.send())
    count = often(5000, 100_000)
    topics = [
        *(board.topic(f"x{number}") for number in range(count // 2)),
        *(f"edged/x{number}/announce" for number in range(count // 2)),
    ]
    for number, topic in enumerate(topics):
        scene.tap.publish(topic, os.urandom(1 + number % 200), qos=1, retain=True)
        if scene.tap.pending > 2000:
            scene.until(lambda: scene.tap.pending < 500)
    scene.settle()
    strangers = scene.wait(lambda status: scene.refused(name, status)["FormatError"] >= count // 2, timeout=300)
    assert len(strangers["strangers"]) <= 100
    restart(scene)
    before = scene.hub.rss_anon

    status = scene.wait(
        lambda status: (
            scene.refused(name, status)["FormatError"] >= count // 2
            and status["counts"]["refused"].get("UnknownSignerError", 0) >= count // 2
        ),
        timeout=300,
    )
    scene.wait_arrived(board.send())

    assert scene.refused(name, status) == {"FormatError": count // 2}
    assert len(status["strangers"]) <= 100
    assert len(status["refused_lately"]) <= 50
    report("memory that retained garbage took", scene.hub.rss_anon - before)
    assert scene.hub.rss_anon - before < 30e6
    told = scene.hub.command("devices")
    assert name in [one["device"] for one in told]
    for topic in topics:
        scene.tap.publish(topic, b"", qos=1, retain=True)
        if scene.tap.pending > 2000:
            scene.until(lambda: scene.tap.pending < 500)
    scene.settle()


def report(what: str, size: float) -> None:
    """Print a figure; `pytest -s` shows it."""
    print(f"\n{what}: {size / 1e6:.1f} MB", end="")


def test_slow_connections_of_one_peer_do_not_stop_the_page(scene: Scene) -> None:
    """A hundred that say nothing, from one address; `status` asks the page from another."""
    with ExitStack() as open_:
        for _ in range(100):
            slow = socket.create_connection(("127.0.0.1", scene.hub.port), 10, source_address=("127.0.0.2", 0))
            open_.enter_context(slow)
        assert scene.hub.status()["hub"] == scene.hub.path.name
