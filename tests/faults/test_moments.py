"""A daemon that is killed at the one moment that matters: no reading is lost, and none is answered twice.

The link between the board and the broker of its results fails on order: the moment is chosen, and not hit by chance.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from edged.base.errors import RepeatedError, ReplayError
from edged.formats.cose import cbor
from support.broker import spin
from support.faults import stored
from support.promises import NOTHING_LOST
from support.stage import Setting, Stage
from support.waiting import PATIENCE, wait_until

pytestmark = [pytest.mark.broker, NOTHING_LOST]


@pytest.fixture
def stage(setting: Setting) -> Iterator[Stage]:
    """All of it, running; one reading is answered."""
    with setting.stage() as stage:
        stage.ask()
        yield stage


def test_killed_before_the_broker_has_the_result(stage: Stage) -> None:
    """The reading is acknowledged no sooner than its result: it is handed out again."""
    stage.far.hold(down=False)
    stage.send()
    wait_until(lambda: len(stage.observer.results) == 2)
    stage.daemon.reload()  # its loop turns meanwhile: what it has to say is on its way
    stage.board.kill()

    stage.far.cut()
    stage.far.restore()
    stage.board.start()

    stage.end()
    # a result that waited for long was stored as well: the hub takes one of the two
    assert {type(error) for error in stage.hub.refused} <= {RepeatedError}


def test_killed_before_it_hears_that_the_broker_has_the_result(stage: Stage) -> None:
    """The reading is answered again, and the hub takes one of the two."""
    stage.far.hold(up=False)
    stage.send()
    stage.hear(2)
    stage.board.kill()

    stage.far.cut()
    stage.far.restore()
    stage.board.start()

    spin(stage.hub.client, until=lambda: stage.hub.refused or len(stage.hub.results) > 2, timeout=PATIENCE)
    stage.end()
    assert {type(error) for error in stage.hub.refused} == {RepeatedError}


def test_killed_while_readings_come(stage: Stage) -> None:
    """They wait at their broker."""
    stage.board.kill()
    stage.send(5)

    stage.board.start()

    stage.end()


def test_killed_in_an_outage_before_the_result_is_stored(stage: Stage) -> None:
    """Somebody else, a backup say, keeps the board from writing just then."""
    stage.cut_uplink()
    with closing(sqlite3.connect(stage.site.state / "state.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        stage.send()
        stage.daemon.wait_logged("outbox: ")  # it was to be stored, and could not be
        stage.board.kill()
        other.execute("ROLLBACK")

    stage.far.restore()
    stage.board.start()

    stage.end()


def test_killed_after_an_acknowledgement_and_a_new_announcement_before_the_result_is_removed(stage: Stage) -> None:
    """The hub forgets what it accepted under an epoch that is announced no more: this one still is."""
    stage.cut_uplink()
    stage.send()
    wait_until(
        lambda: stage.settled == 2
    )  # its result is stored, and that of the first one if its acknowledgement is lost
    stage.daemon.reload()  # as above
    stage.board.kill()
    stage.board.start()  # that result's epoch is closed now
    with closing(sqlite3.connect(stage.site.state / "state.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        stage.far.restore()
        stage.hear(2)
        stage.daemon.wait_logged("outbox: ")  # the result was to be removed, and could not be
        heard = len(stage.hub.announcements)
        question = cbor.encode([stage.hub.name, bytes(16)])
        stage.hub.client.publish(f"edged/{stage.site.name}/nonce", question, qos=1)  # which is answered by announcing
        spin(stage.hub.client, until=lambda: len(stage.hub.announcements) > heard, timeout=PATIENCE)
        stage.board.kill()
        other.execute("ROLLBACK")

    stage.board.start()

    wait_until(lambda: stored(stage.site) == 0)  # the same message has been sent once more
    stage.end()
    # the first kill may also have kept the reading's acknowledgement from its broker: then it was answered again
    assert stage.hub.refused
    assert {type(error) for error in stage.hub.refused} <= {ReplayError, RepeatedError}


def test_killed_in_an_outage_after_the_result_is_stored(stage: Stage) -> None:
    """The result itself waits on the disk."""
    stage.cut_uplink()
    stage.send(5)
    wait_until(lambda: stage.settled == 6)
    stage.daemon.reload()  # as above
    stage.board.kill()

    stage.far.restore()
    stage.board.start()

    stage.end()
