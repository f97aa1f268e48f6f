"""A broker that grants a hub less than it asks for: the hub says so until that is mended."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.broker import PlainBroker
from support.hub_process import HubProcess
from support.parties import Board
from support.scrape import scrape
from support.scripted_broker import Connack, ScriptedBroker
from support.waiting import wait_until

pytestmark = pytest.mark.broker

REFUSED = 0x87
"""Not authorized (MQTT 5, section 3.9.3)."""
TOPIC = "edged/press/announce"
PART = f"u0: subscription {TOPIC}"


def test_a_refused_subscription_is_shown_until_it_is_granted(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    numbers = tmp_path / "metrics.sock"
    board = Board("press")
    with PlainBroker(tmp_path) as local, ScriptedBroker() as upstream:
        upstream.suback = lambda topic, qos: REFUSED if topic == TOPIC else qos
        hub = HubProcess(tmp_path / "hub", upstream.url, local=local.url, more_local=f'[metrics]\nlisten = "{numbers}"')
        try:
            hub.enrol(board.record, board.record.encode(board.sign))
            hub.start()
            status = hub.wait(lambda status: PART in status["problems"])
            assert TOPIC in status["problems"][PART]
            wait_until(lambda: scrape(numbers).get(("edged_hub_degraded", PART)) == 1, every=0.2)
            assert PART in hub.command("status")["problems"]
            upstream.suback = lambda _topic, qos: qos
            upstream.cut()
            hub.wait(lambda status: PART not in status["problems"])
            wait_until(lambda: ("edged_hub_degraded", PART) not in scrape(numbers), every=0.2)
        finally:
            hub.close()


def test_a_lost_session_is_said_and_counted_until_one_is_resumed(tmp_path: Path) -> None:
    """Messages that boards sent meanwhile are lost at the broker, where no counter of messages can show them."""
    tmp_path.chmod(0o700)
    numbers = tmp_path / "metrics.sock"
    counted = ("edged_hub_broker_sessions_lost_total", "u0")
    with PlainBroker(tmp_path) as local, ScriptedBroker() as upstream:
        hub = HubProcess(tmp_path / "hub", upstream.url, local=local.url, more_local=f'[metrics]\nlisten = "{numbers}"')
        try:
            hub.start()
            hub.wait(lambda status: status["upstreams"][0]["up"])
            assert "u0: session" not in hub.status()["problems"]
            wait_until(lambda: scrape(numbers).get(counted) == 0, every=0.2)
            upstream.cut()
            status = hub.wait(lambda status: "u0: session" in status["problems"])
            assert "messages that waited there are lost" in status["problems"]["u0: session"]
            wait_until(lambda: scrape(numbers).get(counted) == 1, every=0.2)
            upstream.connack = lambda _packet: Connack(session=True)
            upstream.cut()
            hub.wait(lambda status: "u0: session" not in status["problems"])
            wait_until(lambda: scrape(numbers).get(counted) == 1, every=0.2)
        finally:
            hub.close()
