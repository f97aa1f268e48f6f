"""What a hub lives through: kills, brokers that come and go, boards that do, other hubs, and a state that fails it."""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edged.base.errors import ConfigError, StateDamagedError
from support.broker import PlainBroker, listening, spin
from support.faults import often
from support.hub_process import HubProcess, board_of
from support.parties import Board
from support.played import Played, Scene, Sent
from support.ports import quiet_port

pytestmark = pytest.mark.broker

RATE = 50.0
PROCESSES = 2
TOPIC = "edged-hub/press/c1"


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A hub that is not started yet, between two brokers."""
    tmp_path.chmod(0o700)
    with Scene(tmp_path, durable=True) as scene:
        yield scene


@pytest.fixture
def board(scene: Scene) -> Played:
    """A board that is there, and enrolled."""
    board = scene.board("press")
    board.announce()
    board.serve("c1")
    scene.settle()
    return board


class Stream:
    """Results at a steady rate."""

    def __init__(self, scene: Scene, board: Played) -> None:
        self.sent: list[Sent] = []
        self._scene = scene
        self._board = board

    def flow(self, count: int) -> None:
        """Send so many."""
        began = time.monotonic()
        for number in range(count):
            self._scene.until(lambda due=began + number / RATE: time.monotonic() >= due)  # type: ignore[misc]
            self.sent.append(self._board.send())

    def check(self, *, most_again: int) -> None:
        """Check that each has come, that the hub accepted each once, and that the newest stands.

        :param most_again: of how many the hub may not know that the broker at home had them.
        """
        scene = self._scene
        scene.wait_arrived(*self.sent, timeout=60)
        arrived = scene.arrived(TOPIC)
        assert set(arrived) == {one.key for one in self.sent}
        assert arrived.total() - len(arrived) <= most_again
        assert accepted(scene.hub) == len(self.sent)
        scene.until(lambda: newest(scene) == self.sent[-1].key)


def newest(scene: Scene) -> tuple[str, int]:
    """Return key id and count of the result that stands at home."""
    result = json.loads(scene.standing(TOPIC).get(TOPIC, b'{"kid": "", "count": 0}'))
    return result["kid"], result["count"]


def accepted(hub: HubProcess) -> int:
    """Return how many results a hub has ever queued for the broker at home."""
    with closing(sqlite3.connect(hub.state / "hub.db")) as db:
        row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'queue'").fetchone()
    return row[0] if row else 0


def topics_of(scene: Scene, name: str) -> list[str]:
    """Return the topics at home on which anything of a board stands."""
    return [topic for topic in scene.standing() if name in topic]


# --- kills and restarts ----------------------------------------------------------------------


@pytest.mark.timeout(600)
def test_results_come_once_though_the_hub_is_killed(scene: Scene, board: Played) -> None:
    kills = often(3, 20)
    stream = Stream(scene, board)
    scene.hub.start()
    for _ in range(kills):
        stream.flow(40)
        scene.hub.kill()
        stream.flow(10)
        scene.hub.start()
    stream.flow(10)

    stream.check(most_again=kills * 40)


@pytest.mark.timeout(600)
def test_results_come_once_though_both_brokers_are_restarted(scene: Scene, board: Played) -> None:
    stream = Stream(scene, board)
    scene.hub.start()
    for _ in range(often(1, 5)):
        for broker in (scene.local, scene.upstream):
            stream.flow(20)
            broker.stop()
            stream.flow(20)
            broker.start()
            scene.until(lambda: scene.tap.is_up and scene.home.is_up)
    stream.flow(10)

    stream.check(most_again=len(stream.sent))


def test_results_wait_in_order_while_the_broker_at_home_is_away_and_the_oldest_go_first(tmp_path: Path) -> None:
    with Scene(tmp_path, durable=True, more_local="queue = 50") as scene:
        board = scene.board("press")
        board.announce()
        board.serve("c1")
        scene.hub.start()
        scene.wait_arrived(board.send())
        # the hub, too, knows that it has arrived, and says so after it was opened
        scene.wait(lambda status: (board_of(status, "press").get("opened"), status["local"]["queued"]) == (1, 0))
        scene.local.stop()
        scene.until(lambda: not scene.home.is_up)
        sent = [board.send() for _ in range(120)]
        scene.wait(lambda status: board_of(status, "press").get("opened") == 121)
        scene.wait(lambda status: (status["counts"]["dropped"], status["local"]["queued"]) == (70, 50))
        scene.home.deliveries.clear()

        scene.local.start()

        scene.wait_arrived(*sent[-50:])
        assert newest(scene) == sent[-1].key
        told = iter(json.loads(one.payload)["count"] for one in scene.home.deliveries if one.topic == TOPIC)
        assert all(one.key[1] in told for one in sent[-50:-1])  # in this order; the newest comes ahead of all, and last


# --- boards come and go ----------------------------------------------------------------------


def test_board_is_believed_once_its_record_is_there_and_leaves_nothing_once_it_is_gone(scene: Scene) -> None:
    scene.hub.start()
    board = scene.board("press", enrolled=False)
    board.announce()
    board.serve("c1")
    before = board.send()
    scene.wait(lambda status: "press" in status["strangers"])

    scene.enrol(board.board)
    sent = scene.send_heard(board)
    scene.wait_arrived(sent)
    assert before.key not in scene.arrived()
    scene.until(lambda: len(topics_of(scene, "press")) >= 4)  # configuration, availability, result, update

    (scene.hub.boards / "press.enrol").unlink()
    scene.wait(lambda status: not board_of(status, "press"))
    scene.until(lambda: not topics_of(scene, "press"))
    opened = accepted(scene.hub)
    board.send()
    board.announce()
    scene.wait(lambda status: "press" in status["strangers"])
    assert accepted(scene.hub) == opened
    assert not topics_of(scene, "press")


def test_board_that_was_removed_while_the_hub_was_down_leaves_nothing(scene: Scene, board: Played) -> None:
    scene.hub.start()
    scene.wait_arrived(board.send())
    scene.until(lambda: len(topics_of(scene, "press")) >= 4)
    scene.hub.kill()

    (scene.hub.boards / "press.enrol").unlink()
    scene.hub.start()

    scene.until(lambda: not topics_of(scene, "press"))


def test_board_that_was_removed_while_the_broker_at_home_was_down_leaves_nothing(scene: Scene, board: Played) -> None:
    """Neither what stood there, nor results that waited for that broker; and the hub was killed before it came back."""
    scene.hub.start()
    scene.wait_arrived(board.send())
    scene.until(lambda: len(topics_of(scene, "press")) >= 4)
    scene.local.stop()
    waiting = board.send()
    scene.wait(lambda status: status["local"]["queued"] == 1)

    (scene.hub.boards / "press.enrol").unlink()
    scene.wait(lambda status: not board_of(status, "press"))
    scene.hub.kill()
    scene.hub.start()
    scene.local.start()

    scene.wait_arrived(waiting)
    scene.until(lambda: not topics_of(scene, "press"))


def test_board_that_comes_back_is_not_shown_with_what_it_said_before(scene: Scene, board: Played) -> None:
    scene.hub.start()
    scene.wait_arrived(board.send())
    scene.hub.kill()
    record = scene.hub.boards / "press.enrol"
    encoded = record.read_bytes()
    record.unlink()
    scene.hub.start()
    scene.until(lambda: not topics_of(scene, "press"))

    record.write_bytes(encoded)

    status = scene.wait(lambda status: board_of(status, "press").get("models"))
    assert board_of(status, "press")["models"][0]["results"][0]["last"] is None
    assert TOPIC not in scene.standing()


def test_record_with_other_keys_is_refused_and_named(scene: Scene, board: Played) -> None:
    scene.hub.start()
    scene.wait_arrived(board.send())
    other = Board("press")

    scene.hub.enrol(other.record, other.record.encode(other.sign))

    status = scene.wait(lambda status: "press.enrol" in status["problems"])
    assert "its old key did not sign the change" in status["problems"]["press.enrol"]
    assert board_of(status, "press")["fingerprint"] == board.board.record.fingerprint
    scene.wait_arrived(board.send())


def test_record_that_is_damaged_is_named_and_changes_nothing(scene: Scene, board: Played) -> None:
    scene.hub.start()
    scene.wait_arrived(board.send())

    (scene.hub.boards / "press.enrol").write_bytes(b"\xa0")
    (scene.hub.boards / "other.enrol").write_bytes(b"")

    scene.wait(lambda status: {"press.enrol", "other.enrol"} <= set(status["problems"]))
    scene.wait_arrived(board.send())


# --- plaintext stays at home -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["same", "localhost", "listener"])
def test_plaintext_is_refused_to_the_broker_in_between(tmp_path: Path, name: str) -> None:
    port = quiet_port()
    further = ("allow_anonymous true", f"listener {port} 127.0.0.1", "allow_anonymous true")
    with PlainBroker(tmp_path, listener=further) as broker, listening(broker.url) as spy:
        urls = {
            "same": broker.url,
            "localhost": f"mqtt://localhost:{broker.port}",
            "listener": f"mqtt://127.0.0.1:{port}",
        }
        hub = HubProcess(tmp_path / "hub", broker.url, local=urls[name])
        board = Board("press")
        hub.enrol(board.record, board.record.encode(board.sign))
        played = Played(board, spy, [hub.record])
        played.announce()
        try:
            process = hub.begin()

            def leaves() -> bool:
                played.send()
                return process.process.poll() is not None

            spin(spy, until=leaves)
            assert process.wait_left() == ConfigError.exit_code
        finally:
            hub.close()

        assert "local.plaintext_on_upstream" in hub.log
        assert not [one for one in spy.deliveries if b'"kid"' in one.payload]


def test_plaintext_goes_to_the_broker_in_between_where_it_is_allowed_in_words(tmp_path: Path) -> None:
    with PlainBroker(tmp_path) as broker, listening(broker.url) as spy:
        hub = HubProcess(tmp_path / "hub", broker.url, local=broker.url, more_local="plaintext_on_upstream = true")
        board = Board("press")
        hub.enrol(board.record, board.record.encode(board.sign))
        played = Played(board, spy, [hub.record])
        played.announce()
        try:
            hub.start()
            played.send()
            spin(spy, until=lambda: any(one.topic == TOPIC for one in spy.deliveries))
        finally:
            hub.close()
        assert "WARNING local.plaintext_on_upstream" in hub.log


# --- several processes, several hubs ---------------------------------------------------------


def counts_of(hub: HubProcess) -> list[dict[str, Any]]:
    """Return what each process of a hub has counted by its own word, a few seconds old."""
    paths = [hub.state / "status.json", hub.state / "status-b.json"]
    return [json.loads(path.read_text())["counts"] for path in paths if path.exists()]


def opened_by(hub: HubProcess) -> list[int]:
    """Return how many results each process has opened."""
    return [counts["opened"] for counts in counts_of(hub)]


def refused_by(hub: HubProcess) -> int:
    """Return how many replays they have refused in all."""
    return sum(counts["refused"].get("ReplayError", 0) for counts in counts_of(hub))


def test_two_processes_share_results_and_accept_each_once(tmp_path: Path) -> None:
    with Scene(tmp_path, durable=True, hub='share = "home"') as scene:
        board = scene.board("press")
        board.announce()
        board.serve("c1")
        scene.hub.start()
        scene.hub.start("b")
        scene.until(lambda: scene.hub.log.count("press announces epoch 1") == 2)
        scene.until(lambda: serving(scene, board))
        sent = [board.send() for _ in range(200)]
        scene.wait_arrived(*sent)
        scene.until(lambda: sum(opened_by(scene.hub)) == accepted(scene.hub))
        before = accepted(scene.hub)
        assert min(opened_by(scene.hub)) > 50

        for one in sent:
            scene.tap.publish(one.topic, one.payload, qos=1)
        scene.settle()
        scene.until(lambda: refused_by(scene.hub) == 200)
        scene.hub.kill("b")
        after = [board.send() for _ in range(40)]
        scene.until(lambda: len(set(scene.arrived(TOPIC)) & {one.key for one in after}) >= 20)
        scene.hub.start("b")  # its session has kept the rest
        scene.wait_arrived(*after)

        assert accepted(scene.hub) == before + 40
        assert set(scene.arrived(TOPIC)) >= {one.key for one in (*sent, *after)}


def serving(scene: Scene, board: Played) -> bool:
    """Send a result, and tell whether each process has had one: from then on both listen to the channel."""
    board.send()
    opened = opened_by(scene.hub)
    return len(opened) == PROCESSES and min(opened) > 0


def test_two_hubs_open_each_result_and_one_that_is_removed_reads_nothing_more(scene: Scene, board: Played) -> None:
    path = scene.hub.path.with_name("second")
    second = HubProcess(path, scene.upstream.url, local=scene.local.url, more_local='prefix = "edged-hub/second"')
    try:
        second.enrol(board.board.record, board.board.record.encode(board.board.sign))
        board.announcer.set_hubs([scene.hub.record, second.record])
        board.announce()
        board.serve("c1")
        scene.settle()
        scene.hub.start()
        second.start()
        sent = [board.send() for _ in range(5)]
        scene.wait_arrived(*sent)
        scene.until(lambda: set(scene.arrived("edged-hub/second/press/")) == {one.key for one in sent})

        board.announcer.set_hubs([scene.hub.record])
        board.announce()
        later = [board.send() for _ in range(5)]

        scene.wait_arrived(*later)
        second.wait(lambda status: board_of(status, "press").get("refused") == {"NotARecipientError": 1})
        second.wait(lambda status: status["counts"]["held"] == 5)
        assert set(scene.arrived("edged-hub/second/press/")) == {one.key for one in sent}
    finally:
        second.close()


# --- the hub's own state ---------------------------------------------------------------------


def test_nothing_is_accepted_while_the_state_is_locked_and_all_of_it_afterwards(scene: Scene, board: Played) -> None:
    scene.hub.start()
    scene.wait_arrived(board.send())
    with closing(sqlite3.connect(scene.hub.state / "hub.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        sent = [board.send() for _ in range(3)]
        scene.until(lambda: "nothing is accepted until it works again" in scene.hub.log)
        scene.wait(lambda status: "locked" in status["problems"].get("state", ""))
        assert not {one.key for one in sent} & set(scene.arrived())
        other.execute("ROLLBACK")

    scene.wait_arrived(*sent)
    assert accepted(scene.hub) == 4
    scene.wait(lambda status: "state" not in status["problems"])


def test_nothing_is_accepted_while_the_disk_is_full_and_all_of_it_afterwards(scene: Scene, board: Played) -> None:
    """The file size limit of the process stands for the disk: what is beyond it cannot be written."""
    scene.hub.start()
    scene.wait_arrived(board.send())
    pid = scene.hub.processes[""].pid
    log = scene.hub.state / "hub.db-wal"
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (log.stat().st_size, resource.RLIM_INFINITY))
    new = scene.board("late-comer")
    new.announce()
    new.serve("c1")
    board.announcer.rotate()
    board.announce()
    sent = [board.send(), new.send()]
    scene.until(lambda: "nothing is accepted until it works again" in scene.hub.log)
    scene.wait(lambda status: "state" in status["problems"])
    assert not {one.key for one in sent} & set(scene.arrived())

    resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    scene.wait_arrived(*sent)
    assert accepted(scene.hub) == 3
    with closing(sqlite3.connect(scene.hub.state / "hub.db")) as db:
        believed = dict(db.execute("SELECT device, epoch FROM believed"))
    assert believed == {"press": 2, "late-comer": 1}


def test_damaged_state_is_named_and_the_hub_does_not_begin_without_it(scene: Scene, board: Played) -> None:
    """A new one would accept everything once more: that is for its owner to decide."""
    scene.hub.start()
    scene.wait_arrived(board.send())
    scene.hub.stop()
    with (scene.hub.state / "hub.db").open("r+b") as file:
        file.write(os.urandom(4096))

    process = scene.hub.begin()

    assert process.wait_left() == StateDamagedError.exit_code
    assert "hub.db" in process.said
