"""The rules of delivery, one at a time: real brokers, links that fail on order, and an observer that counts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from support.broker import Client, PlainBroker, spin
from support.faults import newest_epoch, status, stored
from support.promises import NOTHING_LOST
from support.stage import SEALED_WINDOWS, WINDOWS, Setting, Stage
from support.waiting import wait_until

pytestmark = [pytest.mark.broker, NOTHING_LOST, pytest.mark.timeout(400)]

RUNS = 45
"""More than an announcement has room for."""


@contextmanager
def sending(stage: Stage, rate: float) -> Iterator[None]:
    """Send readings at a steady rate from a thread of its own."""
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(1 / rate):
            stage.send()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_results_go_to_the_outbox_while_the_uplink_is_half_open(setting: Setting) -> None:
    """More readings than one topic may have waiting: the silence of the uplink must not stop them."""
    with setting.stage(table=WINDOWS) as stage:
        stage.ask(10)
        stage.far.hold()
        stage.send(1100)
        before = stage.settled
        with sending(stage, 100):
            wait_until(
                lambda: stored(stage.site) > 200, told=lambda: f"{stored(stage.site)} stored, {stage.settled} settled"
            )
            wait_until(lambda: stage.settled > before + 200)
        stage.far.restore()
        stage.end()


def test_equal_plain_windows_are_readings_of_their_own(setting: Setting) -> None:
    with setting.stage(table=WINDOWS) as stage:
        stage.send(100, stage.reading())
        stage.end()


def test_equal_plain_windows_that_are_handed_out_again_are_answered_once_each(setting: Setting) -> None:
    """The connection ends when half of them are answered, and acknowledged to a broker that never hears of it."""
    with setting.stage(table=WINDOWS) as stage:
        equal = stage.reading()
        stage.send(50, equal)
        stage.hear(50)
        stage.near.hold(down=False)
        stage.send(50, equal)
        stage.hear(75)
        stage.near.cut()
        stage.near.restore()
        stage.end()
        assert stage.observer.track(stage.site.topic, equal).again


@pytest.mark.slow
def test_no_result_is_lost_over_forty_five_restarts_without_an_uplink(setting: Setting) -> None:
    with setting.stage() as stage:
        stage.ask()
        stage.cut_uplink()
        for number in range(RUNS):
            stage.send()
            wait_until(lambda: stored(stage.site) > number)  # noqa: B023
            if number % 2:
                stage.board.kill()
            else:
                assert stage.daemon.stop() == 0
            stage.board.start()
        stage.far.restore()
        stage.end()


def test_no_result_is_lost_over_forty_five_channel_keys_without_an_uplink(setting: Setting) -> None:
    with setting.stage(results='rotate = "1 ms"') as stage:
        stage.ask()
        stage.cut_uplink()
        for _ in range(RUNS):
            settled, epoch = stage.settled, newest_epoch(stage.site)
            stage.send()
            wait_until(lambda: stage.settled > settled and newest_epoch(stage.site) > epoch)  # noqa: B023
        wait_until(lambda: stored(stage.site) >= RUNS)
        stage.far.restore()
        stage.end()
        assert len({one.kid for one in stage.hub.results}) > RUNS


@pytest.mark.parametrize("table", [WINDOWS, SEALED_WINDOWS], ids=["plain", "sealed"])
def test_retained_readings_are_not_answered(setting: Setting, table: str) -> None:
    """Such a reading was true once: a broker hands it out at each start of either side."""
    stage = setting.stage(table=table)
    with closing(Client(setting.site.options())) as sensor:
        sensor.connect()
        stage.sent.append(stage.reading())
        sensor.publish(setting.site.topic, stage.sent[-1], qos=1, retain=True)
        spin(sensor, until=lambda: sensor.delivered)
    with stage:
        stage.end()
        restart(setting.near, stage)
        stage.end()


def test_a_broker_that_is_restarted_often_is_not_taken_for_a_copied_card(setting: Setting) -> None:
    with setting.stage() as stage:
        for _ in range(3):
            restart(setting.near, stage)
        stage.end()
        assert "is this board's card a copy?" not in stage.daemon.said
        assert "another client" not in status(stage.site)["reported"]["error"]


def restart(broker: PlainBroker, stage: Stage) -> None:
    """Restart a broker, and wait until the board is connected again."""
    connections = stage.daemon.said.count(": connected, ")
    broker.stop()
    broker.start()
    wait_until(lambda: stage.daemon.said.count(": connected, ") > connections)
