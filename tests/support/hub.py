"""A hub and a sensor inside the test: what the board answers is at hand as soon as it is there."""

from __future__ import annotations

import hashlib
import time
from typing import Any, Self

from edged.base.errors import EdgedError, ExpiredError
from edged.broker import Delivery
from edged.formats.channel import hub
from edged.formats.channel.receiver import Opened
from edged.formats.channel.report import Report
from edged.formats.channel.result import Sealed
from edged.formats.cose.encrypt0 import parse
from edged.formats.identity import Role
from edged.keystore.people import PersonalKeys
from edged.keystore.records import read_record
from support.broker import Client, spin
from support.site import Site


class Hub:
    """Connects with the first site's hub key, believes the boards of all, and opens each result as it comes.

    :param options: of its connection.

    :ivar results: what opened, in order; ``times``: when, monotonic seconds; ``reports``: what the board said of itself.
    :ivar name: its name in announcements and questions.
    :ivar refused: why other messages of the board's topics were refused.
    :ivar announcements: the payloads on the board's announce topic, in order.
    """

    def __init__(self, *sites: Site, **options: Any) -> None:
        self.results: list[Opened] = []
        self.times: list[float] = []
        self.reports: list[Report] = []
        self.refused: list[EdgedError] = []
        self.announcements: list[bytes] = []
        self._announced: set[str] = set()
        site = sites[0]
        keys = PersonalKeys.read(site.path / "home.key", None)
        boards = [read_record(one.path / "board.enrol", Role.DEVICE) for one in sites]
        self.name = keys.signer.public.thumbprint
        self._hub = hub.Hub(keys, boards)
        self._boards = {board.id for board in boards}
        self._topic = site.topic
        self.client = Client(site.options(**options))
        self.client.on_message = self._take

    def __enter__(self) -> Self:
        for device in self._boards:
            self.client.subscribe(f"edged/{device}/+", 1)
        self.client.connect()
        spin(self.client, until=lambda: self._announced == self._boards, timeout=60)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def _take(self, delivery: Delivery) -> None:
        delivery.ack()
        if delivery.topic.endswith("/announce"):
            self.announcements.append(delivery.payload)
        taken = self._hub.take(delivery.topic, delivery.payload, retained=delivery.retain)
        self._announced |= {device for device, _ in taken.announced}
        for opened in taken.opened:
            self._keep(opened)
        self.reports += [report for _, report in taken.reports]
        # a board whose kernel does not know that its clock is right is asked
        self.refused += [error for _, error in taken.refused if not isinstance(error, ExpiredError)]
        for question in taken.questions:
            self.client.publish(*question, qos=1)

    def _keep(self, opened: Opened) -> None:
        self.results.append(opened)
        self.times.append(time.monotonic())

    def send(self, *payloads: bytes, topic: str | None = None) -> None:
        """Publish readings."""
        for payload in payloads:
            self.client.publish(topic or self._topic, payload, qos=1)

    def ask(self, payload: bytes, *, topic: str | None = None, timeout: float = 15) -> Opened:
        """Send one good reading and return its answer: what was sent before it has been dealt with then.

        :raises AssertionError: it is not answered, or something else is.
        """
        count = len(self.results)
        self.send(payload, topic=topic)
        spin(self.client, until=lambda: any(_answers(one, payload) for one in self.results[count:]), timeout=timeout)
        assert len(self.results) == count + 1, "something was answered that should not have been"
        return self.results[-1]


def _answers(opened: Opened, reading: bytes) -> bool:
    """Return whether a result names ``reading``: by its count if it is sealed, by its digest if not."""
    of = opened.result.input
    if isinstance(of, Sealed):
        return of.last == int.from_bytes(parse(reading, len(reading)).iv[:8], "big")
    return of.digest == hashlib.sha256(hashlib.sha256(reading).digest()).digest()
