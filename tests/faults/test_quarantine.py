"""One reading must not stop the others: what kills the process, what floods a topic, what nobody takes."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from edged.broker import Broker
from support.broker import PlainBroker
from support.faults import Board, Sensor, World, often
from support.hub import Hub
from support.process import DaemonProcess
from support.site import Site

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(600)]

KILLER = b"\x00\x00\xc0\x7f" * 1200
"""A window of NaN, at which the library below dies."""

_DEADLY = """
import os, signal, sys
import numpy as np
from edged.model.signal import rows

call = rows.Cleaner.__call__

def deadly(self, rows):
    if np.isnan(rows).all():
        os.kill(os.getpid(), signal.SIGSEGV)  # as a runtime would that reads beyond its arena
    return call(self, rows)

rows.Cleaner.__call__ = deadly
from edged.__main__ import main
main()
"""


@pytest.mark.parametrize("journal", [False, True])
def test_a_reading_that_kills_the_process_is_set_aside_and_the_next_one_flows(
    site: Site, windows: np.ndarray, tmp_path: Path, *, journal: bool
) -> None:
    table = 'format = "f32le"\n' + ('each = "rows"\njournal = true\n' if journal else 'each = "window"\n')
    site.configure(table)
    site.init()
    site.install(site.pack())
    program = tmp_path / "deadly.py"
    program.write_text(_DEADLY)
    good = np.ascontiguousarray(windows[0], "<f4").tobytes()
    starts = 0
    with site.daemon(program=[str(program)]) as daemon, Hub(site, client_id="hub", session_expiry=3600) as hub:
        hub.send(KILLER, good)
        while daemon.process.poll() is None or daemon.process.returncode < 0:
            hub.client.run_once(0.05)
            if daemon.process.poll() is not None:
                starts += 1
                assert starts < 8, daemon.log
                daemon.stop()
                daemon = DaemonProcess(site.path, program=[str(program)])  # noqa: PLW2901  as systemd does
            if hub.results:
                break
        assert hub.results
        daemon.stop()
    status = json.loads(site.edged("status", "--json", "-c", "edged.toml").stdout)
    (aside,) = status["set_aside"]
    assert aside["bytes"] == len(KILLER)
    assert "died" in aside["why"]
    print(f"\n{starts} deaths, then set aside")


def test_a_flood_on_one_topic_does_not_hold_up_another(quick_site: Site, windows: np.ndarray) -> None:
    """More readings a second than are taken of a topic: those are refused, counted, and soon gone."""
    site = quick_site
    site.topic = "factory/+/vibration"
    site.configure('format = "f32le"\neach = "window"\n', extra="[limits]\nrate = 100\n")
    site.init()
    site.install(site.pack())
    site.topic = "factory/quiet/vibration"
    sensor = Sensor(site, windows, rows=False, sealed=False, rate=20)
    flood = Broker(site.options(client_id="flood"))
    seconds = often(5, 60)
    with Board(site.path).running(), World(site, sensor) as world:
        flood.connect()
        until = time.monotonic() + seconds
        sent = 0
        payload = np.zeros((300, 4), "<f4").tobytes()
        while time.monotonic() < until:
            flood.run_once(0.001)
            while flood.is_up and flood.pending < 200:
                flood.publish("factory/loud/vibration", payload, qos=1)
                sent += 1
        world.pause()
        world.wait(lambda: set(sensor.expected()) <= set(world.answered()))
        flood.close()
        waits = sorted(world.waits())
    assert sent > 100 * seconds * 2, "that was no flood"
    print(
        f"\n{sent} readings in {seconds} s on one topic; on the other, {len(waits)} waited for their results"
        f" {waits[len(waits) // 2]:.3f} s in the median and {waits[-1]:.3f} s at most"
    )


def test_a_broker_that_takes_nothing_makes_the_board_store_and_then_stop_taking(
    site: Site, windows: np.ndarray, broker: PlainBroker
) -> None:
    """Memory does not grow with a broker that is there and answers nothing (SIGSTOP)."""
    site.configure('format = "f32le"\neach = "window"\n')
    site.init()
    site.install(site.pack())
    sensor = Sensor(site, windows, rows=False, sealed=False, rate=100)
    with Board(site.path).running() as board, World(site, sensor) as world:
        world.wait_answered(50)
        assert board.daemon is not None
        assert broker._process is not None
        os.kill(broker._process.pid, signal.SIGSTOP)
        world.wait_sent(often(5, 60) * 100)
        os.kill(broker._process.pid, signal.SIGCONT)
        world.finish(60)
