"""The heartbeat: how the board is, sealed to its hubs, told to systemd, and to `edged status` on the board."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict

from edged import __version__
from edged.base import notify
from edged.base.errors import OutputError
from edged.base.files import SHARED_FILE, write_atomically
from edged.base.notify import runtime_directory
from edged.board.daemon.health import Health
from edged.board.daemon.outgoing import Outgoing
from edged.board.pipeline import Lane
from edged.broker import Broker
from edged.formats.channel.announcer import Announcer
from edged.formats.channel.report import Report

HEALTH, STATUS = "health", "status"
STATUS_FILE = "status.json"


class Heartbeat:
    """Says how the board is.

    :param topic: where the sealed report goes.
    """

    def __init__(self, uplink: Broker, announcer: Announcer, outgoing: Outgoing, health: Health, topic: str) -> None:
        self._uplink = uplink
        self._announcer = announcer
        self._outgoing = outgoing
        self._health = health
        self._topic = topic
        directory = runtime_directory()
        self._file = None if directory is None else directory / STATUS_FILE

    def _report(self, lanes: Mapping[str, Lane]) -> Report:
        outbox = self._outgoing.outbox
        models = {channel: (lane.model.manifest.name, lane.model.manifest.version) for channel, lane in lanes.items()}
        waiting = self._outgoing.waiting + outbox.waiting
        return self._health.report(time.time(), models, waiting, outbox.bytes)

    def beat(self, lanes: Mapping[str, Lane]) -> None:
        """Publish a report. One that the broker is not there for is not kept: the next one says more."""
        if self._uplink.is_up:
            message = self._announcer.seal_health(self._report(lanes).encode())
            self._outgoing.announce_if_due()
            self._uplink.publish(self._topic, message)

    def say(self, lanes: Mapping[str, Lane], links: str) -> None:
        """Tell systemd, and whoever asks on this board."""
        self._health.measure()
        notify.status(f"{links}; {self._health.line()}")
        if self._file is not None:
            facts = json.dumps(self._facts(lanes, links)).encode()
            with suppress(OutputError):
                write_atomically(self._file, [facts], mode=SHARED_FILE, replace=True, durable=False)

    def _facts(self, lanes: Mapping[str, Lane], links: str) -> dict[str, object]:
        serving = {
            channel: {"version": lane.model.manifest.version, "on_trial": lane.probation is not None}
            for channel, lane in lanes.items()
        }
        report = asdict(self._report(lanes))
        return {
            "version": __version__,
            "links": links,
            **report,
            "last_result": self._health.last_result,
            "serving": serving,
        }
